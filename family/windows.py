"""Windows of bars <-> steps of any representation: a line, drum tokens, groove vectors, a trio.

What a window becomes is an array of steps: int [T] (a line, see midi_utils; drums, see family.drums), int [T, 3] (melody, bass and
drums) or float [T, 27] (groove). Run `python -m family.windows FILE.mid` to see what a file holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import mido
import numpy as np

from config import TRIO_PARTS, DataConfig, SongConfig, TokenizerConfig, UserError, parse_programs, run_script
from dataset import was_generated
from family.drums import (
    CHANNEL,
    OURS,
    DrumPattern,
    Kit,
    drum_track,
    from_groove,
    from_tokens,
    patterns_to_midi,
    quantized,
    read_pattern,
    tapped,
    text_grid,
    to_groove,
    to_tokens,
)
from midi_utils import Bar, MidiError, MidiFile, MidiTrack, Riff, file_riffs, program_name, read_midi, read_riff, riffs_to_midi, text_roll

DRUM_VELOCITY = 0.8  # of drum tokens, which do not say how hard, 0..1
STEP_TYPES = {"mono": np.uint8, "drums": np.uint16, "groove": np.float32, "trio": np.uint16}  # what steps are kept as


@dataclass(frozen=True)
class Window:
    """Some bars of a file as steps, with what the steps do not say."""

    steps: np.ndarray  # see above
    first_bar: int  # of the file, counted from 1
    bpm: float
    programs: tuple[int, ...] = ()  # of its lines, 0..127
    part: str = ""  # the names of the lines it was read from
    unknown: int = 0  # drum notes that are no drum of the kit, and were left out


# ---------------------------------------------------------------- reading


def lines_of(
    midi: MidiFile, songs: SongConfig, programs: str, flag: str = "--programs", one_line: bool = False
) -> list[tuple[int, MidiTrack]]:  # fmt: skip
    """The parts of a file that are lines of some programs, or those that --track names, each with its number in the file.

    Args:
        programs: such as 32-39; "" for all but drums.
        flag: what chooses the programs.
        one_line: the programs are those that a model was trained on, and cannot be chosen any more.

    Raises:
        MidiError: there is none; what there is is named.
    """
    wanted, asked = parse_programs(programs, flag), songs.track.strip().lower()
    numbered = list(enumerate(midi.tracks, 1))
    if asked:
        found = [(i, track) for i, track in numbered if asked == str(i) or (not asked.isdigit() and asked in track.name.lower())]
        found = [(i, track) for i, track in found if not track.is_drum]
    else:
        found = [(i, track) for i, track in numbered if not track.is_drum and (not wanted or track.program in wanted)]
    if not found:
        there = listed(numbered) or "no part with notes"
        what = f"--track {songs.track}" if asked else f"programs {programs}" if programs else "any program"
        bass = flag == "--bass-programs"
        what += ", which this model was trained on" if one_line and not asked else ""
        choose = f"choose with {'' if bass else '--track, or other '}{flag}"
        if one_line:
            choose = "no line will do for the bass" if bass else "choose one of them with --track"
        choose = choose if any(not track.is_drum for _, track in numbered) else "it has only drums"
        raise MidiError("no usable line", f"none of {what}; there: {there}; {choose}")
    return found


def listed(numbered: Sequence[tuple[int, MidiTrack]], most: int = 32) -> str:
    """Parts with their numbers in the file."""
    names = [f"{number} {part_name(track)}" for number, track in numbered]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def part_name(track: MidiTrack) -> str:
    """A part in a few words."""
    return f"{track.name or 'unnamed'} ({'drums' if track.is_drum else program_name(track.program)})"


def kit_of(path: Path, kit: Kit) -> Kit:
    """Which drum each pitch of a file is: General MIDI if generate.py wrote it, else as is said."""
    try:
        ours = was_generated(path) or any(track.is_drum and track.name == OURS for track in read_midi(path).tracks)
    except MidiError:
        ours = False  # whoever reads it says what is wrong
    return "general" if ours else kit


def read_windows(
    path: str | Path, songs: SongConfig, data: DataConfig, tokenizer: TokenizerConfig, one_line: bool = False
) -> tuple[list[Window], Counter[str]]:
    """All windows of a file, each once; and how many were left out for which reason.

    Args:
        one_line: only one line may fit, and windows that repeat stay, as when a file is to be encoded.

    Raises:
        MidiError: none can be used; or several lines where one is needed.
    """
    midi = read_midi(path)
    reader = {"mono": _lines, "drums": _drums, "groove": _drums, "trio": _trios}[tokenizer.representation]
    found: dict[str | bytes, Window] = {}
    left: Counter[str] = Counter()
    first: MidiError | None = None
    for make, window in reader(midi, songs, data, tokenizer, one_line):
        try:
            made = make(window)
        except MidiError as error:
            first = first or error
            left[error.reason] += 1
            continue
        found.setdefault(str(made.first_bar) if one_line else made.steps.tobytes() + bytes(made.programs), made)
    if not found:
        raise first or MidiError("no notes", "no window with notes")
    return sorted(found.values(), key=lambda window: window.first_bar), left


Reader = Iterator[tuple[Callable[[tuple[int, list[Bar]]], Window], tuple[int, list[Bar]]]]


def least_notes(songs: SongConfig, tokenizer: TokenizerConfig) -> int:
    """Onsets that a window must have."""
    return max(1, math.ceil(songs.min_notes_per_bar * tokenizer.bars))


def _read_line(
    midi: MidiFile, track: MidiTrack, window: tuple[int, list[Bar]], data: DataConfig, tokenizer: TokenizerConfig, least: int
) -> Riff:  # fmt: skip
    return read_riff(
        midi, track, window, tokenizer, track.name, low=data.low, high=data.high,
        grid_tolerance=data.grid_tolerance, max_off_grid=data.max_off_grid, min_notes=least,
    )  # fmt: skip


def _lines(midi: MidiFile, songs: SongConfig, data: DataConfig, tokenizer: TokenizerConfig, one_line: bool) -> Reader:
    tracks = lines_of(midi, songs, songs.programs, one_line=one_line)
    if one_line and len(tracks) > 1:
        raise MidiError("several lines", f"{len(tracks)} fit: {listed(tracks)}; choose one with --track")
    for track, windows in _windows_of([track for _, track in tracks], midi, songs, tokenizer):

        def make(window: tuple[int, list[Bar]], track: MidiTrack = track) -> Window:
            riff = _read_line(midi, track, window, data, tokenizer, least_notes(songs, tokenizer))
            return Window(riff.tokens.astype(np.uint8), riff.first_bar, riff.bpm, (track.program,), track.name)

        for window in windows:
            yield make, window


def _windows_of(
    tracks: Sequence[MidiTrack], midi: MidiFile, songs: SongConfig, tokenizer: TokenizerConfig
) -> Iterator[tuple[MidiTrack, list[tuple[int, list[Bar]]]]]:
    """The windows of each track that has some.

    Raises:
        MidiError: none has, as the first one says.
    """
    refused, found = None, False
    for track in tracks:
        try:
            windows = file_riffs(midi, track, tokenizer, songs.hop)[0]
        except MidiError as error:
            refused = refused or error
            continue
        found = True
        yield track, windows
    if refused and not found:
        raise refused


def _drums(midi: MidiFile, songs: SongConfig, data: DataConfig, tokenizer: TokenizerConfig, one_line: bool) -> Reader:
    track = drum_track(midi)

    def make(window: tuple[int, list[Bar]]) -> Window:
        pattern = read_pattern(midi, track, window, tokenizer, songs.kit)
        struck = int(pattern.hits.any(axis=1).sum())
        if struck < least_notes(songs, tokenizer):
            raise MidiError("no notes", f"bars {window[0]}-{window[0] + tokenizer.bars - 1}: drums on {struck} steps")
        steps = to_groove(pattern) if tokenizer.representation == "groove" else to_tokens(pattern.hits).astype(np.uint16)
        return Window(steps, pattern.first_bar, pattern.bpm, unknown=pattern.unknown)

    for window in file_riffs(midi, track, tokenizer, songs.hop)[0]:
        yield make, window


def _trios(midi: MidiFile, songs: SongConfig, data: DataConfig, tokenizer: TokenizerConfig, one_line: bool) -> Reader:
    drums = drum_track(midi)
    basses = lines_of(midi, dataclasses.replace(songs, track=""), songs.bass_programs, "--bass-programs", one_line)
    bass = max((track for _, track in basses), key=lambda track: len(track.pitch))
    melodies = [(number, track) for number, track in lines_of(midi, songs, songs.programs, one_line=one_line) if track is not bass]
    if not melodies:
        choose = "--track" if one_line else "--track or --programs"
        raise MidiError("no usable line", f"no melody beside the bass, {part_name(bass)}; choose with {choose}")
    if one_line and len(melodies) > 1:
        raise MidiError("several lines", f"{len(melodies)} fit as the melody: {listed(melodies)}; choose one with --track")
    lowest, highest = (dataclasses.replace(tokenizer, representation="mono", policy=policy) for policy in ("lowest", "highest"))
    for melody, windows in _windows_of([track for _, track in melodies], midi, songs, tokenizer):

        def make(window: tuple[int, list[Bar]], melody: MidiTrack = melody) -> Window:
            least = least_notes(songs, tokenizer)
            high = _read_line(midi, melody, window, data, highest, least)
            low = _read_line(midi, bass, window, dataclasses.replace(data, low=1), lowest, least)
            pattern = read_pattern(midi, drums, window, tokenizer, songs.kit)
            steps = np.stack([high.tokens, low.tokens, to_tokens(pattern.hits)], axis=1).astype(np.uint16)
            part = f"{part_name(melody)} and, as the bass, {part_name(bass)}" if one_line else melody.name
            return Window(steps, high.first_bar, high.bpm, (melody.program, bass.program), part, pattern.unknown)

        for window in windows:
            yield make, window


# ---------------------------------------------------------------- what the encoder is given


def given_steps(steps: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """What the encoder is shown of groove vectors: all of it, the score alone (humanize), or taps on one drum. float32 [..., T, 27]"""
    if tokenizer.given == "all":
        return steps
    pattern = from_groove(steps)
    return to_groove(quantized(pattern, 0.0) if tokenizer.given == "hits" else tapped(pattern))


# ---------------------------------------------------------------- writing


def to_pattern(steps: np.ndarray, tokenizer: TokenizerConfig, bpm: float = 120.0, name: str = "") -> DrumPattern:
    """Drum tokens [T] or groove vectors [T, 27] as a pattern; tokens sound all equally loud."""
    if tokenizer.representation == "groove":
        return from_groove(steps, bpm=bpm, name=name)
    hits = from_tokens(steps)
    return DrumPattern(
        hits, np.where(hits, DRUM_VELOCITY, 0).astype(np.float32), np.zeros(hits.shape, dtype=np.float32), bpm=bpm, name=name
    )


def windows_to_midi(
    windows: Sequence[np.ndarray], tokenizer: TokenizerConfig, bpm: float, programs: Sequence[int] = (), names: Sequence[str] = ()
) -> bytes:
    """Write steps, one window after the other, as a MIDI file of exactly that many bars.

    Args:
        windows: at least one, steps of the tokenizer's representation.
        programs: of a line; of a trio's melody and bass; the first piano otherwise.
        names: a marker at the beginning of each window.

    Raises:
        ValueError: no windows, or some of another kind.
    """
    marks = [((0.0, name),) for name in names] or [()] * len(windows)
    if tokenizer.representation in ("drums", "groove"):
        return patterns_to_midi([to_pattern(steps, tokenizer, bpm) for steps in windows], tokenizer, names)
    line = dataclasses.replace(tokenizer, representation="mono")
    programs = programs or (0, 33)

    def riffs(part: Callable[[np.ndarray], np.ndarray], program: int, name: str) -> bytes:
        made = [Riff(part(steps).astype(np.int64), ((0.0, bpm),), program, name, mark) for steps, mark in zip(windows, marks, strict=True)]
        return riffs_to_midi(made, line)

    if tokenizer.representation == "mono":
        return riffs(lambda steps: steps, programs[0], "melody")
    files = [
        riffs(lambda steps: steps[:, 0], programs[0], TRIO_PARTS[0]),
        riffs(lambda steps: steps[:, 1], programs[1], TRIO_PARTS[1]),
        patterns_to_midi([to_pattern(steps[:, 2], dataclasses.replace(tokenizer, representation="drums"), bpm) for steps in windows], line),
    ]
    parsed = [mido.MidiFile(file=BytesIO(file)) for file in files]
    for channel, one in zip((0, 1, CHANNEL), parsed, strict=True):
        for message in one.tracks[1]:
            if not message.is_meta:
                message.channel = channel
    parsed[0].tracks += [one.tracks[1] for one in parsed[1:]]
    buffer = BytesIO()
    parsed[0].save(file=buffer)
    return buffer.getvalue()


# ---------------------------------------------------------------- looking


def text_window(steps: np.ndarray, tokenizer: TokenizerConfig) -> str:
    """A window as text: piano roll, drum grid, or both."""
    if tokenizer.representation == "mono":
        return text_roll(steps, tokenizer)
    if tokenizer.representation in ("drums", "groove"):
        return text_grid(to_pattern(steps, tokenizer).hits, tokenizer)
    line = dataclasses.replace(tokenizer, representation="mono")
    lines = [f"{name}\n{text_roll(steps[:, i], line)}" for i, name in enumerate(TRIO_PARTS[:2])]
    return "\n".join([*lines, text_grid(from_tokens(steps[:, 2]), tokenizer)])


def main(argv: Sequence[str]) -> int:
    if not 1 <= len(argv) <= 2:
        raise UserError("give one MIDI file, and a representation if you like: python -m family.windows FILE.mid trio")
    try:
        tokenizer = TokenizerConfig(policy="highest", representation=argv[1] if len(argv) == 2 else "mono")  # type: ignore[arg-type]
        windows, left = read_windows(argv[0], SongConfig(), DataConfig(), tokenizer)
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    for window in windows:
        print(f"bar {window.first_bar}, {window.bpm:.0f} bpm {window.part}\n{text_window(window.steps, tokenizer)}")
    if left:
        print("left out: " + ", ".join(f"{count} {reason}" for reason, count in left.most_common()))
    return 0


if __name__ == "__main__":
    run_script(main)
