"""How much of a riff is copied: the nearest training riff, the longest run shared with any, exact and transposed copies.

A riff is read as events (onset step, interval from the note before), so that transposed riffs are equal and a note at
another time is another event. No torch: generate.py, evaluate.py and whoever has a folder of riffs can ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from config import TokenizerConfig
from measures.metrics import relative_tokens
from midi_utils import tokens_to_notes

CHUNK = 1024  # riffs compared at once with all training riffs: 4 bytes for each pair
MOST_ASKED = 2000  # riffs of a large folder that stand for all
_INTERVALS = 256  # more than there are intervals between MIDI pitches
_FIRST_LETTER = 0x10000  # letters stand above the surrogates, which are no characters

Found = TypeVar("Found", bound="LookUp")


class LookUp:
    """What some pieces of music have in common with those that are known: what dataclasses of arrays, with one entry for each, share."""

    copied: np.ndarray  # float64, 0..1: share of each that its nearest known piece has too

    def too_close(self, max_copy: float) -> np.ndarray:
        """Which copy more than a share of them, 0..1. bool"""
        return self.copied > max_copy

    def replaced(self: Found, index: np.ndarray, other: Found) -> Found:
        """With the entries of some taken from another look-up."""
        mixed = [getattr(self, f.name).copy() for f in fields(self)]
        for mine, f in zip(mixed, fields(self), strict=True):
            mine[index] = getattr(other, f.name)
        return type(self)(*mixed)

    def take(self: Found, index: np.ndarray) -> Found:
        """Those of some."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Nearest(LookUp):
    """What some riffs have in common with the training riffs. Arrays have one entry per riff."""

    index: np.ndarray  # int64, the nearest training riff
    distance: np.ndarray  # float64, 0 (the same events) to 1 (nothing in common)
    shared_run: np.ndarray  # int64, notes of the longest passage shared with any training riff, whatever its place and key
    copy: np.ndarray  # bool, a training riff token for token, transposed or not

    @property
    def copied(self) -> np.ndarray:
        """Share of a riff that its nearest training riff has too. float64, 0..1"""
        return 1 - self.distance

    def too_close(self, max_copy: float) -> np.ndarray:
        """Which riffs copy more than a share of them, 0..1; with less than 1, exact and transposed copies are always among them. bool"""
        return (self.copied > max_copy) | (self.copy & (max_copy < 1))


class TrainingRiffs:
    """Riffs to be original against.

    Args:
        tokens: int [riffs, steps]
        names: of the riffs, for reports.
        song: which song each riff belongs to; `nearest` can leave out the riff's own.
    """

    def __init__(self, tokens: np.ndarray, names: Sequence[str], tokenizer: TokenizerConfig, song: np.ndarray | None = None) -> None:
        if len(tokens) != len(names):
            raise ValueError(f"{len(tokens)} riffs and {len(names)} names")
        self.names, self.tokenizer, self.song = list(names), tokenizer, song
        self._exact: dict[bytes, set] = {}  # riffs, transposed alike, and the songs that have them
        for riff, own in zip(relative_tokens(tokens), [None] * len(tokens) if song is None else song, strict=True):
            self._exact.setdefault(riff.tobytes(), set()).add(own)
        self._letters: dict[int, str] = {}
        self._events = [self._word(events, learn=True) for events in riff_events(tokens, tokenizer)]
        words = [self._word(steps, learn=True) for steps in riff_steps(tokens, tokenizer)]
        self._passages = "\0".join(words)
        by_song: dict[Any, list[str]] = {}
        for word, own in zip(words, [] if song is None else song, strict=song is not None):
            by_song.setdefault(own, []).append(word)
        self._passages_of = {own: "\0".join(some) for own, some in by_song.items()}

    def _word(self, codes: np.ndarray, learn: bool = False) -> str:
        """Codes as letters; what no training riff has is U+0001, which is never compared with itself."""
        if learn:
            return "".join(self._letters.setdefault(code, chr(_FIRST_LETTER + len(self._letters))) for code in codes.tolist())
        return "".join(self._letters.get(code, "\1") for code in codes.tolist())

    def distances(self, tokens: np.ndarray, song: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest training riff of each riff, and how far it is: see `nearest`. int64 and float64 [riffs]"""
        words = [self._word(events) for events in riff_events(tokens, self.tokenizer)]
        index, distance = np.zeros(len(words), dtype=np.int64), np.ones(len(words))
        for first in range(0, len(words), CHUNK):
            some = slice(first, first + CHUNK)
            table = cdist(words[some], self._events, scorer=Levenshtein.normalized_distance, dtype=np.float32)
            if song is not None:
                table[np.asarray(song)[some, None] == self.song] = np.inf
            index[some] = table.argmin(axis=1)
            distance[some] = np.minimum(table.min(axis=1), 1)
        return index, distance

    def nearest(self, tokens: np.ndarray, song: np.ndarray | None = None) -> Nearest:
        """Look up riffs.

        The distance is the edit distance over events, divided by the length of the longer riff (Levenshtein, computed by
        rapidfuzz); the nearest is the first of the closest ones.

        Args:
            tokens: int [riffs, steps]
            song: int [riffs]; training riffs of a riff's own song are passed over, for a band of what people do.
        """
        song = song if self.song is not None else None
        index, distance = self.distances(tokens, song)
        runs = [
            self._longest_run(self._word(steps), None if song is None else song[i])
            for i, steps in enumerate(riff_steps(tokens, self.tokenizer))
        ]
        owners = [self._exact.get(riff.tobytes(), set()) for riff in relative_tokens(tokens)]
        copy = np.array([bool(own) if song is None else bool(own - {song[i]}) for i, own in enumerate(owners)], dtype=bool)
        return Nearest(index, distance, np.array(runs, dtype=np.int64), copy)

    def _longest_run(self, word: str, but_song: int | None) -> int:
        """Notes of the longest passage of a word of steps that a training riff (of another song) has: one more than its steps."""
        texts = [self._passages] if but_song is None else [text for song, text in self._passages_of.items() if song != but_song]
        longest, _ = longest_passage(word, texts)
        return longest + 1 if longest else 0

    def describe(self, nearest: Nearest, i: int) -> dict[str, Any]:
        """One riff's entry for its JSON."""
        return {
            "riff": self.names[nearest.index[i]],
            "distance": round(float(nearest.distance[i]), 4),
            "copied": round(float(nearest.copied[i]), 4),
            "shared_run": int(nearest.shared_run[i]),
            "copy": bool(nearest.copy[i]),
        }


def longest_passage(word: str, texts: Sequence[str]) -> tuple[int, int]:
    """The longest part of a word that stands in some text: its length, and where it begins in the word (the first of the longest)."""
    longest = place = 0
    for first in range(len(word)):
        while first + longest < len(word) and any(word[first : first + longest + 1] in text for text in texts):
            longest, place = longest + 1, first
    return longest, place


class TrainingPieces:
    """Pieces of any length to be original against, token for token (transposed passages are not found).

    Args:
        tokens: int [tokens] each, from BOS to EOS.
        names: of the pieces, for reports.
    """

    def __init__(self, tokens: Sequence[np.ndarray], names: Sequence[str]) -> None:
        self.names = list(names)
        self._words = [_letters(piece) for piece in tokens]
        self._text = "\0".join(self._words)

    def shared(self, piece: np.ndarray) -> tuple[float, int, str]:
        """The longest passage that a piece has in common with a training piece.

        Returns:
            its share of the piece's tokens (BOS and EOS apart), 0..1; its length in tokens; and the name of the training piece.
        """
        word = _letters(piece)
        length, place = longest_passage(word, [self._text])
        passage = word[place : place + length]
        name = next((name for name, text in zip(self.names, self._words, strict=True) if passage in text), "") if length else ""
        return length / max(1, len(word)), length, name


def _letters(piece: np.ndarray) -> str:
    """A piece's tokens as letters, BOS and EOS left out; none is the \\0 that parts pieces."""
    return "".join(map(chr, (piece[piece > 2] + 1).tolist()))


def riff_events(tokens: np.ndarray, tokenizer: TokenizerConfig) -> list[np.ndarray]:
    """Each riff as (onset step, interval from the note before) in one number a note; the first interval is 0. int64 [notes] each"""
    codes = []
    for riff in tokens:
        start, _, pitch = tokens_to_notes(riff, tokenizer)
        codes.append(start * _INTERVALS + np.diff(pitch, prepend=pitch[:1]) + _INTERVALS // 2)
    return codes


def riff_distances(a: np.ndarray, b: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """How far each riff is from each other, as in TrainingRiffs.nearest. a: int [n, T], b: int [m, T] -> float32 [n, m], 0..1"""
    words = [["".join(map(chr, (events + _FIRST_LETTER).tolist())) for events in riff_events(riffs, tokenizer)] for riffs in (a, b)]
    return cdist(*words, scorer=Levenshtein.normalized_distance, dtype=np.float32)


def riff_steps(tokens: np.ndarray, tokenizer: TokenizerConfig) -> list[np.ndarray]:
    """Each riff as (steps, interval) from a note to the next: free of place and key. int64 [notes - 1] each, negative to stand
    apart from riff_events"""
    codes = []
    for riff in tokens:
        start, _, pitch = tokens_to_notes(riff, tokenizer)
        codes.append(-(np.diff(start) * _INTERVALS + np.diff(pitch) + _INTERVALS // 2))
    return codes


def human_distance(tokens: np.ndarray, song: np.ndarray, tokenizer: TokenizerConfig) -> float:
    """How far people's riffs are from other songs' riffs: the median distance to the nearest riff of another song.

    Args:
        tokens: int [riffs, steps]
        song: int [riffs]

    Returns:
        0..1; NaN with a single song.
    """
    if len(np.unique(song)) < 2:
        return float("nan")
    asked = np.sort(np.random.default_rng(0).permutation(len(tokens))[:MOST_ASKED])
    known = TrainingRiffs(tokens, [""] * len(tokens), tokenizer, song)
    return float(np.median(known.distances(tokens[asked], song[asked])[1]))
