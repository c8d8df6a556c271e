"""Event tokens: the same notes back, one way to write them, and nothing that a broken stream or file can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Here, assert_one_line, midi_bytes, midi_track
from hypothesis import given, settings
from hypothesis import strategies as st

from config import EventConfig
from events import (
    BOS,
    EOS,
    MAX_TOKENS,
    NOTE_OFF,
    NOTE_ON,
    PAD,
    TIME_SHIFT,
    event_name,
    events_to_midi,
    events_to_notes,
    midi_to_events,
    notes_to_events,
    seconds_of,
    tidy,
    transpose_events,
)
from midi_utils import MidiError, parse_midi, read_midi

CONFIG = EventConfig()
NOTES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 250), st.integers(0, 127)), min_size=1, max_size=40)


def on(pitch: int) -> int:
    return NOTE_ON + pitch


def off(pitch: int) -> int:
    return NOTE_OFF + pitch


def shift(steps: int) -> int:
    return TIME_SHIFT + steps


def arrays(notes: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """start, length, pitch -> start, end, pitch"""
    start, length, pitch = np.array(notes, dtype=np.int64).T
    return start, start + length, pitch


def equal(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------- by hand


def test_names_of_tokens() -> None:
    numbers = [PAD, BOS, EOS, on(0), on(127), off(0), off(127), shift(1), shift(100)]
    names = ["PAD", "BOS", "EOS", "NOTE_ON_0", "NOTE_ON_127", "NOTE_OFF_0", "NOTE_OFF_127", "TIME_SHIFT_1", "TIME_SHIFT_100"]
    assert [event_name(number) for number in numbers] == names


def test_a_chord_and_a_repeat_by_hand() -> None:
    """Offs before ons, low before high; a pitch struck again is closed first; the beginning is the first note, wherever it stood."""
    tokens = notes_to_events(*arrays([(7, 4, 64), (7, 4, 60), (11, 2, 60)]), CONFIG)
    assert tokens.tolist() == [BOS, on(60), on(64), shift(4), off(60), off(64), on(60), shift(2), off(60), EOS]


def test_long_gaps_are_full_shifts_and_the_rest() -> None:
    gap = notes_to_events(*arrays([(0, 1, 60), (251, 1, 60)]), CONFIG)
    assert gap.tolist() == [BOS, on(60), shift(1), off(60), shift(100), shift(100), shift(50), on(60), shift(1), off(60), EOS]
    even = notes_to_events(*arrays([(0, 100, 60)]), CONFIG)
    assert even.tolist() == [BOS, on(60), shift(100), off(60), EOS]


def test_one_pitch_in_two_voices_is_struck_once_or_again() -> None:
    """Guards against two notes of one pitch that sound together, whose ends nobody can tell apart."""
    start, end, pitch = tidy(*arrays([(0, 10, 60), (5, 2, 60), (20, 3, 60), (20, 8, 60)]))
    assert list(zip(start, end, pitch, strict=True)) == [(0, 5, 60), (5, 7, 60), (20, 28, 60)]
    assert notes_to_events(*arrays([(0, 0, 60)]), CONFIG).tolist() == [BOS, on(60), shift(1), off(60), EOS]  # a step at least


def test_streams_that_no_keyboard_can_play_are_mended() -> None:
    tokens = np.array([BOS, off(50), on(60), shift(3), on(60), on(62), shift(2), off(60), shift(1), EOS, on(70)])
    (start, end, pitch), length = events_to_notes(tokens)
    assert list(zip(start, end, pitch, strict=True)) == [(0, 3, 60), (3, 5, 60), (3, 6, 62)]  # 62 was left sounding: closed at the end
    assert length == 6
    assert [len(x) for x in events_to_notes(np.array([BOS, shift(5), EOS]))[0]] == [0, 0, 0]
    (start, end, pitch), length = events_to_notes(np.array([on(60), off(60), on(60), shift(2)]))
    assert (start.tolist(), end.tolist(), length) == ([0], [2], 2)  # struck twice at one time: once


# ---------------------------------------------------------------- round trips


@settings(max_examples=200, deadline=None)
@given(NOTES, st.integers(1, 120))
def test_notes_come_back(notes: list[tuple[int, int, int]], max_shift: int) -> None:
    config = EventConfig(max_shift=max_shift)
    tokens = notes_to_events(*arrays(notes), config)
    back, length = events_to_notes(tokens)
    start, end, pitch = tidy(*arrays(notes))
    assert equal(back, (start - start[0], end - start[0], pitch))
    assert length == int((end - start[0]).max())
    assert np.array_equal(notes_to_events(*back, config), tokens)
    assert tokens[1:-1].max() <= TIME_SHIFT + max_shift and tokens[1:-1].min() >= NOTE_ON


@settings(max_examples=60, deadline=None)
@given(NOTES, st.sampled_from([1, 7, 10, 50, 125, 333, 1000]))
def test_files_come_back(notes: list[tuple[int, int, int]], milliseconds: int) -> None:
    """Any length of step: the file's ticks hit every step exactly, at its tempo."""
    config = EventConfig(time_step_ms=milliseconds)
    tokens = notes_to_events(*arrays(notes), config)
    midi = parse_midi(events_to_midi(tokens, config, program=24))
    assert np.array_equal(midi_to_events(midi, config), tokens)
    assert [track.program for track in midi.tracks] == [24]
    (start, _, _), length = events_to_notes(tokens)
    assert np.allclose(seconds_of(midi, midi.tracks[0].start), np.sort(start) * milliseconds / 1000)
    assert seconds_of(midi, np.array([midi.tracks[0].end.max()]))[0] == pytest.approx(length * milliseconds / 1000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 358), max_size=200))
def test_any_stream_of_tokens_can_be_read_and_written(tokens: list[int]) -> None:
    """Guards against what an untrained model may say: notes last a step at least, none twice at once, the file reads back."""
    (start, end, pitch), _ = events_to_notes(np.array(tokens, dtype=np.int64))
    assert (end > start).all()
    for value in np.unique(pitch):
        mine = pitch == value
        assert (end[mine][:-1] <= start[mine][1:]).all()
    data = events_to_midi(np.array(tokens, dtype=np.int64), CONFIG)
    if len(start):
        assert len(parse_midi(data).tracks[0].pitch) == len(start)


def test_transposing_leaves_time_alone() -> None:
    tokens = notes_to_events(*arrays([(0, 4, 60), (4, 120, 67)]), CONFIG)
    up = notes_to_events(*arrays([(0, 4, 65), (4, 120, 72)]), CONFIG)
    assert np.array_equal(transpose_events(tokens, 5), up)


# ---------------------------------------------------------------- files


def test_time_is_that_of_the_tempo_map(write: Callable[..., Path]) -> None:
    """Guards against a fixed tempo: after the change at beat 2 a quarter lasts 250 ms instead of 500."""
    path = write("a.mid", [(0, 1, 60), (1, 1, 62), (2, 1, 64), (3, 1, 65)], tempos=((0, 120), (2, 240)))
    tokens = midi_to_events(read_midi(path), CONFIG)
    assert tokens.tolist() == [
        BOS, on(60), shift(10), off(60), on(62), shift(10), off(62), on(64), shift(5), off(64), on(65), shift(5), off(65), EOS,
    ]  # fmt: skip


def test_rounding_does_not_add_up(write: Callable[..., Path]) -> None:
    """Guards against steps rounded note by note: 100 notes of 1/3 step too much would end 33 steps late."""
    beat = 60 / 100  # seconds
    each = 0.35 * 0.05 / beat + 0.05 * 3 / beat  # 3.35 steps in quarter notes
    path = write("a.mid", [(i * each, each * 0.9, 60 + i % 2) for i in range(100)])
    (start, _, _), _ = events_to_notes(midi_to_events(read_midi(path), CONFIG))
    assert np.abs(start - np.arange(100) * 3.35).max() <= 0.51


def test_tracks_are_merged_and_drums_left_out_or_kept(write: Callable[..., Path]) -> None:
    tracks = [midi_track([(0, 1, 60)]), midi_track([(0, 1, 64)], channel=1), midi_track([(0, 1, 36)], channel=9)]
    path = write("a.mid", tracks, tempos=((0, 120),))
    assert midi_to_events(read_midi(path), CONFIG).tolist() == [BOS, on(60), on(64), shift(10), off(60), off(64), EOS]
    kept = midi_to_events(read_midi(path), EventConfig(drums="keep"))
    assert kept[:4].tolist() == [BOS, on(36), on(60), on(64)]


def test_only_drums_is_refused_with_what_to_do(write: Callable[..., Path]) -> None:
    path = write("a.mid", [midi_track([(0, 1, 36)], channel=9)])
    with pytest.raises(MidiError, match="--drums keep"):
        midi_to_events(read_midi(path), CONFIG)


def test_a_file_that_asks_for_gigabytes_is_refused_at_once() -> None:
    """Guards against two notes a hundred days apart: a few bytes, millions of TIME_SHIFTs."""
    data = midi_bytes(midi_track([(0, 1, 60), (2**27 / 480, 1, 60)]), tempos=((0, 4),))
    with pytest.raises(MidiError, match=f"more than {MAX_TOKENS}"):
        midi_to_events(parse_midi(data), EventConfig(time_step_ms=1))


def test_a_file_can_be_read_as_words(write: Callable[..., Path], here: Here) -> None:
    path = write("a.mid", [(0, 1, 60)], tempos=((0, 120),))
    result = here("events", str(path))
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[0] == "BOS NOTE_ON_60 TIME_SHIFT_10 NOTE_OFF_60 EOS" and "round trip: identical" in result.out
    assert_one_line(here("events", str(path.with_name("none.mid"))), "events", "none.mid")
