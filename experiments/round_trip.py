"""Round trip of real files: every usable window of every pitched track, MIDI -> tokens -> MIDI -> tokens.

    python -m experiments.round_trip FOLDER [FOLDER ...]

A window is two bars of 4/4 with at least four onsets, at most a tenth of them off the grid; chords keep their lowest note.
Exit 1 if any window comes back different.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from config import TokenizerConfig, UserError, run_script
from dataset import find_music_files
from midi_utils import MidiError, file_riffs, parse_midi, read_midi, read_riff, riffs_to_midi


def main(argv: Sequence[str]) -> int:
    if not argv:
        raise UserError("give folders of MIDI files")
    tokenizer, total = TokenizerConfig(), Counter()
    for folder in argv:
        counts: Counter[str] = Counter()
        for path in find_music_files(folder):
            try:
                midi = read_midi(path)
            except MidiError as error:
                counts[f"file {error.reason}"] += 1
                continue
            counts["files"] += 1
            for track in midi.tracks:
                if track.is_drum:
                    continue
                try:
                    windows = file_riffs(midi, track, tokenizer)[0]
                except MidiError as error:
                    counts[f"track {error.reason}"] += 1
                    continue
                for window in windows:
                    try:
                        riff = read_riff(midi, track, window, tokenizer, min_notes=4)
                    except MidiError as error:
                        counts[f"window {error.reason}"] += 1
                        continue
                    again = parse_midi(riffs_to_midi([riff], tokenizer))
                    back_windows, left_over = file_riffs(again, again.tracks[0], tokenizer)
                    back = read_riff(again, again.tracks[0], back_windows[0], tokenizer)
                    # a window that opens with an empty bar comes back from its first bar with a note
                    same = np.array_equal(back.tokens, riff.tokens) and len(back_windows) == 1 and not left_over
                    same &= back.program == riff.program and abs(back.bpm - riff.bpm) < 1e-3 and back.markers == riff.markers
                    counts["windows identical" if same else "windows DIFFERENT"] += 1
        print(f"{folder}: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
        total += counts
    return 1 if total["windows DIFFERENT"] else 0


if __name__ == "__main__":
    run_script(main)
