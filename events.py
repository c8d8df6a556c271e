"""Event tokens: whole pieces of any number of voices as NOTE_ON, NOTE_OFF and TIME_SHIFT between BOS and EOS. No torch.

Time is counted in steps of a fixed length (50 ms) from the first note, whatever the tempo (Oore et al. 2018, arXiv:1808.03715, without
velocities). The vocabulary is a function of EventConfig alone:

    0 PAD   1 BOS   2 EOS   3 + p NOTE_ON_p   131 + p NOTE_OFF_p   258 + n TIME_SHIFT_n (n = 1..max_shift)

What stands at one time is written in one order, offs before ons, low before high, so that a pitch struck again is heard again and
notes -> tokens -> notes gives the same notes. Run `python events.py FILE.mid` to read a file's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import mido
import numpy as np

from config import EventConfig, UserError, run_script
from midi_utils import VELOCITY, MidiError, MidiFile, parse_midi, read_midi, timed_track

PAD, BOS, EOS = 0, 1, 2
NOTE_ON, NOTE_OFF, TIME_SHIFT = 3, 131, 258  # TIME_SHIFT + n is a shift of n steps, n >= 1
PITCHES = 128
MAX_TOKENS = 200_000  # of one piece: beyond it a file of a few bytes asks for gigabytes
_TICKS = 480  # per quarter note, at least

Notes = tuple[np.ndarray, np.ndarray, np.ndarray]  # start and end in steps, pitch; int64 [notes], sorted by (start, pitch)


def event_name(token: int) -> str:
    """`NOTE_ON_60`, `TIME_SHIFT_4`, `BOS`, ..."""
    if token < NOTE_ON:
        return ("PAD", "BOS", "EOS")[token]
    if token < NOTE_OFF:
        return f"NOTE_ON_{token - NOTE_ON}"
    return f"NOTE_OFF_{token - NOTE_OFF}" if token <= TIME_SHIFT else f"TIME_SHIFT_{token - TIME_SHIFT}"


# ---------------------------------------------------------------- notes <-> tokens


def tidy(start: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> Notes:
    """Notes as one keyboard can play them: every note lasts a step at least, and ends where its pitch is struck again.

    Args:
        start, end: int [notes], steps; pitch: int [notes], 0..127; in any order.
    """
    end = np.maximum(end, start + 1)
    order = np.lexsort((-end, start, pitch))
    start, end, pitch = start[order], end[order], pitch[order]
    first = np.append(True, (start[1:] != start[:-1]) | (pitch[1:] != pitch[:-1]))[: len(start)]  # the longest of those struck together
    start, end, pitch = start[first], end[first], pitch[first]
    again = np.append(pitch[1:] == pitch[:-1], False)[: len(start)]
    end = np.where(again, np.minimum(end, np.append(start[1:], 0)[: len(start)]), end)
    order = np.lexsort((pitch, start))
    return start[order].astype(np.int64), end[order].astype(np.int64), pitch[order].astype(np.int64)


def notes_to_events(start: np.ndarray, end: np.ndarray, pitch: np.ndarray, config: EventConfig) -> np.ndarray:
    """Write notes as tokens, from BOS to EOS.

    Args:
        start, end: int [notes], steps from any beginning; pitch: int [notes], 0..127.

    Returns:
        int64 [tokens]; without notes [BOS, EOS].

    Raises:
        MidiError: more than MAX_TOKENS tokens.
    """
    if not len(start):
        return np.array([BOS, EOS], dtype=np.int64)
    start, end, pitch = tidy(start, end, pitch)
    time = np.concatenate([end, start]) - start[0]
    token = np.concatenate([NOTE_OFF + pitch, NOTE_ON + pitch])
    order = np.lexsort((np.tile(pitch, 2), token < NOTE_OFF, time))  # offs first
    time, token = time[order], token[order]
    gap = np.diff(time, prepend=0)
    full, rest = np.divmod(gap, config.max_shift)
    if len(token) + int(full.sum()) + int((rest > 0).sum()) + 2 > MAX_TOKENS:
        raise MidiError("too long", f"more than {MAX_TOKENS} events")
    count = full + (rest > 0)  # shifts before each note event: full ones, then the rest
    place = np.arange(len(token)) + np.cumsum(count)
    tokens = np.full(len(token) + int(count.sum()), TIME_SHIFT + config.max_shift, dtype=np.int64)
    tokens[place] = token
    tokens[place[rest > 0] - 1] = TIME_SHIFT + rest[rest > 0]
    return np.concatenate([[BOS], tokens, [EOS]])


def events_to_notes(tokens: np.ndarray) -> tuple[Notes, int]:
    """Read tokens as notes, up to the first EOS. What no keyboard can play is mended: a NOTE_OFF of a silent pitch is passed over, a
    pitch struck while it sounds is struck again, and notes still sounding at the end are closed there.

    Args:
        tokens: int [tokens], with or without BOS.

    Returns:
        the notes; and the steps that the tokens last.
    """
    now, sounding = 0, {}
    notes: list[tuple[int, int, int]] = []
    for token in tokens.tolist():
        if token == EOS:
            break
        if token > TIME_SHIFT:
            now += token - TIME_SHIFT
            continue
        pitch = (token - NOTE_ON) % PITCHES
        if token >= NOTE_ON and pitch in sounding:
            notes.append((sounding.pop(pitch), now, pitch))
        if NOTE_ON <= token < NOTE_OFF:
            sounding[pitch] = now
    notes += [(begin, now, pitch) for pitch, begin in sounding.items()]
    start, end, pitch = np.array(notes, dtype=np.int64).reshape(-1, 3).T
    start, end, pitch = tidy(start, end, pitch)
    return (start, end, pitch), max(now, int(end.max(initial=0)))


def transpose_events(tokens: np.ndarray, shift: int) -> np.ndarray:
    """Shift all pitches by some semitones; the caller sees to it that they stay within 0..127."""
    return np.where((tokens >= NOTE_ON) & (tokens <= TIME_SHIFT), tokens + shift, tokens)


def pitch_bounds(tokens: np.ndarray) -> tuple[int, int]:
    """Lowest and highest pitch of a piece's notes; (0, 127) without notes."""
    pitch = tokens[(tokens >= NOTE_ON) & (tokens < NOTE_OFF)] - NOTE_ON
    return (int(pitch.min()), int(pitch.max())) if len(pitch) else (0, PITCHES - 1)


# ---------------------------------------------------------------- MIDI <-> tokens


def seconds_of(midi: MidiFile, ticks: np.ndarray) -> np.ndarray:
    """The times of ticks under the file's tempo map. float64, seconds"""
    at = np.array([tick for tick, _ in midi.tempos])
    per_tick = np.array([60 / bpm for _, bpm in midi.tempos]) / midi.ticks_per_beat
    begins = np.concatenate([[0.0], np.cumsum(np.diff(at) * per_tick[:-1])])
    part = np.searchsorted(at, ticks, side="right") - 1
    return begins[part] + (ticks - at[part]) * per_tick[part]


def midi_to_events(midi: MidiFile, config: EventConfig) -> np.ndarray:
    """Read all tracks of a file together as tokens. Every onset and end belongs to its nearest step, counted from the first onset.

    Raises:
        MidiError: no notes but drums, or too long.
    """
    tracks = [track for track in midi.tracks if config.drums == "keep" or not track.is_drum]
    if not tracks:
        raise MidiError("no notes", "only drums (--drums keep takes them as notes)")
    start, end = (seconds_of(midi, np.concatenate([getattr(track, name) for track in tracks])) for name in ("start", "end"))
    step, zero = config.time_step_ms / 1000, start.min()
    steps = [np.floor((time - zero) / step + 0.5 + 1e-9).astype(np.int64) for time in (start, end)]
    return notes_to_events(*steps, np.concatenate([track.pitch for track in tracks]), config)


def events_to_midi(tokens: np.ndarray, config: EventConfig, program: int = 0, name: str = "piece") -> bytes:
    """Write tokens as a MIDI file, on a tempo near 120 whose ticks hit every step exactly.

    Args:
        tokens: int [tokens]
        program: 0..127
    """
    (start, end, pitch), length = events_to_notes(tokens)
    per_beat = max(1, round(500 / config.time_step_ms))
    ticks = -(-_TICKS // per_beat)
    notes = [(int(on) * ticks, 1, mido.Message("note_on", note=int(p), velocity=VELOCITY)) for on, p in zip(start, pitch, strict=True)]
    notes += [(int(off) * ticks, 0, mido.Message("note_off", note=int(p), velocity=0)) for off, p in zip(end, pitch, strict=True)]
    head = [(0, 0, mido.MetaMessage("set_tempo", tempo=per_beat * config.time_step_ms * 1000))]
    setup = [mido.MetaMessage("track_name", name=name), mido.Message("program_change", program=program)]
    file = mido.MidiFile(type=1, ticks_per_beat=per_beat * ticks, charset="utf-8")
    file.tracks = [timed_track([], head, length * ticks), timed_track(setup, notes, length * ticks)]
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def main(argv: Sequence[str]) -> int:
    if not argv:
        raise UserError("give a MIDI file: python events.py midi_riffs/harbour_verse1a.mid")
    config = EventConfig()
    for path in argv:
        try:
            tokens = midi_to_events(read_midi(path), config)
        except MidiError as error:
            raise UserError(f"{path}: {error}") from None
        back = midi_to_events(parse_midi(events_to_midi(tokens, config)), config)
        print(" ".join(event_name(token) for token in tokens.tolist()))
        print(f"{path}: {len(tokens)} tokens; round trip: {'identical' if np.array_equal(back, tokens) else 'DIFFERENT'}")
    return 0


if __name__ == "__main__":
    run_script(main)
