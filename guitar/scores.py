"""Written scores (Guitar Pro) as they are played: repeats and endings unfolded, ties joined, in the ticks of a MIDI file. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from midi_utils import MAX_BARS, MidiError, MidiFile, MidiTrack

TICKS = 960  # per quarter note
MAX_NOTES = 200_000  # of one track, unfolded


@dataclass
class WrittenBar:
    """One bar of a score."""

    numerator: int = 4
    denominator: int = 4
    opens: bool = False  # a repeat begins here
    plays: int = 0  # a repeat ends here, and is played so many times in all; 0: none ends
    endings: frozenset[int] = frozenset()  # played only the first, second, ... time (1, 2, ...); empty: always
    marker: str = ""
    tempos: list[tuple[int, float]] = field(default_factory=list)  # (tick in the bar, quarter notes per minute)

    @property
    def length(self) -> int:
        """Ticks."""
        return TICKS * 4 * self.numerator // self.denominator


@dataclass(frozen=True)
class WrittenNote:
    """One note of a bar."""

    at: int  # ticks from the bar line
    length: int  # ticks
    string: int  # any number that tells the strings apart: a tie goes on with the note before on its string
    pitch: int  # MIDI, as it sounds
    velocity: int = 96
    tied: bool = False


@dataclass
class WrittenTrack:
    """One part of a score."""

    name: str
    program: int
    is_drum: bool
    tuning: tuple[int, ...]  # MIDI pitches of the open strings, lowest first, without the capo
    capo: int
    bars: list[list[WrittenNote]]


def unfold(bars: Sequence[WrittenBar]) -> list[int]:
    """The bars in the order in which they are played, counted from 0. Directions such as D.C. al Fine are not followed.

    A repeat without a beginning goes back to the end of the one before. An ending holds up to the next one, or to the repeat's end.

    Raises:
        MidiError: more than 2000.
    """
    order: list[int] = []
    at = 0
    while at < len(bars):
        close = next((i for i in range(at, len(bars)) if bars[i].plays), None)
        if close is None:
            order += range(at, len(bars))
            break
        first = max((i for i in range(at, close + 1) if bars[i].opens), default=at)
        last = _end_of_repeat(bars, close)
        order += range(at, first)
        turns = max(max(bar.plays, *bar.endings, 0) for bar in bars[first : last + 1])
        for turn in range(1, turns + 1):
            endings: frozenset[int] = frozenset()
            for i in range(first, last + 1):
                endings = bars[i].endings or endings
                if not endings or turn in endings:
                    order.append(i)
                    if bars[i].plays and turn < turns:
                        break
            if len(order) > MAX_BARS:
                break
        at = last + 1
    if len(order) > MAX_BARS:
        raise MidiError("too long", f"more than {MAX_BARS} bars with its repeats")
    return order


def _end_of_repeat(bars: Sequence[WrittenBar], close: int) -> int:
    """The last bar of a repeat: the endings that follow its first close belong to it, each up to its own close if it has one."""
    last = close
    while last + 1 < len(bars) and bars[last + 1].endings and not bars[last + 1].opens:
        last += 1
        until = next((i for i in range(last, len(bars)) if bars[i].plays or bars[i].opens), None)
        if until is not None and not bars[until].opens:
            last = until
    return last


def score_to_midi(path: str, bars: Sequence[WrittenBar], tracks: Sequence[WrittenTrack], bpm: float) -> MidiFile:
    """A score as it is played.

    Args:
        bpm: tempo at its beginning.

    Raises:
        MidiError: no notes, a meter that is none, too long.
    """
    for bar in bars:
        if bar.numerator < 1 or bar.denominator not in (1, 2, 4, 8, 16, 32):
            raise MidiError("unreadable", f"a time signature of {bar.numerator}/{bar.denominator}")
    order = unfold(bars)
    starts = np.concatenate([[0], np.cumsum([bars[i].length for i in order])]).astype(np.int64).tolist()
    tempos = [(0, bpm)] if 10 <= bpm <= 1000 else [(0, 120.0)]
    signatures: list[tuple[int, int, int]] = []
    markers = []
    for start, i in zip(starts, order, strict=False):
        bar = bars[i]
        if not signatures or signatures[-1][1:] != (bar.numerator, bar.denominator):
            signatures.append((start, bar.numerator, bar.denominator))
        markers += [(start, bar.marker)] * bool(bar.marker)
        tempos += [(start + at, tempo) for at, tempo in sorted(bar.tempos) if 10 <= tempo <= 1000]
    if not signatures:
        raise MidiError("no notes", "no bars")
    played = [part for track in tracks if (part := _play(track, order, starts)) is not None]
    if not played:
        raise MidiError("no notes", "no track holds a note")
    by_tick = dict(tempos)  # the last of each tick
    return MidiFile(
        path=path,
        ticks_per_beat=TICKS,
        tempos=sorted(by_tick.items()),
        time_signatures=signatures,
        markers=markers,
        tracks=played,
        data=b"",
        written_bars=tuple(i + 1 for i in order),
    )


def _play(track: WrittenTrack, order: Sequence[int], starts: Sequence[int]) -> MidiTrack | None:
    """A part with its repeats and ties; None if it has no notes."""
    notes: list[list[int]] = []  # start, end, pitch, velocity
    last: dict[int, int] = {}  # of each string, its last note
    for start, i in zip(starts, order, strict=False):
        for note in track.bars[i] if i < len(track.bars) else ():
            at, end = start + note.at, start + note.at + max(1, note.length)
            before = last.get(note.string)
            if note.tied and before is not None and notes[before][1] <= at:
                notes[before][1] = end
                continue
            last[note.string] = len(notes)
            notes.append([at, end, note.pitch, note.velocity])
            if len(notes) > MAX_NOTES:
                raise MidiError("too long", f"more than {MAX_NOTES} notes in one part")
    table = np.array([note for note in notes if 0 <= note[2] <= 127], dtype=np.int64).reshape(-1, 4)
    if not len(table):
        return None
    table = table[np.lexsort((table[:, 2], table[:, 0]))]
    program = track.program if 0 <= track.program <= 127 else 0
    return MidiTrack(track.name.strip(), program, track.is_drum, *table.T, tuning=track.tuning, capo=track.capo)
