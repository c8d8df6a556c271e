"""The runs behind the README's table of the MusicVAE family: trained, or gone on with, one thread each, and measured.

python -m experiments.family WHAT... --melody FOLDER --drums GROOVE_FOLDER --songs FOLDER [--output-dir runs/family] [--workers 2]

WHAT: losses, groove, short, documents, melody, trio, long; or all. A run that is finished is only measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from checkpoints import load_same_windows, load_vae
from config import VAE_FILE, SampleConfig, UserError, VAETrainConfig, run_script
from experiments.wrong_loss import wrong_loss
from family.corpus import WindowData
from family.drums import from_groove, quantized, to_groove
from family.measures import backbeat, playing
from family.windows import to_pattern
from files import make_room, save_picture
from heads import DRUMS
from latents import as_steps, encoder_steps
from measures.model_figures import evaluate, final_figures
from models import MusicVAE
from sampling import decode_steps, reconstruct, sample_riffs
from steering.ways import slerp
from training import read_log

SAMPLES = 512  # windows drawn from each model of drums
WAYS = 64  # ways between held-out windows that smoothness is measured on
WAY_STEPS = 9


@dataclass(frozen=True)
class Run:
    """One training."""

    name: str
    preset: str
    data: str  # melody, drums or songs
    flags: tuple[str, ...] = ()
    wrong: bool = False  # with the wrong loss
    published: str = ""  # what the original, or a document, says


def seeds(name: str, preset: str, data: str, count: int, flags: Sequence[str] = (), published: str = "") -> list[Run]:
    """The same run with so many seeds, each with its own split of the songs."""
    own = [("--seed", str(seed), "--split-seed", str(seed), *flags) for seed in range(count)]
    return [Run(f"{name}_{seed}", preset, data, some, published=published) for seed, some in enumerate(own)]


AS_PUBLISHED = ("--no-groove-spread", "--plan-size", "0", "--summary-size", "0")  # the loss, and the structure
STUDIES: dict[str, list[Run]] = {
    "losses": [
        Run("hierarchical, groove, categorical loss", "groove_4bar_hier_small", "drums", AS_PUBLISHED, True, "loss 400 to 450, no end"),
        Run("hierarchical, groove, groove loss", "groove_4bar_hier_small", "drums", AS_PUBLISHED, published="the open question"),
        Run("hierarchical, drum tokens", "drums_4bar_hier_v1_small", "drums",
            ("--holdout", "0.1", "--no-segment-feedback", "--dropout", "0.2", "--steps", "4000"), published="loss 24.4 at 3 700 steps"),
        Run("GrooVAE", "groove_4bar_small", "drums", AS_PUBLISHED, published="loss 43 at 28 000 steps"),
    ],
    "groove": [
        Run("groove_2bar_humanize", "groove_2bar_humanize_small", "drums"),
        Run("groove_2bar_tap", "groove_2bar_tap_small", "drums"),
        Run("groove_2bar", "groove_2bar_small", "drums"),
        Run("groove_4bar", "groove_4bar_small", "drums"),
    ],
    "short": [
        Run("drums_2bar", "drums_2bar_small", "drums", published=".979 -> .917"),
        Run("melody_4bar", "melody_4bar_hier_small", "melody"),
    ],
    "documents": [
        Run("drums_4bar_v1", "drums_4bar_hier_v1_small", "drums", published="loss .204"),
        Run("drums_4bar_v2", "drums_4bar_hier_v2_small", "drums", published="loss .050"),
        Run("drums_4bar_v3", "drums_4bar_hier_v3_small", "drums", published="loss .073"),
    ],
    "melody": seeds("melody_2bar", "melody_2bar_small", "melody", 3, published=".986 -> .951"),
    "trio": [Run("trio_16bar", "trio_16bar_small", "songs", published="melody .848 -> .753, bass .880 -> .773, drums .912 -> .863")],
    "long": [
        *seeds("melody_16bar_flat", "melody_16bar_flat_small", "melody", 3, published=".883 -> .620"),
        *seeds("melody_16bar_hier", "melody_16bar_hier_small", "melody", 3, published=".919 -> .812"),
        *seeds("melody_16bar_hier_no_plan", "melody_16bar_hier_small", "melody", 1, ("--plan-size", "0")),
        *seeds("melody_16bar_plan", "melody_16bar_plan_small", "melody", 3),
        *seeds("drums_16bar_flat", "drums_16bar_flat_small", "drums", 1, published=".884 -> .549"),
        *seeds("drums_16bar_hier", "drums_16bar_hier_small", "drums", 1, published=".928 -> .879"),
        *seeds("drums_16bar_plan", "drums_16bar_plan_small", "drums", 1),
    ],
}  # fmt: skip


# ---------------------------------------------------------------- training


def train(run: Run, folders: Mapping[str, str], output_dir: Path) -> Path:
    """Train a run, or go on with it, in a process of its own; what it says goes to its folder."""
    folder = output_dir / run.name.replace(", ", "_").replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    script = ["-m", "experiments.wrong_loss"] if run.wrong else ["train_vae.py"]
    flags = ["--preset", run.preset, "--data", folders[run.data], "--run-dir", str(folder), "--threads", "1", *run.flags]
    with (folder / "output.txt").open("w") as out:
        done = subprocess.run([sys.executable, *script, *flags], stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise UserError(f"{folder / 'output.txt'}: training ended with status {done.returncode}; it says why")
    print(f"{run.name}: done")
    return folder


# ---------------------------------------------------------------- measuring


@dataclass
class Figures:
    """What is said of a run."""

    run: Run
    windows: int  # trained on
    minutes: float  # of training, as the log's rate has it
    loss: float  # reconstruction + beta * charged KL of the finished model, on what it trained on
    first_loss: float  # of the first log line
    figures: dict[str, dict[str, float]]  # see final_figures
    more: dict[str, float] = field(default_factory=dict)


def measured(run: Run, folder: Path) -> Figures:
    """Everything about a finished run."""
    path = folder / VAE_FILE
    vae, content = load_vae(path)
    windows = load_same_windows(content, vae.tokenizer, "", path)
    log = [line for line in read_log(folder / "train_vae.jsonl") if line["split"] == "train"]
    trained = VAETrainConfig(**{**content["options"]["train"], "init_from": "none"})
    with wrong_loss() if run.wrong else contextlib.nullcontext():
        figures = final_figures(vae, windows.shown, trained, torch.device("cpu"), apart=0.5)
        loss = evaluate(vae, windows.shown["train"], trained, torch.device("cpu"))["objective"]
        more = more_of(vae, windows)
    rate = np.median([line["riffs_per_second"] for line in log])
    return Figures(
        run,
        len(windows.train_index),
        log[-1]["step"] * trained.batch_size / rate / 60,
        loss,
        log[0]["loss"],
        figures,
        more,
    )


@torch.inference_mode()
def more_of(vae: MusicVAE, windows: WindowData) -> dict[str, float]:
    """What some representations have besides: a backbeat, playing; and how smooth the ways between held-out windows are."""
    found = {}
    kind = vae.tokenizer.representation
    shown = windows.shown["held out" if len(windows.shown["held out"]) else "train"]
    if kind in ("drums", "groove"):
        made = sample_riffs(vae, None, range(SAMPLES), SampleConfig(temperature=0.5))[0]
        for name, steps in (("samples", made), ("people", shown)):
            hits = np.stack([to_pattern(one, vae.tokenizer).hits for one in steps])
            found |= {f"{name} {key}": value for key, value in backbeat(hits, vae.tokenizer).items()}
    if kind == "groove":
        found |= how_it_plays(vae, as_steps(shown))
    return found | smoothness(vae, shown)


def how_it_plays(vae: MusicVAE, steps: torch.Tensor) -> dict[str, float]:
    """Spread of loudness and timing, and how far both lie from people's, of a score and of what a model plays. steps: [windows, T, 27]"""
    score = torch.from_numpy(to_groove(quantized(from_groove(steps.numpy()))))
    found, made = {}, {"people": steps, "score": score, "played": reconstruct(vae, steps)}
    if vae.config.groove_spread:
        made["drawn"] = reconstruct(vae, steps, temperature=1.0)
    parts = {"velocity": slice(DRUMS, 2 * DRUMS), "offset": slice(2 * DRUMS, None)}
    for name, some in made.items():
        found |= {f"{name} {key}": value for key, value in playing(some.numpy()).items()}
        both = (some[..., :DRUMS] > 0.5) & (steps[..., :DRUMS] > 0.5)
        for part, columns in parts.items():
            ours, theirs = some[..., columns][both], steps[..., columns][both]
            found[f"{name} {part} error"] = float((ours - theirs).square().mean().sqrt())
            if name in ("played", "drawn"):
                found[f"{name} {part} correlation"] = float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1])
    return found


def smoothness(vae: MusicVAE, shown: np.ndarray) -> dict[str, float]:
    """How much the music changes between neighbours on a way, and between its ends: share of steps that differ, mean over some ways."""
    steps = encoder_steps(as_steps(shown[np.random.default_rng(0).permutation(len(shown))[: 2 * WAYS]]), vae.tokenizer)
    mu = vae.encoder(steps)[0]
    near, far, half = [], [], []
    for begin, end in zip(mu[::2], mu[1::2], strict=False):
        z = slerp(begin, end, torch.linspace(0, 1, WAY_STEPS))
        made = decode_steps(vae, z, torch.zeros(len(z), vae.tokenizer.steps, vae.embedding.draws), SampleConfig(temperature=0))
        right = vae.embedding.right(made.repeat_interleave(WAY_STEPS, dim=0), made.repeat(WAY_STEPS, *[1] * (made.dim() - 1)))
        differ = 1 - right.float().mean(dim=1).reshape(WAY_STEPS, WAY_STEPS).numpy()  # each from each
        near.append(np.mean([differ[i][i + 1] for i in range(WAY_STEPS - 1)]))
        half.append(np.mean([differ[i][i + WAY_STEPS // 2] for i in range(WAY_STEPS // 2 + 1)]))
        far.append(differ[0][-1])
    same = slerp(mu[0], mu[0], torch.linspace(0, 1, 3)), slerp(mu[0], -mu[0], torch.linspace(0, 1, 3))
    assert all(torch.isfinite(z).all() for z in same)
    return {"neighbours differ": float(np.mean(near)), "half a way apart": float(np.mean(half)), "ends differ": float(np.mean(far))}


# ---------------------------------------------------------------- tables

COLUMNS = {
    "accuracy": "teacher-forced", "free_accuracy": "free-running", "onset_accuracy": "onsets", "free_accuracy_sampled": "z and T = 1",
    "onset_accuracy_sampled": "its onsets", "reconstruction": "nats", "kl": "KL", "negative_elbo": "-ELBO",
}  # fmt: skip


def table(found: Sequence[Figures]) -> str:
    """A study as a table, held-out figures where something is held out."""
    lines = [
        f"| run | windows | minutes | loss | {' | '.join(COLUMNS.values())} | published |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for one in found:
        side = "held out" if "held out" in one.figures else "train"
        digits = {"reconstruction": 1, "kl": 1, "negative_elbo": 1}
        values = " | ".join(f"{one.figures[side][key]:.{digits.get(key, 3)}f}" if key in one.figures[side] else "" for key in COLUMNS)
        name = f"{one.run.name} (`{one.run.preset}`{' on what it trained on' if side == 'train' else ''})"
        loss = f"{one.loss:.3g} (first {one.first_loss:.3g})"
        lines.append(f"| {name} | {one.windows} | {one.minutes:.0f} | {loss} | {values} | {one.run.published} |")
    return "\n".join(lines)


def curves(runs: Sequence[Run], folders: Sequence[Path], path: Path) -> None:
    """Training losses of a study in the units of the originals (reconstruction + beta * KL beyond the free bits), and accuracies."""
    figure = Figure(figsize=(9, 3.2), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for run, folder, color in zip(runs, folders, ("#d1603d", "#1f3b57", "#3f8f5f", "#c99a2e"), strict=False):
        log = [line for line in read_log(folder / "train_vae.jsonl") if line["split"] == "train"]
        steps = [line["step"] for line in log]
        if not run.wrong:  # that one has no lower bound
            left.plot(steps, [line["loss"] for line in log], color=color, linewidth=1.2)
        right.plot(steps, [line["accuracy"] for line in log], color=color, linewidth=1.2, label=run.name)
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 4, 6)))
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_title("training loss", fontsize=9)
    right.set_title("steps that are right, teacher-forced", fontsize=9)
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("step (64 windows of four bars)", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=6.5, loc="upper left")
    make_room(path.parent)
    save_picture(figure, path)
    print(path)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="+", choices=[*STUDIES, "all"])
    parser.add_argument("--melody", default="", help="folder of melodies (MIDI)")
    parser.add_argument("--drums", default="", help="folder of the Groove MIDI Dataset")
    parser.add_argument("--songs", default="", help="folder of multi-track songs")
    parser.add_argument("--output-dir", default="runs/family")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    options = parser.parse_args(argv)
    folders = {"melody": options.melody, "drums": options.drums, "songs": options.songs}
    studies = {name: runs for name, runs in STUDIES.items() if name in options.what or "all" in options.what}
    for run in (run for runs in studies.values() for run in runs):
        if not folders[run.data]:
            raise UserError(f"{run.name}: give --{run.data} FOLDER")
    with ThreadPoolExecutor(options.workers) as pool:
        jobs = {name: [pool.submit(train, run, folders, Path(options.output_dir)) for run in runs] for name, runs in studies.items()}
        done = {name: [job.result() for job in some] for name, some in jobs.items()}
    torch.set_num_threads(1)
    for name, runs in studies.items():
        if name in ("losses", "documents"):
            curves(runs, done[name], Path(options.output_dir) / f"{name}.png")
        found = [measured(run, folder) for run, folder in zip(runs, done[name], strict=True)]
        print(f"\n## {name}\n\n{table(found)}\n")
        for one in found:
            if one.more:
                print(f"{one.run.name}: " + ", ".join(f"{key} {value:.3f}" for key, value in one.more.items()))
    return 0


if __name__ == "__main__":
    run_script(main)
