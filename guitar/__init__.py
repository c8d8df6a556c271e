"""Riffs on a guitar and in its formats: fretboard, tab, Guitar Pro, songs, sound."""
