"""Cut every pitched line of a folder of songs into two-bar windows: what the base model is trained on.

    python -m experiments.cut_lines SONGS OUTPUT_DIR

SONGS holds MIDI files named <anything>__<song>.mid; files of one song keep one name, so that a song is never divided between
training and validation. A window starts on every bar line of 4/4; it needs four notes, at most a tenth of them off the grid, and
keeps the lowest note of a chord. Windows that repeat an earlier one, transposed or not, are counted and left out. Writes one
file a window and lines.csv, the table of what became of each song.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from config import DataConfig, TokenizerConfig, UserError, run_script
from dataset import find_music_files
from files import write_file
from measures.metrics import relative_tokens
from midi_utils import MidiError, MidiFile, Riff, file_riffs, read_midi, read_riff, riffs_to_midi

LEAST_NOTES = 4
COLUMNS = ("file", "song", "lines", "windows", "kept", "repeated", "refused", "reasons")


def cut(midi: MidiFile, tokenizer: TokenizerConfig, counts: Counter[str]) -> list[tuple[str, Riff]]:
    """All usable windows of a song, each with a name of its own; `counts` takes up what was found and what was refused."""
    data, found = DataConfig(), []
    for number, track in enumerate(midi.tracks):
        if track.is_drum:
            continue
        try:
            windows = file_riffs(midi, track, tokenizer, hop=1)[0]
        except MidiError as error:
            counts[error.reason] += 1
            continue
        counts["lines"] += 1
        for window in windows:
            counts["windows"] += 1
            try:
                riff = read_riff(midi, track, window, tokenizer, low=data.low, high=data.high, min_notes=LEAST_NOTES)
            except MidiError as error:
                counts[error.reason] += 1
                continue
            found.append((f"t{number:02d}-b{window[0]:03d}", riff))
    return found


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2 or argv[0].startswith("-"):
        raise UserError("give the folder of songs, and the folder to write to")
    output_dir, tokenizer = Path(argv[1]), TokenizerConfig()
    if output_dir.exists() and any(output_dir.iterdir()):
        raise UserError(f"{output_dir}: is not empty; name a new folder")
    table, seen = io.StringIO(), set()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    total: Counter[str] = Counter()
    for path in find_music_files(argv[0]):
        revision, _, name = path.stem.rpartition("__")
        song = name.replace("_", "-")
        counts: Counter[str] = Counter()
        try:
            windows = cut(read_midi(path), tokenizer, counts)
        except MidiError as error:
            counts[error.reason] += 1
            windows = []
        for place, riff in windows:
            key = relative_tokens(riff.tokens[None]).tobytes()
            counts["repeated" if key in seen else "kept"] += 1
            if key not in seen:
                seen.add(key)
                target = output_dir / f"{song}_{revision}-{place}.mid"
                if target.exists():
                    raise UserError(f"{path}: another file of its name was cut before; rename one of them, and begin with an empty folder")
                write_file(target, riffs_to_midi([riff], tokenizer))
        refused = {reason: n for reason, n in counts.items() if reason not in COLUMNS}
        shown = "; ".join(f"{n} {reason}" for reason, n in sorted(refused.items()))
        row = [counts[key] for key in ("lines", "windows", "kept", "repeated")]
        writer.writerow([path.name, song, *row, sum(refused.values()), shown])
        total += counts
    write_file(output_dir / "lines.csv", table.getvalue().encode())
    print(f"{output_dir}: " + ", ".join(f"{n} {what}" for what, n in total.most_common()))
    return 0


if __name__ == "__main__":
    run_script(main)
