"""Riffs as tab and as Guitar Pro files."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import guitarpro
import numpy as np
import pytest
from guitarpro.models import BeatStatus, NoteType
from hypothesis import given, settings
from hypothesis import strategies as st

from config import GuitarConfig, TokenizerConfig, UserError
from guitar.fretboard import Fretboard, finger, parse_tuning
from guitar.guitar_pro import riffs_to_gp5, signs, split_length
from guitar.tab import board_for, length_name, riff_tab, tab_page, unplayable
from midi_utils import Riff, tokens_to_notes

TWO_BARS = TokenizerConfig()
STANDARD = Fretboard(parse_tuning("standard"))
DROP_D = Fretboard(parse_tuning("drop-d"))


def riff(*tokens: int, tempos: tuple[tuple[float, float], ...] = ((0.0, 96.0),), name: str = "test") -> Riff:
    """A riff that rests where nothing is said."""
    full = np.zeros(32, dtype=np.int64)
    full[: len(tokens)] = tokens
    return Riff(full, tempos, 30, name)


def random_riff(seed: int, low: int = 38, high: int = 70) -> Riff:
    rng = np.random.default_rng(seed)
    tokens = rng.choice([0, 128, 1], size=32, p=[0.15, 0.45, 0.4])
    tokens = np.where(tokens == 1, rng.integers(low, high + 1, size=32), tokens)
    for t in range(32):
        if tokens[t] == 128 and (t == 0 or tokens[t - 1] == 0):
            tokens[t] = 0
    return Riff(tokens.astype(np.int64), ((0.0, float(rng.integers(60, 200))),), 30, f"riff {seed}")


# ---------------------------------------------------------------- tab


def test_a_tab_as_it_is_read() -> None:
    """Every column is a step; the thin string is on top; the letters say how long."""
    page = tab_page(riff(40, 128, 43, 45, 0, 0, 62, 128, 128, 128, 128, 67, *[0] * 4, *[40] + [128] * 15), TWO_BARS, STANDARD)
    assert page.splitlines() == [
        "test",
        "tuning standard (EADGBE)   96 bpm   4/4",
        "w h q e s: whole note to sixteenth, . half as long again",
        "",
        "  1   &   2   &   3   &   4   &    1   &   2   &   3   &   4   &",
        "E|----------------------3---------|--------------------------------|",
        "B|------------3-------------------|--------------------------------|",
        "G|--------------------------------|--------------------------------|",
        "D|--------------------------------|--------------------------------|",
        "A|------0-------------------------|--------------------------------|",
        "E|0---3---------------------------|0-------------------------------|",
        "  e   s s     q+s       s          w",
    ]
    assert max(map(len, page.splitlines())) <= 80


def read_tab(text: str, board: Fretboard) -> list[tuple[int, int]]:
    """(step, pitch) of each number of a tab, as a player reads it."""
    names = len(board.strings)
    lines = [line.split("|")[1:-1] for line in text.splitlines() if "|" in line]
    rows = ["".join("".join(lines[first + string]) for first in range(0, len(lines), names)) for string in range(names)]
    column = len(rows[0]) // 32
    found = []
    for string, row in zip(reversed(board.strings), rows, strict=True):
        found += [(m.start() // column, string + board.capo + int(m.group())) for m in re.finditer("[0-9]+", row)]
    return sorted(found)


@pytest.mark.parametrize("capo", [0, 2])
def test_a_tab_played_through_is_the_riff(capo: int) -> None:
    board = Fretboard(parse_tuning("drop-d"), capo=capo)
    for seed in range(60):
        one = random_riff(seed, low=38 + capo, high=84)
        start, _, pitch = tokens_to_notes(one.tokens, TWO_BARS)
        assert read_tab(riff_tab(one, TWO_BARS, board), board) == list(zip(start.tolist(), pitch.tolist(), strict=True))


def test_what_cannot_be_played_is_said_and_never_on_a_negative_fret() -> None:
    low = riff(36, 0, 40, 0, 0, 0, 100)
    assert unplayable(low, TWO_BARS, STANDARD) == ["C2 in bar 1, beat 1", "E7 in bar 1, beat 2.5"]
    page = tab_page(low, TWO_BARS, STANDARD)
    assert page.rstrip().splitlines()[-1] == "not on this guitar: C2 in bar 1, beat 1, E7 in bar 1, beat 2.5"
    assert page.count("?") == 2 and "-1" not in page.replace("|", "")
    assert unplayable(riff(38), TWO_BARS, DROP_D) == []


def test_frets_from_ten_on_do_not_run_together() -> None:
    text = riff_tab(riff(*[84] * 32), TWO_BARS, STANDARD)
    assert "E|20-20-20-20-20-" in text and max(map(len, text.splitlines())) <= 80
    assert len([line for line in text.splitlines() if line.startswith("G|")]) == 2  # a row for each bar


@pytest.mark.parametrize(("steps", "name"), [(1, "s"), (2, "e"), (3, "e."), (5, "q+s"), (7, "q.+s"), (16, "w"), (18, "w+e"), (32, "w+w")])
def test_lengths_in_letters(steps: int, name: str) -> None:
    assert length_name(steps) == name


def test_other_grids_and_lengths() -> None:
    four = TokenizerConfig(bars=4)
    tokens = np.tile(random_riff(0).tokens, 2)
    text = riff_tab(Riff(tokens), four, DROP_D)
    assert len([line for line in text.splitlines() if line.startswith("G|")]) == 2  # rows of two bars each
    triplets = TokenizerConfig(steps_per_beat=3)
    text = riff_tab(Riff(np.array([45, 0, 47] * 8)), triplets, STANDARD)
    assert "1     2     3" in text and "s" not in text  # no letters for what is no sixteenth


def test_the_guitar_of_silence_is_standard() -> None:
    assert board_for([riff()], TWO_BARS, GuitarConfig()).name == "standard (EADGBE)"
    assert "|0" not in tab_page(riff(), TWO_BARS, STANDARD)


# ---------------------------------------------------------------- Guitar Pro


@settings(deadline=None)
@given(at=st.integers(0, 31), length=st.integers(1, 32), beat=st.sampled_from([1, 2, 4, 8]))
def test_lengths_are_split_into_what_can_be_written(at: int, length: int, beat: int) -> None:
    at, length = at % (4 * beat), min(length, 4 * beat - at % (4 * beat))
    parts = split_length(at, length, beat)
    assert sum(parts) == length
    for part in parts:
        plain = part // 3 * 2 if part % 3 == 0 else part
        assert 4 * beat % plain == 0  # a note value, dotted or not


def test_the_beats_stay_in_sight() -> None:
    """A note that begins off the beat is cut at the next one, unless it is a beat long from half-way."""
    found = {(0, 5): [4, 1], (1, 4): [3, 1], (3, 6): [1, 4, 1], (2, 4): [4], (2, 3): [2, 1], (0, 12): [12], (0, 16): [16], (0, 7): [6, 1]}
    assert {key: split_length(*key, 4) for key in found} == found


def read_gp5(data: bytes) -> tuple[list[tuple[int, int, int, int]], guitarpro.Song]:
    """(start and length in sixteenths, string, fret) of each note of a file, ties joined."""
    song = guitarpro.parse(BytesIO(data))
    notes: list[list[int]] = []
    for measure in song.tracks[0].measures:
        at = measure.start
        for beat in measure.voices[0].beats:
            for note in beat.notes:
                place, length = (at - 960) // 240, beat.duration.time // 240
                if note.type == NoteType.tie:
                    assert notes[-1][2:] == [note.string, note.value] and sum(notes[-1][:2]) == place
                    notes[-1][1] += length
                else:
                    assert note.type == NoteType.normal and beat.status == BeatStatus.normal
                    notes.append([place, length, note.string, note.value])
            at += beat.duration.time
        assert at == measure.end  # full bars
    return [tuple(note) for note in notes], song


@pytest.mark.parametrize("capo", [0, 1])
def test_gp5_reads_back_identically(capo: int) -> None:
    """String, fret, start, length, tempo, tuning, capo, program and names, of a hundred riffs."""
    board = Fretboard(parse_tuning("drop-d"), capo=capo)
    for seed in range(0, 100, 4):
        riffs = [random_riff(number, low=39, high=84) for number in range(seed, seed + 4)]
        notes, song = read_gp5(riffs_to_gp5(riffs, TWO_BARS, board))
        expected = []
        for number, one in enumerate(riffs):
            start, end, pitch = tokens_to_notes(one.tokens, TWO_BARS)
            found = finger(board, start, end, pitch)
            for first, last, string, fret in zip(start, end, found.string, found.fret, strict=True):
                expected.append((int(first) + 32 * number, int(last - first), 6 - int(string), int(fret)))
        assert notes == expected
        track = song.tracks[0]
        assert song.tempo == riffs[0].bpm and song.title == riffs[0].name
        assert tuple(string.value for string in reversed(track.strings)) == board.strings
        assert (track.offset, track.fretCount, track.channel.instrument) == (capo, board.frets, 30)
        assert [header.marker.title for header in song.measureHeaders if header.marker] == [one.name for one in riffs]


def test_tempo_changes_reach_the_file() -> None:
    changed = riff(40, 128, *[45] * 30, tempos=((0.0, 90.0), (16.0, 140.0)))
    _, song = read_gp5(riffs_to_gp5([changed, riff(40, tempos=((0.0, 90.0),))], TWO_BARS, STANDARD))
    found = []
    for measure in song.tracks[0].measures:
        for beat in measure.voices[0].beats:
            if beat.effect.mixTableChange is not None:
                found.append((measure.number, beat is measure.voices[0].beats[0], beat.effect.mixTableChange.tempo.value))
    assert (song.tempo, found) == (90, [(2, True, 140), (3, True, 90)])


def test_what_cannot_be_played_is_a_rest_in_the_file() -> None:
    notes, _ = read_gp5(riffs_to_gp5([riff(30, 128, 45)], TWO_BARS, STANDARD))
    assert [note[0] for note in notes] == [2]


def test_signs_have_no_gaps() -> None:
    for seed in range(20):
        at = 0
        for step, length, _, _ in signs(random_riff(seed), TWO_BARS):
            assert step == at and length > 0
            at += length
        assert at == 32


def test_what_the_format_has_no_signs_for_is_refused() -> None:
    with pytest.raises(UserError, match="steps-per-beat 3"):
        riffs_to_gp5([Riff(np.array([45, 0, 47] * 8))], TokenizerConfig(steps_per_beat=3), STANDARD)
    with pytest.raises(UserError, match="8 strings"):
        riffs_to_gp5([riff(40)], TWO_BARS, Fretboard(parse_tuning("8-string")))
    with pytest.raises(ValueError, match="no riffs"):
        riffs_to_gp5([], TWO_BARS, STANDARD)


def test_names_that_the_format_cannot_hold_do_no_harm(tmp_path: Path) -> None:
    for name in ("벌스", "x" * 300, "", "naïve \x00 name"):
        notes, _ = read_gp5(riffs_to_gp5([riff(40, name=name)], TWO_BARS, STANDARD))
        assert len(notes) == 1
