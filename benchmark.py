"""Measure speed and memory on this machine, and how much of what it could do at best is reached.

    python benchmark.py [--repeats 5] [--list] [--only WORD ...] [--compare OLD.json] [--original PYTHON] [--skip-job] ...

Prints medians with their spread and writes them as benchmark.json. Beside products stands the share of their floor that is reached:
multiply-adds over the rate of matrix products, measured before each measurement, or the bytes of the weights over the bandwidth, measured
once. Absolute times belong to one machine, at one time; compare ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import DIFFUSION_FILE, VAE_FILE, RunConfig, UserError, run_script
from files import make_room, write_file
from speed.original import RIVAL, Original

if TYPE_CHECKING:
    from speed.bench import Bench

JOB = ("train_vae.py", "train_diffusion.py", "generate.py", "check_midi.py", "visualize_tokens.py", "evaluate.py")


def measure_job(folder: Path) -> dict[str, Any]:
    """The main job with its defaults, in a folder of its own: seconds and peak memory of each script."""
    from speed.bench import run_measured

    results = {}
    for script in JOB:
        more = ["--restart"] if script.startswith("train") else []
        seconds, memory = run_measured([sys.executable, script, "--run-dir", str(folder), *more])
        results[script] = {"seconds": round(seconds, 2), "peak_mb": round(memory)}
        print(f"{script:24s} {seconds:8.1f} s   {memory:6.0f} MB", flush=True)
    total, most = sum(row["seconds"] for row in results.values()), max(row["peak_mb"] for row in results.values())
    print(f"{'all':24s} {total:8.1f} s   {most:6.0f} MB")
    sizes = {f"{name}_bytes": (folder / name).stat().st_size for name in (VAE_FILE, DIFFUSION_FILE)}
    return {**results, "all": {"seconds": round(total, 2), "peak_mb": most}, **sizes}


def read_record(path: Path) -> dict[str, dict[str, Any]]:
    """The figures of an earlier call.

    Raises:
        UserError: it is no such record.
    """
    if not path.is_file():
        raise UserError(f"--compare {path}: no such file; give a benchmark.json of before")
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
        whole = {name: figure for name, figure in figures.items() if {"median", "min", "max", "unit"} <= set(figure)}
        if not all(isinstance(figure[key], int | float) for figure in whole.values() for key in ("median", "min", "max")):
            raise ValueError
        return whole
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--compare {path}: is no benchmark.json of this version of benchmark.py") from None


def all_measures(largest: float, original: Original | None = None) -> list[Callable[[Bench], None]]:
    """What takes the figures, group by group."""
    from speed import model_rates, tool_rates

    return [
        model_rates.measure_riffs,
        partial(model_rates.measure_original, original=original),
        partial(model_rates.measure_family, most=largest),
        *(model_rates.measure_language_models, tool_rates.measure_steering, tool_rates.measure_guitar, tool_rates.measure_files),
        *(tool_rates.measure_processes, tool_rates.measure_startup),
    ]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """
    Raises:
        UserError: values out of range, or a record that would be overwritten by what it is to be compared with.
    """
    summary, form = (__doc__ or "").splitlines()[0], argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=summary, formatter_class=form)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each figure")
    parser.add_argument("--output-dir", default="runs/benchmark", help="where the record and the job's run go")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 measures how many are worth it")
    parser.add_argument("--list", action="store_true", help="say what the figures are called (with --only, those), and measure nothing")
    only = "figures whose names hold one of these words, and no job; their record is benchmark_some.json"
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help=only)
    parser.add_argument("--compare", default="", metavar="OLD.json", help="an earlier record to set beside: how many times as good each is")
    rival = "an interpreter that has TensorFlow and magenta (see README.md), to set the original MusicVAE beside ours by turns"
    parser.add_argument("--original", default="", metavar="PYTHON", help=rival)
    parser.add_argument("--device", default="cpu", help="cuda (or auto, where there is one): training and decoding on a GPU alone")
    parser.add_argument("--largest", type=float, default=20, help="largest model of the family to measure, in millions of parameters")
    parser.add_argument("--skip-job", action="store_true", help="figures only, not the main job")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: give 1 or more")
    if not all(word.strip() for word in options.only):
        raise UserError("--only: one of the words is empty; --list names the figures")
    RunConfig(threads=options.threads, device=options.device)  # within the limits of the other scripts
    if not options.largest > 0:
        raise UserError(f"--largest {options.largest:g}: give millions of parameters, more than 0")
    if options.original and shutil.which(options.original) is None:
        raise UserError(f"--original {options.original}: is nothing that can be run; give a Python interpreter")
    options.record = Path(options.output_dir).resolve() / ("benchmark_some.json" if options.only else "benchmark.json")
    if options.compare and Path(options.compare).resolve() == options.record:
        raise UserError(f"--compare {options.compare}: this call would overwrite it; give another --output-dir")
    return options


def require_figures(options: argparse.Namespace, wanted: Sequence[str], before: Collection[str]) -> None:
    """
    Args:
        wanted: names of the figures that are asked for.
        before: those of the record to compare with, if there is one.

    Raises:
        UserError: none is asked for, or a rival is, or is not, for nothing, or a record.
    """
    beside = [name for name in wanted if name.startswith(RIVAL)]
    if not wanted:
        raise UserError(f"--only {' '.join(options.only)}: no figure has such a name; --list names them all")
    if len(beside) == len(wanted) and not options.original:
        raise UserError(f"--only {' '.join(options.only)}: these figures need --original PYTHON, see README.md")
    if options.original and not beside:
        raise UserError(f"--original {options.original}: no figure that is asked for needs it; leave it out")
    measured = set(wanted) if options.original else set(wanted) - set(beside)
    if options.compare and not measured & set(before):
        raise UserError(f"--compare {options.compare}: none of the figures that are asked for is in it; give another record")


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    before = read_record(Path(options.compare)) if options.compare else {}

    import torch

    import training
    from speed import model_rates
    from speed.bench import Bench, Listing, compared, peak_megabytes
    from speed.machine import at_once, measure_machine, product_rate

    original = Original(options.original) if options.original else None
    device = training.choose_device(options.device)
    on_cpu, wait = device.type == "cpu", at_once if device.type == "cpu" else partial(torch.cuda.synchronize, device)

    def measures(rival: Original | None) -> list[Callable[[Bench], None]]:
        return all_measures(options.largest, rival) if on_cpu else [partial(model_rates.measure_device, device=device)]

    listing = Listing(options.only)
    for measure in measures(original or Original(sys.executable)):
        measure(listing)
    if options.list:
        print("\n".join(listing.names))
        return 0
    require_figures(options, listing.names, before)
    if original is not None:
        original.start()
    make_room(options.record.parent)

    threads = training.choose_threads(options.threads)
    training.keep_freed_memory()
    machine = measure_machine(device, wait)
    rates = ", ".join(f"{kind} {machine.multiply_adds[getattr(torch, kind)] / 1e9:.0f}" for kind in ("float32", "bfloat16"))
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {threads}")
    print(f"at best, billions a second: multiply-adds {rates}; bytes {machine.cached / 1e9:.0f} cached, {machine.uncached / 1e9:.0f} not")
    bench = Bench(machine, options.repeats, options.only, wait, partial(product_rate, device=device, wait=wait))
    record: dict[str, Any] = {"threads": torch.get_num_threads(), "machine": machine.facts(), "figures": bench.results}
    path = options.record.with_name("benchmark_stopped.json") if options.record.exists() else options.record
    try:
        with original or contextlib.nullcontext():
            for measure in measures(original):
                measure(bench)
        record["peak_mb"] = round(peak_megabytes())
        if not options.skip_job and not options.only and on_cpu:
            record["job"] = measure_job(options.record.parent / "job")
        path = options.record
    finally:  # what was measured before Ctrl-C stays, and is no reason to lose a whole record
        if bench.results:
            write_file(path, (json.dumps(record, indent=1) + "\n").encode())
    if before:
        lines = compared(bench.results, before) or ["no figure is in both, in the same unit and above 0"]
        print(f"\nbeside {options.compare} (above 1 is better now):\n" + "\n".join(lines))
    print(options.record)
    return 0


if __name__ == "__main__":
    run_script(main)
