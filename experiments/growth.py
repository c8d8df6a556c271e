"""How time and memory grow with the number of windows, their length, and the batch: a table and a picture (docs/growth.png).

python -m experiments.growth [--most 1000000] [--output-dir runs/growth]

Each row is measured in a process of its own, one thread, on random melodies (training and search cost what real ones do). --most
10000000 adds a row of 10 million windows: 320 MB of tokens that are mapped, not read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from config import TOKEN_FILE, TokenizerConfig, UserError, run_script
from files import new_picture, save_picture, write_file
from speed.bench import peak_megabytes
from speed.machine import seconds

ROOT = Path(__file__).resolve().parent.parent
PER_SONG = 100  # windows
ASKED = 64  # windows or riffs that the nearest is looked up for
LENGTHS, BATCHES = (2, 4, 8, 16), (16, 64, 256, 1024)
STEPS = 5  # optimizer steps that a rate is taken from


# ---------------------------------------------------------------- what is measured, in a process of its own


def write_windows(path: Path, count: int, tokenizer: TokenizerConfig) -> None:
    """A token file of random melodies, some at a time."""
    from family.corpus import write_token_file

    songs = -(-count // PER_SONG)
    sizes = [min(PER_SONG, count - i * PER_SONG) for i in range(songs)]
    rng, options, steps = np.random.default_rng(0), preset_of(tokenizer.bars), path.with_suffix(".part")
    with steps.open("wb") as out:
        for at in range(0, count, 1 << 14):
            out.write(random_lines(rng, min(1 << 14, count - at), tokenizer.steps).tobytes())
    facts = {"reason": "", "detail": "", "bpm": 100.0}
    rows = [{"file": f"{i}.mid", "song": f"{i}", "windows": n, **facts, "programs": {"0": n}, "bars": [1] * n} for i, n in enumerate(sizes)]
    data = dataclasses.replace(options.dataset, data=str(path.parent))
    write_token_file(path, steps, rows, {"made_from": "", "fingerprint": f"random {count}"}, data, options.songs, tokenizer)
    steps.unlink()


def random_lines(rng: np.random.Generator, count: int, steps: int) -> np.ndarray:
    """Melodies that hold each note for a while. uint8 [count, steps]"""
    starts = rng.random((count, steps)) < 0.4
    return np.where(starts, rng.integers(48, 84, (count, steps)), np.where(np.cumsum(starts, axis=1) > 0, 128, 0)).astype(np.uint8)


def preset_of(bars: int) -> Any:
    from presets import TrainVAE, preset_options

    options = preset_options(TrainVAE, "melody_2bar_small")
    tokenizer = dataclasses.replace(options.tokenizer, bars=bars)
    return dataclasses.replace(options, tokenizer=tokenizer)


def measure_count(count: int, folder: Path) -> dict[str, float]:
    """Loading a token file, a batch, an optimizer step, and looking for what is nearest."""
    from examples import load_examples
    from family.measures import KnownWindows

    options, path = preset_of(2), folder / TOKEN_FILE
    write_windows(path, count, options.tokenizer)
    before = peak_megabytes()
    data = dataclasses.replace(options.dataset, data=str(path))
    found: dict[str, float] = {}
    begin = time.perf_counter()
    examples = load_examples(data, options.songs, options.tokenizer, folder, 0)
    found["open, s"] = time.perf_counter() - begin
    found["first batch, s"] = seconds(lambda: examples.batch(0, 64))
    found["batch, ms"] = min(1000 * seconds(lambda step=step: examples.batch(step, 64)) for step in range(1, 20))
    train = trainer(options, lambda step: examples.batch(step, 64))
    train(1)
    found["step, ms"] = 1000 * min(seconds(lambda: train(1)) for _ in range(STEPS))
    found["memory of training, MB"] = peak_megabytes() - before
    tokens = np.load(path, mmap_mode="r")[:1_000_000]
    begin = time.perf_counter()
    known = KnownWindows(np.asarray(tokens), options.tokenizer)
    found["index of windows, s"] = time.perf_counter() - begin
    asked = random_lines(np.random.default_rng(1), ASKED, 32)
    found["nearest of 64 windows, s"] = seconds(lambda: known.nearest(asked))
    return found


def measure_riffs(count: int, folder: Path) -> dict[str, float]:
    """Novelty: the nearest training riff by edit distance, and the longest passage in common."""
    from measures.novelty import TrainingRiffs

    rng, tokenizer = np.random.default_rng(0), TokenizerConfig()
    riffs = random_lines(rng, count, 32).astype(np.int64)
    before, begin = peak_megabytes(), time.perf_counter()
    known = TrainingRiffs(riffs, [""] * count, tokenizer)
    found = {"index of riffs, s": time.perf_counter() - begin}
    asked = random_lines(np.random.default_rng(1), ASKED, 32).astype(np.int64)
    found["nearest of 64 riffs, s"] = seconds(lambda: known.nearest(asked))
    return found | {"memory of novelty, MB": peak_megabytes() - before}


def trainer(options: Any, batch: Callable[[int], np.ndarray]) -> Callable[[int], None]:
    """So many optimizer steps on batches."""
    import torch

    import training
    from latents import as_steps
    from models import MusicVAE
    from speed.model_rates import train_step

    training.keep_freed_memory()
    vae = MusicVAE(options.model, options.tokenizer)
    optimizer = training.make_optimizer(vae)
    precision = training.choose_precision(options.train.precision, torch.device("cpu"))

    def train(steps: int) -> None:
        for step in range(steps):
            train_step(vae, optimizer, as_steps(batch(step)), options.train, precision)

    return train


def measure_model(bars: int, batch: int) -> dict[str, float]:
    """Training and sampling windows of so many bars, so many at a time."""
    import torch

    from config import SampleConfig
    from models import MusicVAE
    from sampling import decode_steps

    options = preset_of(bars)
    before, steps = peak_megabytes(), random_lines(np.random.default_rng(0), batch, options.tokenizer.steps).astype(np.int64)
    train = trainer(options, lambda step: steps)
    train(1)
    found = {"step, ms": 1000 * min(seconds(lambda: train(1)) for _ in range(STEPS)), "memory of training, MB": peak_megabytes() - before}
    vae = MusicVAE(options.model, options.tokenizer).eval()
    z, uniform = torch.randn(batch, options.model.z_size), torch.rand(batch, options.tokenizer.steps, 1)
    found["sampling, ms"] = 1000 * min(seconds(lambda: decode_steps(vae, z, uniform, SampleConfig(temperature=1.0))) for _ in range(3))
    return found


# ---------------------------------------------------------------- rows, table, picture


def measured(*words: str | int) -> dict[str, float]:
    """A row, by a process of its own.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, "-m", "experiments.growth", "--row", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)}: ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def row(kind: str, numbers: Sequence[int]) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    if kind == "model":
        return measure_model(*numbers)
    with tempfile.TemporaryDirectory() as folder:
        return (measure_count if kind == "windows" else measure_riffs)(numbers[0], Path(folder))


def table(head: str, rows: dict[int, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    lines = [f"| {head} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, found in rows.items():
        lines.append(f"| {key:,} | " + " | ".join(f"{found[name]:.3g}" if name in found else "" for name in names) + " |")
    return "\n".join(lines)


def picture(tables: dict[str, dict[int, dict[str, float]]]) -> Figure:
    """Each figure over what grows, on logarithmic axes: a straight line of slope 1 is linear."""
    figure = new_picture(11, 4.2)
    for at, (head, rows) in enumerate(tables.items()):
        axes = figure.add_subplot(1, len(tables), at + 1)
        for name in dict.fromkeys(name for found in rows.values() for name in found):
            points = [(key, found[name]) for key, found in rows.items() if found.get(name, 0) > 0]
            axes.plot(*zip(*points, strict=True), "--" if "MB" in name else "-", marker=".", linewidth=1, label=name)
        first = min(rows)
        scale = max(rows[first].values())
        axes.plot(list(rows), [scale * key / first for key in rows], ":", color="#b9b9b9", linewidth=1, label="linear")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.9g}"))
            axis.set_minor_formatter(NullFormatter())
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 10 * max(max(found.values()) for found in rows.values())))
        axes.set_xticks(list(rows))
        axes.minorticks_off()
        axes.set_xlabel(head, fontsize=8)
        axes.tick_params(labelsize=6.5)
        axes.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return figure


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="windows, at most")
    parser.add_argument("--output-dir", default="runs/growth", help="where growth.md and growth.png go")
    parser.add_argument("--row", nargs="+", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.row:
        print(json.dumps(row(options.row[0], [int(word) for word in options.row[1:]])))
        return 0
    if options.most < 100:
        raise UserError(f"--most {options.most}: give 100 or more")
    counts = [10**power for power in range(2, 9) if 10**power <= options.most]
    tables: dict[str, dict[int, dict[str, float]]] = {"windows": {}, "bars, batch 64": {}, "batch, 2 bars": {}}
    for count in counts:
        tables["windows"][count] = measured("windows", count) | (measured("riffs", count) if count <= 1_000_000 else {})
        print(count, tables["windows"][count], flush=True)
    for bars in LENGTHS:
        tables["bars, batch 64"][bars] = measured("model", bars, 64)
    for batch in BATCHES:
        tables["batch, 2 bars"][batch] = measured("model", 2, batch)
    text = "\n\n".join(table(head, rows) for head, rows in tables.items())
    print(text)
    folder = Path(options.output_dir)
    write_file(folder / "growth.md", (text + "\n").encode())
    save_picture(picture(tables), folder / "growth.png")
    print(folder / "growth.png")
    return 0


if __name__ == "__main__":
    run_script(main)
