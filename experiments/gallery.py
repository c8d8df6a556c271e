"""An example of every way to steer, in one picture: the commands of the README, run, read back from their records and drawn.

python -m experiments.gallery [--run-dir runs/riff_2bar] [--picture docs/steering_examples.png]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import generate
from config import TokenizerConfig, UserError, run_script
from files import make_room, save_picture
from output.pictures import draw_riff

A, B = "midi_riffs/harbour_verse1a.mid", "midi_riffs/cinder_verse1a.mid"
COLUMNS = 4  # the riff that is given, and three that come of it
KEPT = "#f3e3b3"  # behind the steps that stay
EXAMPLES: tuple[tuple[str, str, tuple[int, int]], ...] = (  # what, the command, and the steps that stay
    ("vary", f"vary {A} --strength 0.35", (0, 0)),
    ("keep the rhythm", f"vary {A} --keep-rhythm --strength 0.7 --key own", (0, 0)),
    ("keep the pitches", f"vary {A} --keep-pitches --strength 0.7", (0, 0)),
    ("infill", f"infill {A} --keep-bars 1", (0, 16)),
    ("continue", f"continue {A}", (0, 0)),
    ("answer", f"answer {A}", (0, 0)),
    ("interpolate to another", f"interpolate {A} {B} --steps 5", (0, 0)),
    ("along a direction", f"vary {A} --strength 0.1 --attribute density=+1.5", (0, 0)),
    ("key, first and last note", "--key --F_minor --start-note F --end-note F", (0, 0)),
    ("onsets", "--onsets x..x..x.x..x..x.", (0, 0)),
    ("dense, few rests", "--density 11 --rests 0.08", (0, 0)),
    ("arrange: A, its repeat, B, the last", f"arrange {A}", (0, 0)),
    ("the 4 most syncopated of 200", "--n 200 --pick 4 --by syncopation", (0, 0)),
)


def made_by(command: str, run_dir: str) -> tuple[list[list[int]], list[list[int]]]:
    """The riffs given to a command, and those that it made, from the records it leaves. Tokens [T] each."""
    words = [word.replace("--F_minor", "F minor") for word in command.split()]
    sampled = words[0].startswith("--")
    several = not sampled or "--n" not in words
    with tempfile.TemporaryDirectory() as folder:
        count = ["--num-outputs", "4"] if several and words[0] not in ("interpolate", "arrange") else []
        with contextlib.redirect_stdout(io.StringIO()):
            code = generate.main([*words, *count, "--run-dir", run_dir, "--output-dir", folder, "--max-copy", "1", "--threads", "1"])
        if code:
            raise UserError(f"{command}: exit status {code}")
        pattern = "riffs/*.json" if sampled else "*bpm.json"
        records: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(Path(folder).glob(pattern))]
    given = [one["tokens"] for one in records[0]["given"]]
    if words[0] == "arrange":
        parts = [part["tokens"] for part in records[0]["parts"]]
        return given, [parts[2], parts[4], parts[7]]
    return given, [record["riff"]["tokens"] for record in records]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run-dir", default="runs/riff_2bar")
    parser.add_argument("--picture", default="docs/steering_examples.png")
    options = parser.parse_args(argv)
    tokenizer = TokenizerConfig()
    figure = Figure(figsize=(12, 0.95 * len(EXAMPLES) + 0.3), dpi=90, layout="constrained")
    grid = figure.subplots(len(EXAMPLES), COLUMNS)
    for row, (what, command, kept) in enumerate(EXAMPLES):
        given, made = made_by(command, options.run_dir)
        if command.startswith("interpolate"):
            given, made = given[:1], made[1:4]
        shown = [(f"{what}: given", given[0])] if given else [(what, made[0])]
        shown += [("", tokens) for tokens in made[len(shown) - bool(given) :]]
        for axes, (title, tokens) in zip(grid[row], [*shown, *[("", [])] * COLUMNS], strict=False):
            if not len(tokens):
                axes.set_axis_off()
                continue
            draw_riff(axes, np.array(tokens), tokenizer, title)
            if kept[1]:
                axes.axvspan(*kept, color=KEPT, zorder=-1)
    make_room(Path(options.picture).parent)
    save_picture(figure, Path(options.picture))
    print(options.picture)
    return 0


if __name__ == "__main__":
    run_script(main)
