"""MIDI files <-> notes <-> tokens, and the grammar of the tokens.

The grid comes from the file's ticks, tempo map and time signatures, never from onsets. Inside the project time is counted
in steps (sixteenths by default), pitch in MIDI numbers, programs from 0; seconds appear nowhere.

Run `python midi_utils.py FILE.mid` to see a file's tokens and its round trip.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import mido
import numpy as np
import symusic

from config import HOLD, REST, TokenizerConfig, UserError, run_script

MAX_FILE_BYTES = 2_000_000  # a riff has under 2 kB; anything near this is not a MIDI file for us
MAX_BARS = 2000
TICKS_PER_BEAT = 480  # of the files we write
VELOCITY = 96  # of the notes we write; the tokens carry no loudness
GUITAR_PROGRAMS = range(24, 32)

# General MIDI names of the guitars and basses, by 0-based program.
_PROGRAMS = """nylon guitar,steel guitar,jazz guitar,clean guitar,muted guitar,overdriven guitar,distortion guitar,guitar harmonics,
acoustic bass,finger bass,pick bass,fretless bass,slap bass 1,slap bass 2,synth bass 1,synth bass 2"""
PROGRAM_NAMES = dict(enumerate(_PROGRAMS.replace("\n", "").split(","), start=24))
_PITCH_CLASSES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


class MidiError(Exception):
    """A file or a part of it cannot be used.

    Attributes:
        reason: one of a few words that the data table counts by, e.g. "not 4/4".
        detail: what was found, in a few words.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def pitch_name(pitch: int) -> str:
    """MIDI pitch 0..127 as a name with its octave; 40 is E2, the low E of a guitar."""
    return f"{_PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def pitch_class_name(pitch: int) -> str:
    """The name of a pitch without its octave."""
    return _PITCH_CLASSES[pitch % 12]


def parse_pitch(name: str) -> int:
    """The inverse of pitch_name; flats (Bb2) are understood as well.

    Raises:
        ValueError: not a pitch name, or outside MIDI.
    """
    letter, rest = name[:1].upper(), name[1:]
    shift = 0
    while rest[:1] in ("#", "b"):
        shift += 1 if rest[0] == "#" else -1
        rest = rest[1:]
    if letter not in _PITCH_CLASSES or not rest.lstrip("-").isdigit():
        raise ValueError(f"{name!r} is not a pitch such as E2, F#3 or Bb2")
    pitch = _PITCH_CLASSES.index(letter) + shift + 12 * (int(rest) + 1)
    if not 0 <= pitch <= 127:
        raise ValueError(f"{name!r} is outside MIDI")
    return pitch


def program_name(program: int) -> str:
    """Name and number of a program, 0 to 127 as in every option here; manuals count from 1."""
    name = PROGRAM_NAMES.get(program)
    return f"{name} (program {program})" if name else f"program {program}"


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class MidiTrack:
    """One part of a file. All arrays have one entry per note, sorted by (start, pitch)."""

    name: str
    program: int  # 0..127
    is_drum: bool
    start: np.ndarray  # int64 [notes], ticks
    end: np.ndarray  # int64 [notes], ticks; end > start
    pitch: np.ndarray  # int64 [notes], 0..127
    velocity: np.ndarray  # int64 [notes], 1..127
    tuning: tuple[int, ...] = ()  # MIDI pitches of the open strings, lowest first; of Guitar Pro files
    capo: int = 0


@dataclass(frozen=True)
class MidiFile:
    """What we use of a MIDI file. Times are in ticks."""

    path: str
    ticks_per_beat: int
    tempos: list[tuple[int, float]]  # (tick, quarter notes per minute), first at 0
    time_signatures: list[tuple[int, int, int]]  # (tick, numerator, denominator), first at 0
    markers: list[tuple[int, str]]  # (tick, text)
    tracks: list[MidiTrack]  # those with notes
    data: bytes  # the file itself, if it is MIDI
    written_bars: tuple[int, ...] = ()  # of a score: the number of each played bar as written; empty: played as written

    @property
    def last_onset(self) -> int:
        return max((int(t.start[-1]) for t in self.tracks), default=-1)

    def bpm_at(self, tick: int) -> float:
        return [bpm for at, bpm in self.tempos if at <= tick][-1]


@dataclass(frozen=True)
class Bar:
    """One bar of a file: [start, end) in ticks, under a time signature."""

    start: int
    end: int
    numerator: int
    denominator: int

    @property
    def is_four_four(self) -> bool:
        return (self.numerator, self.denominator) == (4, 4)


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a stranger's file.

    Raises:
        MidiError: there is none that can be read, or it has more than `most` bytes.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise MidiError("unreadable", "no regular file")
        if (size := os.path.getsize(path)) > most:
            raise MidiError("unreadable", f"{size / 1e6:.1f} MB, at most {most / 1e6:g}; is it a file of music?")
        return Path(path).read_bytes()
    except OSError as error:
        raise MidiError("unreadable", error.strerror or str(error)) from None


def read_midi(path: str | os.PathLike[str]) -> MidiFile:
    """Read a MIDI file, refusing whatever could hang or mislead the rest of the program.

    Raises:
        MidiError: unreadable, or no notes.
    """
    return parse_midi(read_bytes(path, MAX_FILE_BYTES), os.fspath(path))


def parse_midi(data: bytes, path: str = "") -> MidiFile:
    """Read the bytes of a MIDI file.

    Raises:
        MidiError: unreadable, or no notes.
    """
    if not data:
        raise MidiError("unreadable", "the file is empty")
    if data[:4] != b"MThd":  # a RIFF-wrapped (.rmi) file is refused here as well
        raise MidiError("unreadable", "not a MIDI file (no MThd at its start)")
    if len(data) < 14:
        raise MidiError("unreadable", "cut off inside its header")
    ticks_per_beat = int.from_bytes(data[12:14], "big")
    if not 24 <= ticks_per_beat <= 32767:  # the top bit would mean SMPTE frames, which have no beats
        raise MidiError("unreadable", f"its time division {ticks_per_beat:#06x} is not 24 to 32767 ticks per beat")
    try:
        score: Any = symusic.Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and others on broken files
        text = str(error).split(": iostream")[0].replace("MiniMidi:", "").strip().splitlines()
        raise MidiError("unreadable", "damaged: " + (text[0][:80] if text else type(error).__name__)) from None

    tempos, seen = [], score.tempos.numpy()
    for tick, mspq in sorted(zip(seen["time"].tolist(), seen["mspq"].tolist(), strict=True), key=lambda event: event[0]):
        if not 0 < mspq <= 60_000_000:
            raise MidiError("unreadable", f"a tempo of {mspq} microseconds per beat")
        tempos.append((tick, 60e6 / mspq))
    signatures = sorted(((s.time, s.numerator, s.denominator) for s in score.time_signatures), key=lambda event: event[0])
    for _, numerator, denominator in signatures:
        if numerator < 1 or denominator not in (1, 2, 4, 8, 16, 32):
            raise MidiError("unreadable", f"a time signature of {numerator}/{denominator}")
    tracks = [_read_track(track) for track in score.tracks if track.note_num()]
    if min([0, *(event[0] for event in tempos + signatures), *(int(track.start[0]) for track in tracks)]) < 0:
        raise MidiError("unreadable", "its times are longer than a 32-bit number of ticks")  # the reader wraps them round
    midi = MidiFile(
        path=path,
        ticks_per_beat=ticks_per_beat,
        tempos=_from_zero(tempos, (0, 120.0)),  # the MIDI default
        time_signatures=_from_zero(signatures, (0, 4, 4)),
        markers=_markers(score, data),
        tracks=tracks,
        data=data,
    )
    if not tracks:
        raise MidiError("no notes", "no track holds a note")
    return midi


def decoded(raw: bytes) -> str:
    """A text in the encoding it was most likely written in; neither MIDI nor Guitar Pro say which."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    for encoding, first, last in (("euc_kr", "가", "힣"), ("cp932", "ぁ", "ヿ")):  # Korean; Japanese, which has kana
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        foreign = [sign for sign in text if ord(sign) >= 128]
        if all(first <= sign <= last for sign in foreign) or (encoding == "cp932" and any(first <= sign <= last for sign in foreign)):
            return text
    return raw.decode("cp1252", "replace")


def _markers(score: Any, data: bytes) -> list[tuple[int, str]]:
    """The markers of a file: (tick, text), sorted. The reader takes all text for UTF-8; what is not is read once more."""
    found = sorted(((m.time, m.text) for m in score.markers), key=lambda event: event[0])
    if not any("\ufffd" in text for _, text in found):
        return found
    try:
        tracks = mido.MidiFile(file=BytesIO(data), charset="latin-1", clip=True).tracks
    except Exception:  # a file that only the other reader can read
        return found
    again = []
    for track in tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "marker":
                again.append((tick, decoded(message.text.encode("latin-1"))))
    return sorted(again, key=lambda event: event[0])


def _read_track(track) -> MidiTrack:
    notes = track.notes.numpy()
    start, pitch = notes["time"].astype(np.int64), notes["pitch"].astype(np.int64)
    end = start + np.maximum(notes["duration"].astype(np.int64), 1)
    order = np.lexsort((pitch, start))
    velocity = notes["velocity"].astype(np.int64)
    return MidiTrack(track.name.strip(), track.program, bool(track.is_drum), start[order], end[order], pitch[order], velocity[order])


def _from_zero(events: list, default: tuple) -> list:
    """The last event of each tick, with one at tick 0: the file's own there, else the default."""
    by_tick = {0: default} | {event[0]: event for event in events}
    return [by_tick[tick] for tick in sorted(by_tick)]


def bars(midi: MidiFile, until: int) -> list[Bar]:
    """The bars of a file that start at or before a tick, by its time signatures.

    A time signature that comes inside a bar cuts the bar short there, as sequencers do.

    Raises:
        MidiError: more than 2000 bars.
    """
    result: list[Bar] = []
    changes = midi.time_signatures
    for i, (tick, numerator, denominator) in enumerate(changes):
        length = max(1, midi.ticks_per_beat * 4 * numerator // denominator)
        stop = changes[i + 1][0] if i + 1 < len(changes) else until + 1
        if len(result) + (min(stop, until + 1) - tick) / length > MAX_BARS:
            raise MidiError("too long", f"more than {MAX_BARS} bars")
        at = tick
        while at < stop and at <= until:
            end = min(at + length, stop) if i + 1 < len(changes) else at + length
            result.append(Bar(at, end, numerator, denominator if end - at == length else 0))
            at = end
    return result


def end_of_track(midi: MidiFile) -> int:
    """The tick of the last end-of-track event, or -1 if a track is broken.

    The reader drops this event, but it alone tells that a riff which ends in a rest is two bars long.
    """
    data, at, last = midi.data, 14, -1
    try:
        while at + 8 <= len(data):
            kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
            at += 8
            if kind == b"MTrk":
                last = max(last, _track_length(data[at : at + size]))
            at += size
    except IndexError:
        return -1
    return last


def _track_length(data: bytes) -> int:
    """Sum of the delta times of a track chunk, in ticks."""
    at = tick = status = 0

    def variable_length() -> int:
        nonlocal at
        value = 0
        for _ in range(4):
            byte = data[at]
            at += 1
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise IndexError("a length of more than 4 bytes")

    while at < len(data):
        tick += variable_length()
        if data[at] >= 0x80:
            status = data[at]
            at += 1
        if status == 0xFF:
            kind = data[at]
            at += 1
            size = variable_length()  # moves `at` itself, so `at += variable_length()` would add to the old place
            at += size
            if kind == 0x2F:
                break
        elif status in (0xF0, 0xF7):
            size = variable_length()
            at += size
        else:
            at += 1 if status & 0xF0 in (0xC0, 0xD0) else 2
    return tick


def choose_track(midi: MidiFile) -> tuple[MidiTrack, str]:
    """The part to read a riff from: of the guitars, else of all but the drums, the one with most notes.

    Returns:
        the track, and a note on the choice when there was one to make, else "".

    Raises:
        MidiError: only drums.
    """
    pitched = [t for t in midi.tracks if not t.is_drum]
    if not pitched:
        raise MidiError("no notes", "only drums")
    guitars = [t for t in pitched if t.program in GUITAR_PROGRAMS]
    track = max(guitars or pitched, key=lambda t: len(t.pitch))
    if len(pitched) == 1:
        return track, ""
    return track, f"{len(pitched)} tracks: read {track.name or 'an unnamed one'}, {program_name(track.program)}"


# ---------------------------------------------------------------- riffs: notes <-> tokens


@dataclass(frozen=True)
class Riff:
    """A riff as tokens, with what the tokens do not say."""

    tokens: np.ndarray  # int64 [steps], see TokenizerConfig
    tempos: tuple[tuple[float, float], ...] = ((0.0, 120.0),)  # (step, quarter notes per minute), first at step 0
    program: int = 27  # 0..127
    name: str = ""
    markers: tuple[tuple[float, str], ...] = ()  # (step, text)
    first_bar: int = 1  # of the file it was read from, counted from 1
    note: str = ""  # what was left out on the way from the file

    @property
    def bpm(self) -> float:
        return self.tempos[0][1]


def notes_to_tokens(start: np.ndarray, end: np.ndarray, pitch: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Write notes, at most one starting on each step, as tokens; a note ends where the next one starts.

    Args:
        start: int [notes], steps from the start of the riff, in 0..steps - 1, rising.
        end: int [notes], steps; what rings past the riff's end is cut there.
        pitch: int [notes], 1..127.

    Returns:
        int64 [steps]
    """
    tokens = np.full(tokenizer.steps, REST, dtype=np.int64)
    stops = np.minimum(end, np.append(start[1:], tokenizer.steps))
    for first, stop, value in zip(start.tolist(), stops.tolist(), pitch.tolist(), strict=True):
        tokens[first:stop] = HOLD if tokenizer.hold_token else value
        tokens[first] = value
    return tokens


def tokens_to_notes(tokens: np.ndarray, tokenizer: TokenizerConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read tokens as notes: the inverse of notes_to_tokens.

    Without the hold token, equal neighbours are one note: a repeated note cannot be told from a long one.

    Args:
        tokens: int [steps], legal.

    Returns:
        start, end and pitch, each int64 [notes]; times in steps.

    Raises:
        ValueError: the tokens break the grammar.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    if not is_legal(tokens, tokenizer):
        raise ValueError("not a legal riff: a token out of the vocabulary, or a hold with no note before it")
    before = np.concatenate(([REST], tokens[:-1]))
    sounds = (tokens != REST) & (tokens != HOLD)
    onsets = sounds if tokenizer.hold_token else sounds & (tokens != before)
    start = np.flatnonzero(onsets)
    breaks = np.flatnonzero(onsets | (tokens == REST))  # a note lasts up to the next onset or rest
    following = np.searchsorted(breaks, start, side="right")
    end = np.append(breaks, len(tokens))[following]
    return start, end, tokens[start]


def is_legal(tokens: np.ndarray, tokenizer: TokenizerConfig) -> bool:
    """Whether every token is in the vocabulary and every hold follows a note or a hold.

    Args:
        tokens: int [..., steps]
    """
    tokens = np.asarray(tokens)
    if tokens.size == 0:
        return False
    if tokens.min() < 0 or tokens.max() >= tokenizer.vocab_size:
        return False
    before = np.concatenate((np.full_like(tokens[..., :1], REST), tokens[..., :-1]), axis=-1)
    return not bool(((tokens == HOLD) & (before == REST)).any())


def file_riffs(midi: MidiFile, track: MidiTrack, tokenizer: TokenizerConfig, hop: int = 0) -> tuple[list[tuple[int, list[Bar]]], str]:
    """Where the riffs of a file lie: windows of consecutive 4/4 bars, from the first bar that holds a note of the track, or
    from an empty bar before it where only that makes whole riffs.

    Args:
        hop: bars from one window to the next; 0 is the length of a riff.

    Returns:
        (1-based number of the first bar, the bars) for each window; and a note on bars that no window takes, else "".

    Raises:
        MidiError: not 4/4, too short, or too long to count.
    """
    size = tokenizer.bars
    half_step = midi.ticks_per_beat / tokenizer.steps_per_beat / 2  # a note just before a bar line belongs to the bar after
    first_tick, last_tick = int(track.start[0] + half_step), int(track.start[-1] + half_step)
    music = bars(midi, last_tick)
    first = next(i for i, bar in enumerate(music) if bar.end > first_tick)
    if (len(music) - first) % size:
        first, music = _whole_riffs(midi, music, first, last_tick, size)
    four_four = [bar.is_four_four for bar in music]
    if not any(four_four[first:]):
        bar = music[first]
        raise MidiError("not 4/4", f"{bar.numerator}/{bar.denominator}" if bar.denominator else "an incomplete bar")
    windows, taken, at = [], set(), first
    while at + size <= len(music):
        if all(four_four[at : at + size]):
            windows.append((at + 1, music[at : at + size]))
            taken |= set(range(at, at + size))
            at += hop or size
        else:
            at += 1
    if not windows:
        found = len(music) - first
        if found >= size:
            raise MidiError("not 4/4", f"no {size} bars of 4/4 in a row")
        raise MidiError("too short", f"{found} bar{'s' * (found != 1)}, {size} needed")
    left = [str(i + 1) for i in range(first, len(music)) if i not in taken]
    return windows, f"bar{'s' * (len(left) > 1)} {', '.join(left[:4])}{' ...' * (len(left) > 4)} left over" if left else ""


def _whole_riffs(midi: MidiFile, music: list[Bar], first: int, last_tick: int, size: int) -> tuple[int, list[Bar]]:
    """Complete an odd number of bars to whole riffs: by silence before the music, else by silence after it up to the end of
    the track; else as it was. -> index of the first bar, and the bars up to the last."""
    aligned = first - first % size
    if (len(music) - aligned) % size == 0:
        return aligned, music
    end = end_of_track(midi)
    whole = [bar for bar in bars(midi, max(end - 1, last_tick)) if bar.end <= end]
    for begin in (first, aligned):
        missing = (begin - len(music)) % size
        if len(whole) >= len(music) + missing:
            return begin, whole[: len(music) + missing]
    return first, music


def read_riff(
    midi: MidiFile, track: MidiTrack, window: tuple[int, list[Bar]], tokenizer: TokenizerConfig, name: str = "",
    low: int = 1, high: int = 127, grid_tolerance: float = 0.3, max_off_grid: float = 0.1, min_notes: int = 1,
) -> Riff:  # fmt: skip
    """Read one window of a track as a riff. A note belongs to its nearest step; chords follow the tokenizer's policy.

    Args:
        window: one of file_riffs.
        low, high: MIDI pitches accepted.
        grid_tolerance: steps; an onset further from its step is off the grid.
        max_off_grid: share of onsets.

    Raises:
        MidiError: no notes, out of range, off the grid, or polyphonic.
    """
    number, window_bars = window
    begin = window_bars[0].start
    step_ticks = midi.ticks_per_beat / tokenizer.steps_per_beat
    exact = (track.start - begin) / step_ticks
    nearest = np.floor(exact + 0.5).astype(np.int64)
    inside = (nearest >= 0) & (nearest < tokenizer.steps)
    start, pitch = nearest[inside], track.pitch[inside]
    end = np.maximum(np.floor((track.end[inside] - begin) / step_ticks + 0.5).astype(np.int64), start + 1)
    where = f"bars {number}-{number + tokenizer.bars - 1}"
    if len(np.unique(start)) < min_notes:
        raise MidiError("no notes", f"{where}: {len(np.unique(start)) or 'no'} onset{'s' * (len(np.unique(start)) != 1)}")
    off_grid = np.abs(exact[inside] - start) > grid_tolerance
    if off_grid.mean() > max_off_grid:
        raise MidiError("off the grid", f"{where}: {off_grid.sum()} of {len(start)} onsets lie between the steps")
    order = np.lexsort((-pitch if tokenizer.policy == "highest" else pitch, start))
    start, end, pitch = start[order], end[order], pitch[order]
    rings_in = int(((track.start < begin - step_ticks / 2) & (track.end > begin + step_ticks / 2)).sum())
    first_of_step = np.append(True, start[1:] != start[:-1])
    chord_notes = int((~first_of_step).sum())
    if chord_notes and tokenizer.policy == "reject":
        raise MidiError("polyphonic", f"{where}: {chord_notes} notes start together with another")
    start, end, pitch = start[first_of_step], end[first_of_step], pitch[first_of_step]
    if pitch.min() < low or pitch.max() > high:
        outside = int(pitch.min() if pitch.min() < low else pitch.max())
        raise MidiError("out of range", f"{where}: {pitch_name(outside)}, allowed {pitch_name(low)} to {pitch_name(high)}")

    def inside_events(events: list) -> list:
        return [((event[0] - begin) / step_ticks, event[1]) for event in events if begin < event[0] < window_bars[-1].end]

    return Riff(
        tokens=notes_to_tokens(start, end, pitch, tokenizer),
        tempos=((0.0, midi.bpm_at(begin)), *inside_events(midi.tempos)),
        program=track.program,
        name=name,
        markers=tuple((0.0, text) for tick, text in midi.markers if tick == begin) + tuple(inside_events(midi.markers)),
        first_bar=number,
        note="; ".join(
            [f"{chord_notes} chord note{'s' * (chord_notes > 1)} left out ({tokenizer.policy} kept)"] * (chord_notes > 0)
            + [f"{where}: a note that rings in from the bar before is a rest"] * (rings_in > 0)
        ),
    )


# ---------------------------------------------------------------- writing


def riffs_to_midi(riffs: list[Riff], tokenizer: TokenizerConfig) -> bytes:
    """Write riffs one after the other as a MIDI file of exactly that many bars, markers and tempos included.

    The first track holds tempo, time signature and markers, the second the notes. Written with mido straight in ticks: a
    detour through seconds would round, and the file must end on the bar line, also after a rest, or a DAW loops it short.

    Args:
        riffs: at least one; the program of the first serves them all.

    Raises:
        ValueError: no riff, or one that breaks the grammar.
    """
    if not riffs:
        raise ValueError("no riffs to write")
    step = TICKS_PER_BEAT / tokenizer.steps_per_beat
    total = round(len(riffs) * tokenizer.steps * step)
    head: list[tuple[int, int, mido.MetaMessage]] = [(0, 0, mido.MetaMessage("time_signature", numerator=4, denominator=4))]
    notes: list[tuple[int, int, mido.Message]] = []
    last_bpm = None
    for i, riff in enumerate(riffs):
        offset = i * tokenizer.steps
        for at, bpm in riff.tempos:
            if bpm != last_bpm:
                head.append((round((offset + at) * step), 1, mido.MetaMessage("set_tempo", tempo=round(60e6 / bpm))))
                last_bpm = bpm
        for at, text in riff.markers:
            head.append((round((offset + at) * step), 2, mido.MetaMessage("marker", text=text)))
        start, end, pitch = tokens_to_notes(riff.tokens, tokenizer)
        for first, stop, value in zip(start.tolist(), end.tolist(), pitch.tolist(), strict=True):
            on, off = round((offset + first) * step), round((offset + stop) * step)
            notes.append((on, 1, mido.Message("note_on", note=value, velocity=VELOCITY)))
            notes.append((off, 0, mido.Message("note_off", note=value, velocity=0)))  # offs sort before ons: a re-struck note sounds
    name = riffs[0].name or "riff"
    setup = [mido.MetaMessage("track_name", name=name), mido.Message("program_change", program=riffs[0].program)]
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8")
    file.tracks = [timed_track([], head, total), timed_track(setup, notes, total)]
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def timed_track(setup: list, events: list, total: int) -> mido.MidiTrack:
    """A track of what stands at no time and of (tick, order within the tick, message), ending at the tick `total`."""
    track, now = mido.MidiTrack(setup), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=total - now))
    return track


# ---------------------------------------------------------------- looking


def text_roll(tokens: np.ndarray, tokenizer: TokenizerConfig) -> str:
    """A riff as a text piano roll: `o` an onset, `=` a held step, `.` silence; one row per pitch in use, high on top."""
    start, end, pitch = tokens_to_notes(tokens, tokenizer)
    rows = []
    for value in sorted(set(pitch.tolist()), reverse=True):
        cells = ["."] * len(tokens)
        for i in np.flatnonzero(pitch == value):
            cells[start[i] : end[i]] = ["o"] + ["="] * int(end[i] - start[i] - 1)
        rows.append(f"{pitch_name(value):>4s} |{_by_bar(cells, tokenizer)}|")
    beats = [str(i // tokenizer.steps_per_beat % 4 + 1) if i % tokenizer.steps_per_beat == 0 else " " for i in range(len(tokens))]
    return "\n".join([*(rows or ["  -- |" + _by_bar(["."] * len(tokens), tokenizer) + "|"]), "      " + _by_bar(beats, tokenizer, " ")])


def _by_bar(cells: list[str], tokenizer: TokenizerConfig, line: str = "|") -> str:
    text, width = "".join(cells), tokenizer.steps_per_bar
    return line.join(text[i : i + width] for i in range(0, len(text), width))


def main(argv: Sequence[str]) -> int:
    if not argv:
        raise UserError("give a MIDI file: python midi_utils.py midi_riffs/harbour_verse1a.mid")
    tokenizer = TokenizerConfig()
    for path in argv:
        try:
            midi = read_midi(path)
            track, note = choose_track(midi)
            print(f"{path}: {midi.bpm_at(0):.6g} bpm, {track.name or 'unnamed'}, {program_name(track.program)} {note}")
            for window in file_riffs(midi, track, tokenizer)[0]:
                riff = read_riff(midi, track, window, tokenizer)
                again = parse_midi(riffs_to_midi([riff], tokenizer))
                back = read_riff(again, again.tracks[0], file_riffs(again, again.tracks[0], tokenizer)[0][0], tokenizer)
                print(" ".join(map(str, riff.tokens)))
                print(text_roll(riff.tokens, tokenizer))
                print("round trip:", "identical" if np.array_equal(back.tokens, riff.tokens) else "DIFFERENT")
        except MidiError as error:
            raise UserError(f"{path}: {error}") from None
    return 0


if __name__ == "__main__":
    run_script(main)
