"""The facts about one MIDI file: what check_midi.py reports, in plain types, also of files that training refuses.

Run `python -m measures.midi_facts FILE.mid` to see them as JSON.
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import midi_utils
from config import DataConfig, TokenizerConfig, UserError, run_script
from dataset import read_file_riffs
from midi_utils import Bar, MidiError, MidiFile, MidiTrack, Riff, pitch_name


@dataclass(frozen=True)
class Line:
    """A track as one line of notes on the grid of the file's bars, whatever their meter."""

    bars: list[Bar]  # of the whole file
    bar_step: np.ndarray  # int64 [bars + 1], the step each bar starts on, and where the last one ends
    first: int  # index of the first bar that holds a note; as in training, what is before it does not count
    off_grid: np.ndarray  # bool [notes of the track]
    start: np.ndarray  # int64 [notes], steps, rising; one note per step
    end: np.ndarray  # int64 [notes], steps; never past the next start
    pitch: np.ndarray  # int64 [notes]


def read_line(midi: MidiFile, track: MidiTrack, data: DataConfig, tokenizer: TokenizerConfig) -> Line:
    """Put the whole of a track on the grid, also what training would refuse.

    Raises:
        MidiError: too many bars to count.
    """
    step = midi.ticks_per_beat / tokenizer.steps_per_beat
    half_step = int(step / 2)  # an end just past a bar line opens no bar
    end = max(midi_utils.end_of_track(midi), *(int(track.end.max()) for track in midi.tracks))
    try:
        music = midi_utils.bars(midi, max(midi.last_onset + half_step, end - half_step - 1))
    except MidiError:  # perhaps only the end is far off
        music = midi_utils.bars(midi, midi.last_onset + half_step)
    begins = np.array([bar.start for bar in music])
    bar_step = np.cumsum([0] + [max(1, round((bar.end - bar.start) / step)) for bar in music])

    def on_grid(ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bar = np.searchsorted(begins, ticks, side="right") - 1
        exact = (ticks - begins[bar]) / step
        nearest = np.floor(exact + 0.5).astype(np.int64)
        return bar_step[bar] + nearest, np.abs(exact - nearest)

    start, distance = on_grid(track.start)
    end, _ = on_grid(track.end)
    order = np.lexsort((-track.pitch if tokenizer.policy == "highest" else track.pitch, start))
    order = order[np.append(True, np.diff(start[order]) > 0)]  # one note of each chord
    start, pitch = start[order], track.pitch[order]
    bar_step[-1] = max(bar_step[-1], start[-1] + 1)
    end = np.clip(end[order], start + 1, np.append(start[1:], bar_step[-1]))
    first = np.searchsorted(bar_step[:-1], start[0], side="right") - 1
    return Line(music, bar_step, int(first), distance > data.grid_tolerance, start, end, pitch)


def check_file(path: Path, data: DataConfig, tokenizer: TokenizerConfig) -> tuple[dict[str, Any], Line | None, list[Riff]]:
    """All facts about a file, in plain types; its line, if its bars can be counted; and its riffs, if it is accepted."""
    facts: dict[str, Any] = {"file": str(path), "accepted": False, "riffs": 0, "reason": None, "detail": None, "remarks": []}
    riffs: list[Riff] = []
    try:
        riffs, remarks = read_file_riffs(path, data, tokenizer)
        facts |= {"accepted": True, "riffs": len(riffs), "first_bars": [riff.first_bar for riff in riffs], "remarks": remarks}
    except MidiError as error:
        facts |= {"reason": error.reason, "detail": error.detail}
    try:  # what training refuses is described all the same, as far as it can be read
        midi = midi_utils.read_midi(path)
        track, _ = midi_utils.choose_track(midi)
    except MidiError:
        return facts, None, riffs
    try:
        line = read_line(midi, track, data, tokenizer)
    except MidiError:
        line = None

    starts = [bar.start for bar in line.bars] if line else []

    def bar_at(tick: int) -> int | None:
        return bisect.bisect(starts, tick) if line and 0 <= tick < line.bars[-1].end else None

    facts |= {
        "tempos": [{"bar": bar_at(tick), "bpm": round(bpm, 3)} for tick, bpm in midi.tempos],
        "meters": [{"bar": bar_at(tick), "meter": f"{top}/{bottom}"} for tick, top, bottom in midi.time_signatures],
        "markers": [{"bar": bar_at(tick), "text": text} for tick, text in midi.markers],
        "bars": len(line.bars) if line else None,
        "tracks": [
            {"name": t.name, "program": t.program, "is_drum": t.is_drum, "notes": len(t.pitch), "read": t is track} for t in midi.tracks
        ],
        "notes": len(track.pitch),
        "range": [int(track.pitch.min()), int(track.pitch.max())],
        "pitches": {pitch_name(p): n for p, n in sorted(Counter(track.pitch.tolist()).items())},
    }
    return facts | (line_facts(line) if line else {}), line, riffs


def line_facts(line: Line) -> dict[str, Any]:
    """The facts that need the grid: what metrics.py says of riffs, over the whole track from its first bar with a note."""
    length, again = line.end - line.start, line.pitch[1:] == line.pitch[:-1]
    return {
        "first_bar": line.first + 1,
        "chord_notes": len(line.off_grid) - len(line.pitch),
        "rest_ratio": round(float(1 - length.sum() / (line.bar_step[-1] - line.bar_step[line.first])), 4),
        "restrike_share": round(float(again.mean()), 4) if len(again) else None,
        "lengths": {str(steps): n for steps, n in sorted(Counter(length.tolist()).items())},
        "off_grid": int(line.off_grid.sum()),
        "off_grid_share": round(float(line.off_grid.mean()), 4),
    }


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UserError("give one MIDI file: python -m measures.midi_facts midi_riffs/harbour_verse1a.mid")
    print(json.dumps(check_file(Path(argv[0]), DataConfig(), TokenizerConfig())[0], indent=1))
    return 0


if __name__ == "__main__":
    run_script(main)
