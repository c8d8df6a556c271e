"""Tunings, and where the hand goes: the cheapest fingering of a line of single notes. No torch.

Run `python -m guitar.fretboard [TUNING]` to see the tunings known by name, or where each note of one can be played.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from config import MAX_PITCH, GuitarConfig, UserError, run_script
from midi_utils import parse_pitch, pitch_class_name, pitch_name

# Known by name. Strings from the lowest to the highest; a digit is an octave (E2 is MIDI 40).
TUNINGS: dict[str, str] = {
    "standard": "E2 A2 D3 G3 B3 E4",
    "drop-d": "D2 A2 D3 G3 B3 E4",
    "eb": "Eb2 Ab2 Db3 Gb3 Bb3 Eb4",
    "drop-db": "Db2 Ab2 Db3 Gb3 Bb3 Eb4",
    "d": "D2 G2 C3 F3 A3 D4",
    "drop-c": "C2 G2 C3 F3 A3 D4",
    "drop-b": "B1 F#2 B2 E3 G#3 C#4",
    "dadgad": "D2 A2 D3 G3 A3 D4",
    "open-g": "D2 G2 D3 G3 B3 D4",
    "open-d": "D2 A2 D3 F#3 A3 D4",
    "open-e": "E2 B2 E3 G#3 B3 E4",
    "7-string": "B1 E2 A2 D3 G3 B3 E4",
    "drop-a": "A1 E2 A2 D3 G3 B3 E4",
    "8-string": "F#1 B1 E2 A2 D3 G3 B3 E4",
    "bass": "E1 A1 D2 G2",
    "5-string-bass": "B0 E1 A1 D2 G2",
}
# What a riff is put on when nothing is asked for: the first that reaches it.
BY_REACH = ("standard", "drop-d", "drop-c", "7-string", "drop-a", "8-string", "5-string-bass")
# Where letters without octaves are looked for: the usual string of that place, by the number of strings.
_USUAL = {len(TUNINGS[name].split()): TUNINGS[name].split() for name in ("bass", "5-string-bass", "standard", "7-string", "8-string")}

# What a fingering costs. A hand covers four frets, one finger each; the fifth is a stretch of the little finger. The figures say what
# a player would rather do: stay where the hand is, then skip a string or stretch, then move; and move little rather than much.
SPAN = 4  # frets under the hand
MOVE = 1.0  # for leaving a position
MOVE_FRET = 0.5  # for each fret of it
STRETCH = 1.0  # for a note one fret beyond the span
PRESS = 0.15  # for a fretted note; an open string costs no finger
CHANGE_STRING = 0.1  # for the next string
SKIP_STRING = 0.4  # for each string jumped over
HIGH = 0.03  # for each fret of the hand's place: low positions are home
OPEN_HIGH = 0.1  # for an open string, for each fret of the hand above the fifth: it rings unlike its neighbours
FREE_REST = 4  # steps of silence or of an open string in which a move costs half


# ---------------------------------------------------------------- tunings


@dataclass(frozen=True)
class Fretboard:
    """A guitar as it is tuned."""

    strings: tuple[int, ...]  # MIDI pitches of the open strings, lowest first, without the capo
    frets: int = 22  # number of frets
    capo: int = 0  # fret of the capo; tab counts from it

    def __post_init__(self) -> None:
        if not self.strings or not 0 <= min(self.strings) <= max(self.strings) + self.frets <= MAX_PITCH:
            raise UserError(f"--tuning {self.notes}: with {self.frets} frets it leaves MIDI's pitches 0 to {MAX_PITCH}")
        missing = [pitch for pitch in range(self.lowest, self.highest) if not self.places(pitch)]
        if missing:
            where = f"with {self.frets} frets" + f" and the capo on {self.capo}" * (self.capo > 0)
            raise UserError(
                f"{self.notes} {where}: {pitch_name(missing[0])} is on none of the strings; give more --frets or another --tuning"
            )

    @property
    def lowest(self) -> int:
        """MIDI pitch."""
        return min(self.strings) + self.capo

    @property
    def highest(self) -> int:
        """MIDI pitch."""
        return max(self.strings) + self.frets

    @property
    def notes(self) -> str:
        """The open strings' names, lowest first: E2 A2 D3 G3 B3 E4."""
        return " ".join(map(pitch_name, self.strings))

    @property
    def name(self) -> str:
        """For people: drop-d (DADGBE), capo 2."""
        return tuning_name(self.strings) + f", capo {self.capo}" * (self.capo > 0)

    def places(self, pitch: int) -> list[tuple[int, int]]:
        """Where a MIDI pitch can be played: (string, fret), strings counted from the lowest, frets from the capo."""
        found = ((number, pitch - string - self.capo) for number, string in enumerate(self.strings))
        return [(number, fret) for number, fret in found if 0 <= fret <= self.frets - self.capo]


def parse_tuning(text: str) -> tuple[int, ...]:
    """Read a tuning: a name (`drop-d`, `Drop D`, `7-string`), or notes, lowest first (`DADGBE`, `Eb Ab Db Gb Bb Eb`, `D2 A2 D3 G3 B3 E4`).

    Letters without octaves are taken where the usual string of that place is nearest.

    Returns:
        MIDI pitches of the open strings, lowest first.

    Raises:
        UserError: it is neither.
    """
    name = re.sub(r"[\s_-]+", "-", text.strip().lower())
    if name in TUNINGS:
        return tuple(map(parse_pitch, TUNINGS[name].split()))
    words = re.split(r"[\s,-]+", text.strip())
    if len(words) == 1 and text.islower():
        words = [text.upper()]  # eadgbe: no flat is meant
    elif len(words) > 1:
        words = [word.capitalize() for word in words]
    parts = re.findall(r"([A-Ga-g][#b]?)(\d+)?", "".join(words))
    usual = _USUAL.get(len(parts))
    read = "".join(letter + octave for letter, octave in parts)
    if not parts or read != "".join(words) or (usual is None and not all(octave for _, octave in parts)):
        raise UserError(
            f"--tuning {text[:60]}: give a name ({', '.join(TUNINGS)}) or the open strings, lowest first: DADGBE, or D2 A2 D3 G3 B3 E4"
        )
    pitches = []
    for place, (letter, octave) in enumerate(parts):
        try:
            if octave:
                pitches.append(parse_pitch(letter + octave))
            else:
                assert usual is not None
                near = parse_pitch(usual[place])
                pitches.append(near + (parse_pitch(letter + "3") - near + 6) % 12 - 6)
        except ValueError as error:
            raise UserError(f"--tuning {text[:60]}: {error}") from None
    return tuple(pitches)


def tuning_name(strings: Sequence[int]) -> str:
    """The name of a tuning and its letters, or the letters alone: `drop-d (DADGBE)`."""
    letters = "".join(pitch_class_name(pitch) for pitch in strings)
    return next((f"{name} ({letters})" for name in TUNINGS if parse_tuning(name) == tuple(strings)), letters)


def fretboard(guitar: GuitarConfig, low: int, high: int) -> Fretboard:
    """The guitar asked for; where no tuning is, the first usual one with all MIDI pitches from low to high, else the first that goes low
    enough, else standard. A capo has no say in that: nobody retunes because of it.

    Raises:
        UserError: no such tuning, or one that leaves MIDI's pitches.
    """
    if guitar.tuning:
        return Fretboard(parse_tuning(guitar.tuning), guitar.frets, guitar.capo)
    tunings = [parse_tuning(name) for name in BY_REACH]
    enough = [strings for strings in tunings if min(strings) <= low]
    chosen = next((strings for strings in enough if high <= max(strings) + guitar.frets), enough[0] if enough else tunings[0])
    return Fretboard(chosen, guitar.frets, guitar.capo)


# ---------------------------------------------------------------- fingering


@dataclass(frozen=True)
class Fingering:
    """Where each note of a line is played. What cannot be played has string and fret -1."""

    string: np.ndarray  # int64 [notes], 0 is the lowest
    fret: np.ndarray  # int64 [notes], from the capo; 0 is open
    hand: np.ndarray  # int64 [notes], fret under the first finger, from 1
    cost: float  # see the constants of this file

    @property
    def playable(self) -> np.ndarray:
        """bool [notes]"""
        return self.string >= 0

    @property
    def moves(self) -> int:
        """Frets that the hand travels."""
        hand = self.hand[self.playable]
        return int(np.abs(np.diff(hand)).sum())


@lru_cache(maxsize=4096)
def _states(board: Fretboard, pitch: int) -> np.ndarray:
    """Every way to play a pitch. int64 [states, 3]: string, fret, hand"""
    found = []
    for string, fret in board.places(pitch):
        last = max(1, board.frets - board.capo - SPAN + 1)  # where the hand's place ends
        hands = range(1, last + 1) if fret == 0 else range(max(1, fret - SPAN), min(fret, last) + 1)
        found += [(string, fret, hand) for hand in hands]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


@lru_cache(maxsize=4096)
def _own_cost(board: Fretboard, pitch: int) -> np.ndarray:
    """What each way costs by itself. float64 [states]"""
    _, fret, hand = _states(board, pitch).T
    stretch = STRETCH * (fret == hand + SPAN)
    open_high = OPEN_HIGH * np.where(fret == 0, np.maximum(hand - 5, 0), 0)
    return stretch + open_high + PRESS * (fret > 0) + HIGH * (hand - 1)


@lru_cache(maxsize=65536)
def _change_cost(board: Fretboard, before: int, pitch: int, free: bool) -> np.ndarray:
    """What going from each way of one pitch to each way of the next costs. float64 [states before, states]

    Args:
        free: there is time to move.
    """
    string_a, fret_a, hand_a = (column[:, None] for column in _states(board, before).T)
    string_b, _, hand_b = _states(board, pitch).T
    away = np.abs(hand_b - hand_a)
    move = (MOVE + MOVE_FRET * away) * (away > 0)
    move = np.where(free | (fret_a == 0), move / 2, move)
    across = np.abs(string_b - string_a)
    return move + CHANGE_STRING * (across > 0) + SKIP_STRING * np.maximum(across - 1, 0)


def line_cost(board: Fretboard, start: np.ndarray, end: np.ndarray, pitch: np.ndarray, states: Sequence[tuple[int, int, int]]) -> float:
    """What a fingering costs. All arguments as in finger; states: (string, fret, hand) of each note."""
    total = 0.0
    for i, state in enumerate(states):
        here = np.flatnonzero((_states(board, int(pitch[i])) == state).all(axis=1))[0]
        total += _own_cost(board, int(pitch[i]))[here]
        if i:
            before = np.flatnonzero((_states(board, int(pitch[i - 1])) == states[i - 1]).all(axis=1))[0]
            free = bool(start[i] - end[i - 1] >= FREE_REST)
            total += _change_cost(board, int(pitch[i - 1]), int(pitch[i]), free)[before, here]
    return float(total)


def finger(board: Fretboard, start: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> Fingering:
    """The cheapest fingering of a line, found by dynamic programming over (string, fret, hand) (Viterbi; Sayegh 1989).

    Args:
        start, end: int [notes], steps; rising.
        pitch: int [notes], MIDI.

    Returns:
        the fingering; of several of one cost, that on the lower strings. Notes outside the board are marked, and the rest is
        fingered as if they were not there.
    """
    count = len(pitch)
    string, fret, hand = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    notes = [i for i in range(count) if len(_states(board, int(pitch[i])))]
    if not notes:
        return Fingering(string, fret, hand, 0.0)
    total = _own_cost(board, int(pitch[notes[0]]))
    back: list[np.ndarray] = []
    for before, i in itertools.pairwise(notes):
        free = bool(start[i] - end[before] >= FREE_REST)
        ways = total[:, None] + _change_cost(board, int(pitch[before]), int(pitch[i]), free)
        back.append(ways.argmin(axis=0))
        total = ways.min(axis=0) + _own_cost(board, int(pitch[i]))
    state = int(total.argmin())
    cost = float(total[state])
    for place in range(len(notes) - 1, -1, -1):
        i = notes[place]
        string[i], fret[i], hand[i] = _states(board, int(pitch[i]))[state]
        if place:
            state = int(back[place - 1][state])
    return Fingering(string, fret, hand, cost)


def greedy_fingering(board: Fretboard, start: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> Fingering:
    """Each note where it is cheapest after the one before: what finger is to be compared with. Arguments as there."""
    count = len(pitch)
    string, fret, hand = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    cost, before, state = 0.0, -1, 0
    for i in range(count):
        value = int(pitch[i])
        if not len(_states(board, value)):
            continue
        ways = _own_cost(board, value)
        if before >= 0:
            free = bool(start[i] - end[before] >= FREE_REST)
            ways = ways + _change_cost(board, int(pitch[before]), value, free)[state]
        state = int(ways.argmin())
        cost, before = cost + float(ways[state]), i
        string[i], fret[i], hand[i] = _states(board, value)[state]
    return Fingering(string, fret, hand, cost)


def main(argv: Sequence[str]) -> int:
    if list(argv) in ([], ["--help"]):
        for name in TUNINGS:
            print(f"{name:14s} {Fretboard(parse_tuning(name)).notes}")
        return 0
    board = Fretboard(parse_tuning(" ".join(argv)))
    print(f"{tuning_name(board.strings)}: {pitch_name(board.lowest)} to {pitch_name(board.highest)}, {board.frets} frets")
    for pitch in range(board.lowest, board.highest + 1):
        places = ", ".join(f"string {len(board.strings) - string} fret {fret}" for string, fret in board.places(pitch))
        print(f"{pitch:4d} {pitch_name(pitch):4s} {places}")
    return 0


if __name__ == "__main__":
    run_script(main)
