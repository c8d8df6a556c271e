"""Drum MIDI <-> hits, velocities and microtiming on the grid <-> drum tokens and groove vectors.

Nine classes stand for a kit. A drum token says which of them are struck on a step, as the bits of a number; a groove vector says how
hard and how early or late as well (Gillick et al. 2019, arXiv:1905.06118). Run `python -m family.drums FILE.mid` to see a file's bars.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import mido
import numpy as np

from config import DRUM_CLASSES as CLASSES
from config import DRUM_TOKENS, TokenizerConfig, UserError, run_script
from midi_utils import TICKS_PER_BEAT, Bar, MidiError, MidiFile, MidiTrack, file_riffs, read_midi, timed_track

CHANNEL = 9  # of drums in General MIDI, counted from 0

OURS = "drums (General MIDI)"  # name of the tracks that are written, by which they are known again

Kit = Literal["general", "roland"]
# Pitches of each class: the first is the one that is written. General MIDI with what is usually folded into it; and the pads of the
# Roland kit that the Groove recordings were made on.
KITS: dict[Kit, tuple[tuple[int, ...], ...]] = {
    "general": (
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
        (46, 67, 72, 74, 79, 81, 26),
        (45, 29, 41, 43, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 62, 76, 83),
        (49, 52, 55, 57, 58),
        (51, 53, 59, 82),
    ),
    "roland": ((36,), (38, 37, 40), (42, 22, 44), (46, 26), (43, 58), (47, 45), (50, 48), (49, 52, 55, 57), (51, 53, 59)),
}
_CLASS_OF = {kit: np.full(128, -1) for kit in KITS}
for _kit, _classes in KITS.items():
    for _number, _pitches in enumerate(_classes):
        _CLASS_OF[_kit][list(_pitches)] = _number


@dataclass(frozen=True)
class DrumPattern:
    """Some bars of drums on the grid, with what the grid does not say."""

    hits: np.ndarray  # bool [T, 9]
    velocity: np.ndarray  # float32 [T, 9], 0..1 (MIDI 0..127), 0 where nothing is struck
    offset: np.ndarray  # float32 [T, 9], -1..1: half a step early to half a step late, 0 where nothing is struck
    bpm: float = 120.0
    name: str = ""
    first_bar: int = 1  # of the file it was read from, counted from 1
    unknown: int = 0  # notes of the file that are no drum of the kit, and were left out


def drum_track(midi: MidiFile) -> MidiTrack:
    """All drum notes of a file as one track.

    Raises:
        MidiError: there are none.
    """
    tracks = [track for track in midi.tracks if track.is_drum]
    if not tracks:
        raise MidiError("no drums", "no track on the drum channel (10)")
    if len(tracks) == 1:
        return tracks[0]
    columns = [np.concatenate([getattr(track, name) for track in tracks]) for name in ("start", "end", "pitch", "velocity")]
    order = np.lexsort((columns[2], columns[0]))
    return dataclasses.replace(tracks[0], **dict(zip(("start", "end", "pitch", "velocity"), (c[order] for c in columns), strict=True)))


def read_pattern(
    midi: MidiFile, track: MidiTrack, window: tuple[int, list[Bar]], tokenizer: TokenizerConfig, kit: Kit = "general", name: str = ""
) -> DrumPattern:
    """Read one window of bars. A hit belongs to its nearest step; of two on one class and step the louder one stays.

    Args:
        window: one of midi_utils.file_riffs.
        kit: which drum each pitch is.

    Raises:
        MidiError: no drum that the kit has.
    """
    number, bars = window
    step_ticks = midi.ticks_per_beat / tokenizer.steps_per_beat
    exact = (track.start - bars[0].start) / step_ticks
    step = np.floor(exact + 0.5).astype(np.int64)
    inside = (step >= 0) & (step < tokenizer.steps)
    classes = _CLASS_OF[kit][track.pitch]
    unknown = int((inside & (classes < 0)).sum())
    chosen = np.flatnonzero(inside & (classes >= 0))
    if not len(chosen):
        raise MidiError("no notes", f"bars {number}-{number + tokenizer.bars - 1}: no drum of the {kit} kit")
    chosen = chosen[np.argsort(track.velocity[chosen], kind="stable")]  # the louder one is written last, and stays
    at = step[chosen], classes[chosen]
    shape = (tokenizer.steps, len(CLASSES))
    hits, velocity, offset = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    hits[at] = True
    velocity[at] = track.velocity[chosen] / 127
    offset[at] = 2 * (exact[chosen] - step[chosen])
    return DrumPattern(hits, velocity, offset, midi.bpm_at(bars[0].start), name, number, unknown)


def read_patterns(midi: MidiFile, tokenizer: TokenizerConfig, kit: Kit = "general", hop: int = 0) -> list[DrumPattern]:
    """The drum patterns of a file: windows of consecutive 4/4 bars with at least one hit.

    Args:
        hop: bars from one window to the next; 0 is the length of a pattern.

    Raises:
        MidiError: no drums, not 4/4, or too short.
    """
    track, found = drum_track(midi), []
    for window in file_riffs(midi, track, tokenizer, hop)[0]:
        try:
            found.append(read_pattern(midi, track, window, tokenizer, kit))
        except MidiError:
            continue  # bars of silence
    if not found:
        raise MidiError("no notes", f"no drum of the {kit} kit")
    return found


# ---------------------------------------------------------------- tokens and vectors


def to_tokens(hits: np.ndarray) -> np.ndarray:
    """Which classes are struck, as the bits of a number, kick lowest. hits: bool [..., 9] -> int64 [...], 0..511"""
    return (hits.astype(np.int64) << np.arange(len(CLASSES))).sum(axis=-1)


def from_tokens(tokens: np.ndarray) -> np.ndarray:
    """The inverse of to_tokens. tokens: int [...], 0..511 -> bool [..., 9]

    Raises:
        ValueError: another number.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= DRUM_TOKENS):
        raise ValueError(f"drum tokens are 0..{DRUM_TOKENS - 1}")
    return (tokens[..., None] >> np.arange(len(CLASSES))) % 2 == 1


def to_groove(pattern: DrumPattern) -> np.ndarray:
    """Hits, velocities and offsets side by side. float32 [..., T, 27]"""
    return np.concatenate([pattern.hits.astype(np.float32), pattern.velocity, pattern.offset], axis=-1)


def from_groove(groove: np.ndarray, **more: float | str) -> DrumPattern:
    """The inverse of to_groove, for anything that a model writes: a hit above 0.5, velocities and offsets held in their ranges.

    Args:
        groove: float [..., T, 27]: a pattern, or many at once that are not to be written.
        more: bpm, name.
    """
    hits, velocity, offset = np.split(np.asarray(groove, dtype=np.float32), 3, axis=-1)
    struck = hits > 0.5
    velocity = np.where(struck, np.clip(velocity, 0, 1), 0).astype(np.float32)
    return DrumPattern(struck, velocity, np.where(struck, np.clip(offset, -1, 1), 0).astype(np.float32), **more)  # type: ignore[arg-type]


def quantized(pattern: DrumPattern, velocity: float = 0.75) -> DrumPattern:
    """The same hits on the grid, all equally loud: a score of what was played. velocity: 0..1"""
    loud = np.where(pattern.hits, velocity, 0).astype(np.float32)
    return dataclasses.replace(pattern, velocity=loud, offset=np.zeros_like(pattern.offset))


def tapped(pattern: DrumPattern) -> DrumPattern:
    """The rhythm alone, as hands tap it on one drum (Gillick et al. 2019: tap2drum): on each step the loudest hit, on the closed hat."""
    loudest = np.where(pattern.hits, pattern.velocity, -1).argmax(axis=-1)[..., None]
    hits, velocity, offset = (np.zeros_like(values) for values in (pattern.hits, pattern.velocity, pattern.offset))
    hat = CLASSES.index("closed hat")
    hits[..., hat] = pattern.hits.any(axis=-1)
    velocity[..., hat] = np.take_along_axis(pattern.velocity, loudest, axis=-1)[..., 0]
    offset[..., hat] = np.take_along_axis(pattern.offset, loudest, axis=-1)[..., 0]
    return dataclasses.replace(pattern, hits=hits, velocity=velocity, offset=offset)


# ---------------------------------------------------------------- writing


def patterns_to_midi(patterns: Sequence[DrumPattern], tokenizer: TokenizerConfig, markers: Sequence[str] = ()) -> bytes:
    """Write patterns one after the other as General MIDI drums, in exactly that many bars: each note a step long, or until the same drum is
    struck again.

    A hit that is early on the very first step sounds on it: there is no time before the file's beginning.

    Args:
        patterns: at least one; each [tokenizer.steps, 9].
        markers: one at the beginning of each pattern, or none.

    Raises:
        ValueError: none, or one of another length.
    """
    if not patterns or any(len(pattern.hits) != tokenizer.steps for pattern in patterns):
        raise ValueError(f"give patterns of {tokenizer.steps} steps")
    step = TICKS_PER_BEAT / tokenizer.steps_per_beat
    total = round(len(patterns) * tokenizer.steps * step)
    head: list = [(0, 0, mido.MetaMessage("time_signature", numerator=4, denominator=4))]
    notes: list = []
    struck: list[tuple[int, int, int]] = []  # class, tick, velocity
    last_bpm = None
    for i, pattern in enumerate(patterns):
        begin = i * tokenizer.steps
        if markers:
            head.append((round(begin * step), 2, mido.MetaMessage("marker", text=markers[i])))
        if pattern.bpm != last_bpm:
            head.append((round(begin * step), 1, mido.MetaMessage("set_tempo", tempo=round(60e6 / pattern.bpm))))
            last_bpm = pattern.bpm
        for at, number in zip(*np.nonzero(pattern.hits), strict=True):
            on = max(0, round((begin + int(at) + float(pattern.offset[at, number]) / 2) * step))
            on = min(on, math.ceil((begin + int(at) + 0.5) * step) - 1)  # half a step late would be half a step early on the next
            struck.append((int(number), min(on, total - 1), max(1, min(127, round(127 * float(pattern.velocity[at, number]))))))
    struck.sort()
    for (number, on, loud), (other, again, _) in zip(struck, [*struck, (-1, 0, 0)][1:], strict=True):
        off = min(total, on + round(step), again if other == number and again > on else total)
        pitch = KITS["general"][number][0]
        notes.append((on, 1, mido.Message("note_on", note=pitch, velocity=loud, channel=CHANNEL)))
        notes.append((off, 0, mido.Message("note_off", note=pitch, velocity=0, channel=CHANNEL)))
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8")
    setup = [mido.MetaMessage("track_name", name=patterns[0].name or OURS)]
    file.tracks = [timed_track([], head, total), timed_track(setup, notes, total)]
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def text_grid(hits: np.ndarray, tokenizer: TokenizerConfig) -> str:
    """One line for each class that is struck, the kick lowest. hits: bool [T, 9]"""
    lines = []
    for number in reversed(range(len(CLASSES))):
        if hits[:, number].any():
            signs = ["x" if hit else "." for hit in hits[:, number]]
            size = tokenizer.steps_per_bar
            lines.append(f"{CLASSES[number]:>10s} " + "|".join("".join(signs[i : i + size]) for i in range(0, len(signs), size)))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    if not 1 <= len(argv) <= 2 or (len(argv) == 2 and argv[1] not in KITS):
        raise UserError(f"give one MIDI file, and a kit if you like ({', '.join(KITS)}): python -m family.drums FILE.mid roland")
    tokenizer = TokenizerConfig()
    try:
        patterns = read_patterns(read_midi(argv[0]), tokenizer, argv[1] if len(argv) == 2 else "general")  # type: ignore[arg-type]
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    for pattern in patterns:
        print(f"bar {pattern.first_bar}, {pattern.bpm:.0f} bpm\n{text_grid(pattern.hits, tokenizer)}")
    return 0


if __name__ == "__main__":
    run_script(main)
