"""Measure speed and memory on this machine: the main job script by script, training and sampling rates.

    python benchmark.py [--repeats 5] [--output-dir runs/benchmark] [--skip-job]

Prints medians with their spread and writes them as benchmark.json. Absolute times belong to one machine; compare ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import training
from checkpoints import load_vae
from config import (
    BASE_MODEL,
    DIFFUSION_FILE,
    GROOVE_SIZE,
    VAE_FILE,
    DataConfig,
    GuitarConfig,
    SampleConfig,
    SoundConfig,
    SteerConfig,
    TokenizerConfig,
    UserError,
    VAETrainConfig,
    run_script,
)
from dataset import load_riffs
from diffusion import LatentDiffusion
from family.presets import FAMILY
from files import write_file
from guitar.fretboard import finger, fretboard
from guitar.sound import render
from language_model import LanguageModel
from lm_sampling import EventGrammar, continue_sequences
from midi_utils import riffs_to_midi, tokens_to_notes
from models import Draws, MusicVAE, kl_cost, kl_nats
from output.outputs import companions
from pieces import Vocabulary, event_vocabulary
from presets import TrainDiffusion, TrainLM, TrainVAE, preset_options
from sampling import decode_steps, sample_riffs
from steering import from_riff
from steering.arranging import arrange, parse_form
from steering.drawing import Wish, draw
from steering.picking import pick, qualities
from steering.requests import settled, wish_of

ROOT = Path(__file__).parent
SONGS = 200  # to cut
JOB = ("train_vae.py", "train_diffusion.py", "generate.py", "check_midi.py", "visualize_tokens.py", "evaluate.py")


def run_measured(command: Sequence[str]) -> tuple[float, float]:
    """Run a command. -> wall seconds, peak memory of its largest process in MB (0 where the system does not tell)"""
    probe = (
        "import resource,subprocess,sys;r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(r)"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", probe, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    unit = 1024 if platform.system() == "Linux" else 1024 * 1024
    return time.perf_counter() - begin, int(done.stdout.split()[-1]) / unit


def measure_job(folder: Path) -> dict[str, dict[str, float]]:
    """The main job with its defaults, in a folder of its own."""
    results = {}
    for script in JOB:
        seconds, memory = run_measured(
            [sys.executable, script, "--run-dir", str(folder), *(["--restart"] if script.startswith("train") else [])]
        )
        results[script] = {"seconds": round(seconds, 2), "peak_mb": round(memory)}
        print(f"{script:24s} {seconds:8.1f} s   {memory:6.0f} MB", flush=True)
    results["all"] = {
        "seconds": round(sum(row["seconds"] for row in results.values()), 2),
        "peak_mb": max(row["peak_mb"] for row in results.values()),
    }
    print(f"{'all':24s} {results['all']['seconds']:8.1f} s   {results['all']['peak_mb']:6.0f} MB")
    return results


def repeated(name: str, unit: str, work: Callable[[], float], repeats: int) -> dict[str, float]:
    """Median, least and most of a figure over repeats, after one that does not count."""
    work()
    values = sorted(work() for _ in range(repeats))
    result = {"median": statistics.median(values), "min": values[0], "max": values[-1]}
    print(f"{name:44s} {result['median']:10.4g} {unit} ({values[0]:.4g} to {values[-1]:.4g})", flush=True)
    return {key: float(f"{value:.5g}") for key, value in result.items()}


def training_rate(folder: Path, script: str, steps: int, *flags: str) -> float:
    """Examples per second that a train script itself reports, over its first steps. Data and evaluation are not in it."""
    arguments = ["--steps", str(steps), "--log-interval", str(steps), "--run-dir", str(folder), "--restart", *flags]
    subprocess.run([sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    log = training.read_log(folder / f"{Path(script).stem}.jsonl")
    return next(value for line in log for name, value in line.items() if name.endswith("_per_second"))


def sampling_seconds(vae: MusicVAE, diffusion: LatentDiffusion, count: int) -> float:
    begin = time.perf_counter()
    sample_riffs(vae, diffusion, range(count), SampleConfig())
    return time.perf_counter() - begin


def write_pieces(folder: Path, riffs_each: int = 16) -> None:
    """Pieces to train an event model on: riffs of midi_riffs in a row, two minutes or so each."""
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    for first in range(0, len(riff_data.riffs) - riffs_each + 1, riffs_each):
        write_file(folder / f"piece{first:03d}.mid", riffs_to_midi(riff_data.riffs[first : first + riffs_each], riff_data.tokenizer))


def write_songs(folder: Path, riffs_each: int = 32) -> None:
    """Songs to cut: riffs of midi_riffs in a row, 64 bars each, a marker at each riff."""
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    for number in range(SONGS):
        order = np.random.default_rng(number).permutation(len(riff_data.riffs))[:riffs_each]
        write_file(folder / f"song{number:03d}.mid", riffs_to_midi([riff_data.riffs[i] for i in order], riff_data.tokenizer))


def measure_guitar(repeats: int) -> dict[str, dict[str, float]]:
    """Cutting songs, fingering, tab, Guitar Pro and sound of riffs."""
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        write_songs(Path(name) / "songs")
        for workers in (1, 2):
            flags = [
                sys.executable,
                "cut_riffs.py",
                f"{name}/songs",
                "--output-dir",
                f"{name}/out",
                "--section",
                "any",
                "--workers",
                str(workers),
            ]
            label = f"songs cut, {workers} process{'es' * (workers > 1)}, start-up included"
            rates[f"songs_cut_{workers}_per_second"] = repeated(
                label, "songs/s", lambda flags=flags: SONGS / run_measured(flags)[0], repeats
            )
        rates["songs_cut_peak_mb"] = repeated("the same, one process, peak memory", "MB", lambda: run_measured([*flags[:-1], "1"])[1], 1)
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    tokenizer = riff_data.tokenizer
    board = fretboard(GuitarConfig(), 38, 70)
    notes = [tokens_to_notes(riff.tokens, tokenizer) for riff in riff_data.riffs]
    works: dict[str, tuple[str, Callable[[int], object]]] = {
        "finger_ms": ("one riff fingered", lambda i: finger(board, *notes[i])),
        "companions_ms": ("tab and .gp5 of one riff", lambda i: companions([riff_data.riffs[i]], tokenizer, board, SoundConfig())),
        "wav_ms": ("one riff as sound", lambda i: render([riff_data.riffs[i]], tokenizer, SoundConfig(wav=True))),
    }
    for key, (label, work) in works.items():
        rates[key] = repeated(label, "ms", lambda work=work: milliseconds_each(work, len(riff_data.riffs)), repeats)
    return rates


def milliseconds_each(work: Callable[[int], object], count: int) -> float:
    begin = time.perf_counter()
    for i in range(count):
        work(i)
    return 1000 * (time.perf_counter() - begin) / count


def events_per_second(model: LanguageModel, vocabulary: Vocabulary, batch: int, length: int = 300) -> float:
    """Tokens per second of sampling, all sequences together."""
    given, uniform = torch.full((batch, 1), vocabulary.bos), torch.rand(batch, length, generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    continue_sequences(model, given, EventGrammar(batch, vocabulary, True), uniform, SampleConfig(temperature=1.0, top_k=50), None)
    return batch * length / (time.perf_counter() - begin)


def measure_language_model(repeats: int) -> dict[str, dict[str, float]]:
    """Training and sampling rates of the event LSTM in its published size, and of the one that can copy."""
    rates = {}
    for preset in ("events_lstm", "events_lstm_copy"):
        options = preset_options(TrainLM, preset)
        vocabulary = event_vocabulary(options.events)
        model = LanguageModel(options.model, vocabulary.size).eval()
        with tempfile.TemporaryDirectory() as name:
            write_pieces(Path(name) / "pieces")
            flags = ["--preset", preset, "--data", str(Path(name) / "pieces"), "--eval-interval", "1000", "--holdout", "0"]
            work = partial(training_rate, Path(name) / "run", "train_lm.py", 10, *flags)
            rates[f"{preset}_training_tokens_per_second"] = repeated(f"{preset} training", "tokens/s", work, repeats)
        for batch in (1, 64):
            work = partial(events_per_second, model, vocabulary, batch)
            key = f"{preset}_sampling_{batch}_tokens_per_second"
            rates[key] = repeated(f"{preset} sampling, {batch} at a time", "tokens/s", work, repeats)
    return rates


def measure_rates(repeats: int) -> dict[str, dict[str, float]]:
    """Training and sampling rates of the default preset; untrained weights cost what trained ones do."""
    options = preset_options(TrainVAE, "riff_2bar")
    vae = MusicVAE(options.model, options.tokenizer).eval()
    diffusion = LatentDiffusion(options.model.z_size, preset_options(TrainDiffusion, "riff_2bar").model).eval()
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        rates = {
            "vae_training_riffs_per_second": repeated("VAE training", "riffs/s", lambda: training_rate(run, JOB[0], 60), repeats),
            "diffusion_training_latents_per_second": repeated(
                "diffusion training", "latents/s", lambda: training_rate(run, JOB[1], 200), repeats
            ),
        }
    for count in (1, 64, 1000):
        label = f"{count} riff{'s' * (count > 1)} sampled, 50 DDIM steps and decoding"
        rates[f"sample_{count}_seconds"] = repeated(label, "s", lambda count=count: sampling_seconds(vae, diffusion, count), repeats)
    return rates


def measure_family(repeats: int, most: float) -> dict[str, dict[str, float]]:
    """Training and sampling rates of every preset of windows, on random music; untrained weights cost what trained ones do.

    Args:
        most: parameters, in millions; larger models are passed over.
    """
    rates = {}
    for preset in FAMILY:
        options = preset_options(TrainVAE, preset)
        with torch.device("meta"):
            size = sum(p.numel() for p in MusicVAE(options.model, options.tokenizer).parameters()) / 1e6
        if size > most:
            continue
        batch = 64 if size < 20 else 2
        vae = MusicVAE(options.model, options.tokenizer)
        precision = training.choose_precision(options.train.precision, torch.device("cpu"))
        optimizer = torch.optim.Adam(vae.parameters())
        steps = random_steps(options.tokenizer, batch)
        work = partial(windows_trained, vae, optimizer, steps, options.train, precision)
        name = f"{preset} ({size:.1f} M, {str(precision).removeprefix('torch.')}), batch {batch}"
        rates[f"{preset}_training_per_second"] = repeated(f"{name}, training", "windows/s", work, repeats)
        rates[f"{preset}_sampling_per_second"] = repeated(
            f"{name}, sampling", "windows/s", partial(windows_sampled, vae.eval(), batch), repeats
        )
    return rates


def random_steps(tokenizer: TokenizerConfig, count: int) -> torch.Tensor:
    """Music of a representation, all at random."""
    if tokenizer.representation == "groove":
        return torch.rand(count, tokenizer.steps, GROOVE_SIZE).round()
    parts = [torch.randint(size, (count, tokenizer.steps)) for size in tokenizer.vocab_sizes]
    return torch.stack(parts, dim=-1) if len(parts) > 1 else parts[0]


def windows_trained(
    vae: MusicVAE, optimizer: torch.optim.Optimizer, steps: torch.Tensor, train: VAETrainConfig, precision: torch.dtype
) -> float:
    """Windows a second of one optimizer step, late in training: with scheduled sampling, most steps are the model's own."""
    begin = time.perf_counter()
    draws = Draws(noise=torch.randn(len(steps), vae.config.z_size))
    if train.scheduled_sampling:
        shape = steps.shape[:2]
        draws = dataclasses.replace(draws, from_model=torch.rand(shape) < 0.9, uniform=torch.rand(*shape, vae.embedding.draws))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        logits, mu, logvar = vae(steps, draws)
    loss = vae.reconstruction_nats(logits, steps).mean() + kl_cost(kl_nats(mu, logvar), train.free_bits).mean()
    training.clip_and_step(vae, optimizer, loss, train.lr, train.grad_clip)
    return len(steps) / (time.perf_counter() - begin)


def windows_sampled(vae: MusicVAE, count: int) -> float:
    """Windows a second, decoded from N(0, I)."""
    begin = time.perf_counter()
    uniform = torch.rand(count, vae.tokenizer.steps, vae.embedding.draws)
    decode_steps(vae, torch.randn(count, vae.config.z_size), uniform, SampleConfig(temperature=1.0))
    return count / (time.perf_counter() - begin)


def measure_steering(repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per riff (or per verse, way, set) of every way to steer, with the base model and an untrained prior."""
    tokenizer = TokenizerConfig()
    vae, _ = load_vae(ROOT / BASE_MODEL)
    diffusion = LatentDiffusion(vae.config.z_size, preset_options(TrainDiffusion, "riff_2bar").model).eval()
    known = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), tokenizer).tokens
    riff, other, sample = known[0], known[9], SampleConfig()
    keep = np.arange(tokenizer.steps) < tokenizer.steps // 2
    sections, each = parse_form("AABA", 16, tokenizer.bars)

    def wish(steer: SteerConfig, **more: Any) -> Wish:
        return dataclasses.replace(settled(wish_of(steer, vae, tokenizer, (38, 76), known), steer), **more)

    free, asked = wish(SteerConfig()), wish(SteerConfig(density=9.0, rests=0.2))
    key = wish(SteerConfig(key="F minor", start_note="F", end_note="F"))
    along = wish(SteerConfig(attribute="density=+1"))

    def drawn(wanted: Wish, count: int = 64) -> Callable[[], object]:
        return lambda: draw(vae, diffusion, range(count), sample, wanted)

    def picked() -> object:
        tokens = draw(vae, diffusion, range(200), sample, free).tokens
        return pick(qualities("typicality", tokens, known, np.zeros(200), tokenizer), tokens, 16, tokenizer)

    varied = [from_riff.vary(vae, riff, free, 0.35), from_riff.vary(vae, riff, free, 0.7, keep_rhythm=True)]
    varied += [from_riff.vary(vae, riff, free, 0.7, keep_pitches=True)]
    rhythm, pitches = (settled(one, SteerConfig()) for one in varied[1:])
    filled = settled(from_riff.infill(vae, riff, keep, free, 0.6), SteerConfig())
    answered = settled(from_riff.answer(vae, riff, free, 0.6), SteerConfig())
    onward = dataclasses.replace(free, strength=0.4, candidates=16)
    copies = partial(np.zeros, dtype=bool)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "new riffs, nothing asked": (64, drawn(free)),
        "new riffs, key, first and last note": (64, drawn(key)),
        "new riffs, density and rests": (64, drawn(asked)),
        "new riffs, along a direction": (64, drawn(along)),
        "vary": (64, drawn(varied[0])),
        "vary --keep-rhythm": (64, drawn(rhythm)),
        "vary --keep-pitches": (64, lambda: from_riff.draw_rhythms(vae, diffusion, range(64), sample, pitches)),
        "infill --keep-bars 1": (64, drawn(filled)),
        "answer": (64, drawn(answered)),
        "continue": (8, lambda: from_riff.continuations(vae, diffusion, riff, range(8), sample, onward)),
        "interpolate, 8 steps": (8, lambda: from_riff.interpolate(vae, diffusion, (riff, other), 8, 0.4, 0, sample, free.rules)),
        "arrange, 16 bars": (
            1,
            lambda: arrange(vae, diffusion, riff, sections, each, 0, sample, onward, lambda tokens: copies(len(tokens))),
        ),
        "--n 200 --pick 16": (16, picked),
    }
    rates = {}
    for name, (count, work) in works.items():

        def timed(work: Callable[[], object] = work, count: int = count) -> float:
            begin = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - begin) / count

        rates[f"steering: {name}, ms"] = repeated(name, "ms", timed, repeats)
    return rates


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each rate")
    parser.add_argument("--output-dir", default="runs/benchmark", help="where benchmark.json and the job's run go")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 measures whether two are faster than one")
    parser.add_argument("--largest", type=float, default=20, help="largest model of the family to measure, in millions of parameters")
    parser.add_argument("--skip-job", action="store_true", help="rates only, not the main job")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: give 1 or more")
    folder = Path(options.output_dir)
    threads = training.choose_threads(options.threads)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {threads}")
    results: dict = {"threads": torch.get_num_threads(), "rates": {}}
    training.keep_freed_memory()
    for measure in (measure_rates, measure_steering, measure_language_model, measure_guitar, partial(measure_family, most=options.largest)):
        results["rates"] |= measure(options.repeats)
    if not options.skip_job:
        results["job"] = measure_job(folder / "job")
        for name in (VAE_FILE, DIFFUSION_FILE):
            results[f"{name}_bytes"] = (folder / "job" / name).stat().st_size
    write_file(folder / "benchmark.json", (json.dumps(results, indent=1) + "\n").encode())
    print(f"{folder / 'benchmark.json'}")
    return 0


if __name__ == "__main__":
    run_script(main)
