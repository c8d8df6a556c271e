"""Measure speed and memory on this machine: the main job script by script, training and sampling rates.

    python benchmark.py [--repeats 5] [--output-dir runs/benchmark] [--skip-job]

Prints medians with their spread and writes them as benchmark.json. Absolute times belong to one machine; compare ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import training
from config import (
    DIFFUSION_FILE,
    VAE_FILE,
    DataConfig,
    SampleConfig,
    TokenizerConfig,
    TrainDiffusion,
    TrainLM,
    TrainVAE,
    UserError,
    preset_options,
    run_script,
)
from dataset import load_riffs
from files import write_file
from language_model import LanguageModel
from midi_utils import riffs_to_midi
from models import LatentDiffusion, RiffVAE
from pieces import Vocabulary, event_vocabulary
from sampling import EventGrammar, continue_sequences, sample_riffs

ROOT = Path(__file__).parent
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


def sampling_seconds(vae: RiffVAE, diffusion: LatentDiffusion, count: int) -> float:
    begin = time.perf_counter()
    sample_riffs(vae, diffusion, range(count), SampleConfig())
    return time.perf_counter() - begin


def write_pieces(folder: Path, riffs_each: int = 16) -> None:
    """Pieces to train an event model on: riffs of midi_riffs in a row, two minutes or so each."""
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    for first in range(0, len(riff_data.riffs) - riffs_each + 1, riffs_each):
        write_file(folder / f"piece{first:03d}.mid", riffs_to_midi(riff_data.riffs[first : first + riffs_each], riff_data.tokenizer))


def events_per_second(model: LanguageModel, vocabulary: Vocabulary, batch: int, length: int = 300) -> float:
    """Tokens per second of sampling, all sequences together."""
    given, uniform = torch.full((batch, 1), vocabulary.bos), torch.rand(batch, length, generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    continue_sequences(model, given, EventGrammar(batch, vocabulary, True), uniform, SampleConfig(temperature=1.0, top_k=50), None)
    return batch * length / (time.perf_counter() - begin)


def measure_language_model(repeats: int) -> dict[str, dict[str, float]]:
    """Training and sampling rates of the event LSTM in its published size."""
    options = preset_options(TrainLM, "events_lstm")
    vocabulary = event_vocabulary(options.events)
    model = LanguageModel(options.model, vocabulary.size).eval()
    with tempfile.TemporaryDirectory() as name:
        write_pieces(Path(name) / "pieces")
        flags = ["--data", str(Path(name) / "pieces"), "--eval-interval", "1000", "--holdout", "0"]
        rates = {
            "lm_training_tokens_per_second": repeated(
                "event LSTM training", "tokens/s", lambda: training_rate(Path(name) / "run", "train_lm.py", 10, *flags), repeats
            )
        }
    for batch in (1, 64):
        label = f"event LSTM sampling, {batch} at a time"
        rates[f"lm_sampling_{batch}_tokens_per_second"] = repeated(
            label, "tokens/s", lambda batch=batch: events_per_second(model, vocabulary, batch), repeats
        )
    return rates


def measure_rates(repeats: int) -> dict[str, dict[str, float]]:
    """Training and sampling rates of the default preset; untrained weights cost what trained ones do."""
    options = preset_options(TrainVAE, "riff_2bar")
    vae = RiffVAE(options.model, options.tokenizer).eval()
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


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each rate")
    parser.add_argument("--output-dir", default="runs/benchmark", help="where benchmark.json and the job's run go")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 measures whether two are faster than one")
    parser.add_argument("--skip-job", action="store_true", help="rates only, not the main job")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: give 1 or more")
    folder = Path(options.output_dir)
    threads = training.choose_threads(options.threads)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, {threads}")
    results: dict = {"threads": torch.get_num_threads(), "rates": measure_rates(options.repeats) | measure_language_model(options.repeats)}
    if not options.skip_job:
        results["job"] = measure_job(folder / "job")
        for name in (VAE_FILE, DIFFUSION_FILE):
            results[f"{name}_bytes"] = (folder / "job" / name).stat().st_size
    write_file(folder / "benchmark.json", (json.dumps(results, indent=1) + "\n").encode())
    print(f"{folder / 'benchmark.json'}")
    return 0


if __name__ == "__main__":
    run_script(main)
