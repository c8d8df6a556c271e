"""What the size of the folder, the base model and beta do: the learning curve and the beta sweep of the README.

    python -m experiments.sweeps curve [--seeds 0,1,2] [--workers 2]     8 to all riffs, from scratch and fine-tuned
    python -m experiments.sweeps beta                                    beta 0.003 to 1, fine-tuned on all riffs

Every point is a run of the train scripts and of evaluate.py with their defaults, but for what is swept (and 1000 steps for the
priors of the learning curve); seed S also picks split S of the songs. Runs are kept in runs/sweeps and taken from there when the
command is given again; runs of other options are refused, runs of other code named. Prints tables and draws
docs/learning_curve.png or docs/beta_sweep.png.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from config import UserError, run_script
from files import save_picture, write_file
from measures.evaluation import HELD, MODEL

ROOT = Path(__file__).resolve().parent.parent
SIZES = (8, 16, 32, 64, 0)  # riffs to train on; 0 is all of them
BETAS = (0.003, 0.03, 0.3, 1.0)
SHORT_PRIOR = ("--steps", "1000")  # of the learning curve: enough to see how new and how silent the riffs are
START = {"from scratch": ["--init-from", "none"], "fine-tuned": []}
COLORS = {"from scratch": "#8fa9c0", "fine-tuned": "#d1603d"}


def run_point(folder: Path, seed: int, flags: Sequence[str], prior: Sequence[str], riffs: int) -> dict[str, Any]:
    """Train and judge one run, unless it is there. -> its metrics.json"""
    found, made = folder / "evaluation" / "metrics.json", folder / "sweep.json"
    common = ["--run-dir", str(folder), "--threads", "1", "--seed", str(seed)]
    commands = [
        ["train_vae.py", *common, "--split-seed", str(seed), "--restart", *flags],
        ["train_diffusion.py", *common, "--restart", *prior],
        ["evaluate.py", *common, "--num-outputs", str(riffs), "--no-pictures"],
    ]
    record = {"commands": commands, "code": code_fingerprint()}
    if found.exists():
        old = json.loads(made.read_text(encoding="utf-8")) if made.exists() else {}
        if old.get("commands") != commands:
            raise UserError(f"{folder}: was made with other options; move it away, or give another --output-dir")
        if old["code"] != record["code"]:
            print(f"{folder}: was made with other code than this; move it away to make it again", file=sys.stderr)
    else:
        write_file(made, json.dumps(record).encode())  # first: a run that is cut off is made again
        for command in commands:
            done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{' '.join(command)}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
        print(folder, flush=True)
    return json.loads(found.read_text(encoding="utf-8"))


def code_fingerprint() -> str:
    """Changes with any script at the top level."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one run that the sweeps show."""
    vae, shown = record["models"][0]["vae"], record["metrics"]
    values = {name: shown[key]["rows"][MODEL]["value"] for name, key in {
        "distance": "nearest_distance", "rests": "rest_ratio", "mmd": "mmd", "scale": "scale_consistency",
    }.items()}  # fmt: skip
    values |= {f"mmd, {name}": shown["mmd"]["rows"][name]["value"] for name in ("N(0, I) prior", "one Gaussian", "Gaussian mixture", HELD)}
    values |= {
        "held-out distance": shown["nearest_distance"]["rows"][HELD]["value"],
        "held-out rests": shown["rest_ratio"]["rows"][HELD]["value"],
    }
    values |= {"copies": shown["copies"]["rows"][MODEL]["value"]}
    held = vae["held out"]
    return values | {"nats": held["reconstruction"], "kl": held["kl"], "onsets": held["onset_accuracy"], "-elbo": held["negative_elbo"]}


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, least and most."""
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(axes: Any, x: Sequence[float], runs: Sequence[Sequence[float]], color: str, label: str, style: str = "-") -> None:
    """A line through the means, and the range over the seeds."""
    axes.plot(x, [np.mean(values) for values in runs], style, color=color, label=label, marker="o", ms=4)
    axes.fill_between(x, [min(values) for values in runs], [max(values) for values in runs], color=color, alpha=0.2, lw=0)


def save(figure: Figure, name: str) -> None:
    save_picture(figure, ROOT / "docs" / name)
    print(f"docs/{name}")


def curve(folder: Path, seeds: Sequence[int], pool: ThreadPoolExecutor, riffs: int) -> None:
    points = {
        (start, size): [
            pool.submit(run_point, folder / f"{start.replace(' ', '-')}_{size or 'all'}_seed{seed}", seed,
                        [*flags, "--most-riffs", str(size)] if size else flags, SHORT_PRIOR, riffs)
            for seed in seeds
        ]
        for size in SIZES for start, flags in START.items()
    }  # fmt: skip
    found = {key: [figures(job.result()) for job in jobs] for key, jobs in points.items()}
    names = ("nats", "kl", "onsets", "distance", "rests")
    print("| riffs | start | held-out reconstruction, nats | KL, nats | onset accuracy | distance to training riffs | rest ratio |")
    print("|---|---|---|---|---|---|---|")
    for (start, size), runs in found.items():
        cells = " | ".join(spread([run[name] for run in runs], 1 if name in ("nats", "kl") else 2) for name in names)
        print(f"| {size or 'all'} | {start} | {cells} |")
    figure = Figure(figsize=(11, 3), dpi=100, layout="constrained")
    titles = ("reconstruction, nats", "KL, nats", "onset accuracy", "distance to training riffs", "rest ratio of new riffs")
    for axes, name, title in zip(figure.subplots(1, 5), names, titles, strict=True):
        x = [size or 128 for size in SIZES]
        for start in START:
            draw(axes, x, [[run[name] for run in found[start, size]] for size in SIZES], COLORS[start], start)
        real = {"distance": "held-out distance", "rests": "held-out rests"}.get(name)
        if real:
            axes.plot(x, [np.mean([run[real] for run in found["fine-tuned", size]]) for size in SIZES], ":", color="black", label="people")
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(v) for v in x])
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("training riffs", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    save(figure, "learning_curve.png")


def beta(folder: Path, seeds: Sequence[int], pool: ThreadPoolExecutor, riffs: int) -> None:
    jobs = {
        value: [
            pool.submit(run_point, folder / f"beta{value:g}_seed{seed}", seed,
                        ["--beta", str(value)], [], riffs)
            for seed in seeds
        ]
        for value in BETAS
    }  # fmt: skip
    found = {value: [figures(job.result()) for job in some] for value, some in jobs.items()}
    rivals = ("mmd", "mmd, N(0, I) prior", "mmd, one Gaussian", "mmd, Gaussian mixture", f"mmd, {HELD}")
    print("| beta | nats | KL, nats | onset accuracy | MMD^2: diffusion | N(0, I) | one Gaussian | mixture | real riffs | distance |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for value, runs in found.items():
        cells = [spread([run[name] for run in runs], 1) for name in ("nats", "kl")]
        cells += [spread([run[name] for run in runs]) for name in ("onsets", *rivals, "distance")]
        print(f"| {value:g} | {' | '.join(cells)} |")
    figure = Figure(figsize=(11, 3), dpi=100, layout="constrained")
    panels = {
        "held-out reconstruction, nats": {"nats": "held out"}, "KL, nats": {"kl": "held out"},
        "MMD^2 to held-out riffs": dict(zip(rivals, ("diffusion", "N(0, I)", "one Gaussian", "mixture", "training riffs"), strict=True)),
        "distance to training riffs": {"distance": "new riffs", "held-out distance": "people"},
    }  # fmt: skip
    colors = ("#d1603d", "#1f3b57", "#8fa9c0", "#7a9a5b", "#000000")
    for axes, (title, names) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        for color, (name, label) in zip(colors, names.items(), strict=False):
            style = ":" if label in ("people", "training riffs") else "-"
            draw(axes, BETAS, [[run[name] for run in found[value]] for value in BETAS], color, label, style)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("beta", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.set_ylim(top=axes.get_ylim()[1] + 0.25 * (axes.get_ylim()[1] - axes.get_ylim()[0]))  # room for the legend
            axes.legend(frameon=False, fontsize=7, loc="upper right", ncols=-(-len(names) // 3))
    save(figure, "beta_sweep.png")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("curve", "beta"))
    parser.add_argument("--seeds", default="0,1,2", help="training seeds, each with its own split of the songs")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--num-outputs", type=int, default=1000, help="riffs drawn from each model")
    parser.add_argument("--output-dir", default="runs/sweeps")
    options = parser.parse_args(argv)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with ThreadPoolExecutor(options.workers) as pool:
        {"curve": curve, "beta": beta}[options.what](Path(options.output_dir), seeds, pool, options.num_outputs)
    return 0


if __name__ == "__main__":
    run_script(main)
