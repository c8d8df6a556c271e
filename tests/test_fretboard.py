"""Tunings, and the cheapest fingering of a line."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import GuitarConfig, UserError
from guitar import fretboard
from guitar.fretboard import TUNINGS, Fingering, Fretboard, finger, line_cost, parse_tuning, tuning_name

STANDARD = Fretboard(parse_tuning("standard"))
SMALL = Fretboard((40, 45, 50), frets=7)  # few enough ways for brute force


def line(*pitch: int, rests: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Notes of two steps one after the other; rests: numbers of the notes that eight steps of silence follow."""
    start = np.cumsum([0] + [10 if i in rests else 2 for i in range(len(pitch) - 1)])
    return start, start + 2, np.array(pitch)


# ---------------------------------------------------------------- tunings


@pytest.mark.parametrize(
    ("text", "pitches"),
    [
        ("standard", (40, 45, 50, 55, 59, 64)),
        ("EADGBE", (40, 45, 50, 55, 59, 64)),
        ("eadgbe", (40, 45, 50, 55, 59, 64)),
        ("EADGBe", (40, 45, 50, 55, 59, 64)),
        ("DADGBE", (38, 45, 50, 55, 59, 64)),
        ("Drop D", (38, 45, 50, 55, 59, 64)),
        ("drop_d", (38, 45, 50, 55, 59, 64)),
        ("Eb Ab Db Gb Bb Eb", (39, 44, 49, 54, 58, 63)),
        ("eb ab db gb bb eb", (39, 44, 49, 54, 58, 63)),
        ("EbAbDbGbBbEb", (39, 44, 49, 54, 58, 63)),
        ("D#G#C#F#A#D#", (39, 44, 49, 54, 58, 63)),
        ("CGCFAD", (36, 43, 48, 53, 57, 62)),
        ("D2 A2 D3 G3 B3 E4", (38, 45, 50, 55, 59, 64)),
        ("D2A2D3G3B3E4", (38, 45, 50, 55, 59, 64)),
        ("BEADGBE", (35, 40, 45, 50, 55, 59, 64)),
        ("F#BEADGBE", (30, 35, 40, 45, 50, 55, 59, 64)),
        ("EADG", (28, 33, 38, 43)),
        ("EADGB", (28, 33, 38, 43, 47)),
        ("BEADG", (23, 28, 33, 38, 43)),
        ("G3 C4 E4", (55, 60, 64)),
    ],
)
def test_tunings_are_read(text: str, pitches: tuple[int, ...]) -> None:
    assert parse_tuning(text) == pitches


@pytest.mark.parametrize("text", ["", " ", "H", "EADGBX", "E A D", "6", "E2 A2 D99 G3", "x" * 500, "E2,A,", "standard2"])
def test_what_is_no_tuning_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--tuning") as error:
        parse_tuning(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_every_named_tuning_is_a_guitar_and_says_its_name() -> None:
    for name in TUNINGS:
        board = Fretboard(parse_tuning(name))
        assert tuning_name(board.strings).startswith(f"{name} (")
        assert parse_tuning(board.notes) == board.strings
    assert tuning_name((38, 45, 50, 55, 57, 64)) == "DADGAE"
    assert Fretboard(parse_tuning("drop-d"), capo=2).name == "drop-d (DADGBE), capo 2"


def test_places_count_from_the_capo_and_stop_at_the_last_fret() -> None:
    assert STANDARD.places(40) == [(0, 0)] and STANDARD.places(39) == [] and STANDARD.places(64 + 23) == []
    assert STANDARD.places(59) == [(0, 19), (1, 14), (2, 9), (3, 4), (4, 0)]
    capo = Fretboard(STANDARD.strings, frets=22, capo=3)
    assert capo.places(42) == [] and capo.places(43) == [(0, 0)] and capo.places(64 + 22) == [(5, 19)]
    assert (capo.lowest, capo.highest) == (43, 86)


def test_a_guitar_is_chosen_by_reach() -> None:
    def chosen(low: int, high: int, **guitar: object) -> str:
        return fretboard.fretboard(GuitarConfig(**guitar), low, high).name  # type: ignore[arg-type]

    assert chosen(40, 70) == "standard (EADGBE)"
    assert chosen(38, 70) == "drop-d (DADGBE)"
    assert chosen(37, 70) == "drop-c (CGCFAD)"
    assert chosen(30, 60) == "8-string (F#BEADGBE)" and chosen(28, 60) == "5-string-bass (BEADG)"
    assert chosen(40, 100) == "standard (EADGBE)"  # nothing reaches that high: the first that goes low enough
    assert chosen(5, 60) == "standard (EADGBE)"  # nor that low
    assert chosen(40, 70, capo=2) == "standard (EADGBE), capo 2"
    assert chosen(38, 70, tuning="eb") == "eb (D#G#C#F#A#D#)"


def test_a_tuning_with_a_gap_or_outside_midi_is_refused() -> None:
    with pytest.raises(UserError, match="on none of the strings"):
        Fretboard((40, 80), frets=22)
    with pytest.raises(UserError, match=r"with 1 frets.*give more --frets"):
        Fretboard((40, 45), frets=1)
    with pytest.raises(UserError, match="leaves MIDI"):
        Fretboard((40, 120), frets=22)


# ---------------------------------------------------------------- fingering


def cheapest_by_trying_all(board: Fretboard, start: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> float:
    ways = itertools.product(*([tuple(state) for state in fretboard._states(board, int(value)).tolist()] for value in pitch))
    return min(line_cost(board, start, end, pitch, way) for way in ways)


@settings(max_examples=40, deadline=None)
@given(pitch=st.lists(st.integers(40, 57), min_size=1, max_size=3), rest=st.sampled_from([(), (0,), (1,)]))
def test_no_other_fingering_is_cheaper(pitch: list[int], rest: tuple[int, ...]) -> None:
    notes = line(*pitch, rests=rest)
    found = finger(SMALL, *notes)
    assert found.cost == pytest.approx(cheapest_by_trying_all(SMALL, *notes))
    ways = list(zip(found.string.tolist(), found.fret.tolist(), found.hand.tolist(), strict=True))
    assert found.cost == pytest.approx(line_cost(SMALL, *notes, ways))


def test_no_other_fingering_of_a_longer_line_is_cheaper() -> None:
    """Four and five notes, where an early choice pays late."""
    for pitch in ((40, 52, 47, 55), (45, 57, 45, 57), (52, 50, 52, 43, 57)):
        notes = line(*pitch)
        assert finger(SMALL, *notes).cost == pytest.approx(cheapest_by_trying_all(SMALL, *notes))


def random_line(seed: int, low: int = 38, high: int = 86) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.permutation(32)[: rng.integers(1, 12)])
    pitch = np.clip(rng.integers(low, high) + np.cumsum(rng.integers(-7, 8, size=len(start))), low, high)
    return start, np.append(start[1:], 32), pitch


def test_every_note_is_where_it_sounds_and_under_the_hand_and_no_dearer_than_greedy() -> None:
    board, better = Fretboard(parse_tuning("drop-d")), 0
    for seed in range(100):
        start, end, pitch = random_line(seed)
        found = finger(board, start, end, pitch)
        assert found.playable.all()
        assert np.array_equal(np.array(board.strings)[found.string] + found.fret, pitch)
        assert (found.fret >= 0).all() and (found.fret <= board.frets).all()
        under = (found.fret == 0) | ((found.fret >= found.hand) & (found.fret <= found.hand + fretboard.SPAN))
        assert under.all() and (found.hand >= 1).all()
        other = fretboard.greedy_fingering(board, start, end, pitch)
        ways = list(zip(other.string.tolist(), other.fret.tolist(), other.hand.tolist(), strict=True))
        assert other.cost == pytest.approx(line_cost(board, start, end, pitch, ways))
        assert found.cost <= other.cost + 1e-9
        better += found.cost < other.cost - 1e-9
    assert better > 10  # planning ahead is worth something


def test_what_the_guitar_lacks_is_marked_and_the_rest_fingered_as_if_it_were_not_there() -> None:
    notes = line(45, 30, 47, 120)
    found = finger(STANDARD, *notes)
    assert found.playable.tolist() == [True, False, True, False]
    assert found.string[~found.playable].tolist() == found.fret[~found.playable].tolist() == [-1, -1]
    without = finger(STANDARD, *(column[[0, 2]] for column in notes))
    assert found.cost == without.cost and found.fret[found.playable].tolist() == without.fret.tolist()
    none = finger(STANDARD, *line(20, 21))
    assert not none.playable.any() and none.cost == none.moves == 0


def test_no_notes() -> None:
    assert finger(STANDARD, *line()[:2], np.array([], dtype=np.int64)).cost == 0


def test_what_a_guitarist_would_do() -> None:
    """An open-string riff stays in first position; a scale up the neck stays under one hand."""
    low = finger(STANDARD, *line(40, 43, 45, 46, 45, 43, 40))
    assert low.string.tolist() == [0, 0, 1, 1, 1, 0, 0] and low.fret.tolist() == [0, 3, 0, 1, 0, 3, 0] and low.moves == 0
    scale = finger(STANDARD, *line(69, 71, 72, 74, 76, 74, 72, 71, 69))
    assert scale.moves == 0 and len(set(scale.hand.tolist())) == 1
    power = finger(STANDARD, *line(47, 54, 47, 54))
    assert power.moves == 0


def test_open_strings_are_taken_where_they_ring() -> None:
    """An open E minor arpeggio: 0 2 2 0 0 0, and back."""
    arpeggio = finger(STANDARD, *line(40, 47, 52, 55, 59, 64, 59, 55))
    assert arpeggio.string.tolist() == [0, 1, 2, 3, 4, 5, 4, 3] and arpeggio.fret.tolist() == [0, 2, 2, 0, 0, 0, 0, 0]


def test_time_to_move_makes_a_move_cheaper() -> None:
    jump = line(41, 80)
    assert finger(STANDARD, *line(41, 80, rests=(0,))).cost < finger(STANDARD, *jump).cost


def test_fingering_facts() -> None:
    fingering = Fingering(np.array([0, -1, 1]), np.array([3, -1, 9]), np.array([3, -1, 8]), 0.0)
    assert fingering.moves == 5 and fingering.playable.tolist() == [True, False, True]
