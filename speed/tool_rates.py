"""Rates of what is no model: reading MIDI, cutting songs, fingering, files, steering, and how long each script takes to start."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

import training
from checkpoints import load_vae
from config import BASE_MODEL, DataConfig, GuitarConfig, SampleConfig, SoundConfig, SteerConfig, TokenizerConfig
from dataset import load_riffs
from diffusion import LatentDiffusion
from files import write_file
from guitar.fretboard import finger, fretboard
from guitar.sound import render
from midi_utils import read_midi, riffs_to_midi, tokens_to_notes
from output.outputs import companions
from presets import TrainDiffusion, preset_options
from speed.bench import ROOT, Bench, run_measured
from steering import from_riff
from steering.arranging import arrange, parse_form
from steering.drawing import Wish, draw
from steering.picking import pick, qualities
from steering.requests import settled, wish_of

SONGS = 200  # to cut
SCRIPTS = (
    *("train_vae", "train_diffusion", "train_lm", "generate", "evaluate"),
    *("check_midi", "visualize_tokens", "cut_riffs", "pieces", "presets", "benchmark"),
)


def write_songs(folder: Path, riffs_each: int = 32) -> list[Path]:
    """Songs to cut: riffs of midi_riffs in a row, 64 bars each, a marker at each riff."""
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    paths = [folder / f"song{number:03d}.mid" for number in range(SONGS)]
    for number, path in enumerate(paths):
        order = np.random.default_rng(number).permutation(len(riff_data.riffs))[:riffs_each]
        write_file(path, riffs_to_midi([riff_data.riffs[i] for i in order], riff_data.tokenizer))
    return paths


def measure_files(bench: Bench) -> None:
    """Reading MIDI, folders of riffs, and cutting songs by one process and by two."""
    data = DataConfig(data=str(ROOT / "midi_riffs"))
    riffs = sorted(Path(data.data).glob("*.mid"))
    bench.rate("MIDI files read (two bars each)", "files", len(riffs), lambda: [read_midi(path) for path in riffs])
    bench.rate("a folder of riffs read, checked and split", "files", len(riffs), lambda: load_riffs(data, TokenizerConfig()))
    with tempfile.TemporaryDirectory() as name:

        @cache
        def songs() -> list[Path]:
            return write_songs(Path(name) / "songs")

        def cut(workers: int) -> tuple[float, float]:
            folder = str(songs()[0].parent)
            flags = ["--output-dir", f"{name}/out", "--section", "any", "--workers", str(workers)]
            return run_measured([sys.executable, "cut_riffs.py", folder, *flags])

        bench.rate("MIDI files read (64 bars each)", "files", SONGS, lambda: [read_midi(path) for path in songs()])
        for workers in (1, 2):
            label = f"songs cut, {workers} process{'es' * (workers > 1)}, start-up included"
            bench.take(label, "songs/s", lambda workers=workers: SONGS / cut(workers)[0])
        bench.take("songs cut, one process, peak memory", "MB", lambda: cut(1)[1], 1)


def measure_guitar(bench: Bench) -> None:
    """Fingering, tab, Guitar Pro and sound of riffs."""
    riff_data = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), TokenizerConfig())
    riffs, tokenizer, board = riff_data.riffs, riff_data.tokenizer, fretboard(GuitarConfig(), 38, 70)
    notes = [tokens_to_notes(riff.tokens, tokenizer) for riff in riffs]
    works: dict[str, Callable[[int], object]] = {
        "one riff fingered": lambda i: finger(board, *notes[i]),
        "tab and .gp5 of one riff": lambda i: companions([riffs[i]], tokenizer, board, SoundConfig()),
        "one riff as sound": lambda i: render([riffs[i]], tokenizer, SoundConfig(wav=True)),
    }
    for name, work in works.items():
        bench.milliseconds(name, len(riffs), lambda work=work: [work(i) for i in range(len(riffs))])


def training_rate(processes: int, batch: int, steps: int) -> float:
    """Riffs a second that train_vae.py itself reports over its first steps, by so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        pace = ["--steps", str(steps), "--log-interval", str(steps), "--eval-interval", str(steps), "--threads", "1"]
        run_measured(
            [*launcher, "train_vae.py", "--run-dir", folder, "--batch-size", str(batch), "--init-from", "none", *pace], OMP_NUM_THREADS="1"
        )
        log = training.read_log(Path(folder) / "train_vae.jsonl")
    return next(line["riffs_per_second"] for line in log if "riffs_per_second" in line)


def measure_processes(bench: Bench) -> None:
    """Training by one process and by two, the global batch the same."""
    for batch in (64, 512):
        for processes in (1, 2):
            name = f"riff_2bar by torchrun, batch {batch}, {processes} process{'es' * (processes > 1)}"
            bench.take(name, "riffs/s", lambda processes=processes, batch=batch: training_rate(processes, batch, 6400 // batch), 3)


def measure_startup(bench: Bench) -> None:
    """How long each script takes to say what its options are."""
    for script in SCRIPTS:
        bench.take(f"{script}.py --help", "s", lambda script=script: run_measured([sys.executable, f"{script}.py", "--help"])[0])


def measure_steering(bench: Bench) -> None:
    """Milliseconds per riff (or per verse, way, set) of every way to steer, with the base model and an untrained prior."""
    tokenizer = TokenizerConfig()
    vae, _ = load_vae(ROOT / BASE_MODEL)
    diffusion = LatentDiffusion(vae.config.z_size, preset_options(TrainDiffusion, "riff_2bar").model).eval()
    known = load_riffs(DataConfig(data=str(ROOT / "midi_riffs")), tokenizer).tokens
    riff, other, sample = known[0], known[9], SampleConfig()
    keep = np.arange(tokenizer.steps) < tokenizer.steps // 2
    sections, each = parse_form("AABA", 16, tokenizer.bars)

    def wish(steer: SteerConfig) -> Wish:
        return settled(wish_of(steer, vae, tokenizer, (38, 76), known), steer)

    def drawn(wanted: Callable[[], Wish], count: int = 64) -> Callable[[], object]:
        wanted = cache(wanted)  # made ready in the run that does not count, if it is wanted at all
        return lambda: draw(vae, diffusion, range(count), sample, wanted())

    def picked() -> object:
        tokens = draw(vae, diffusion, range(200), sample, free()).tokens
        return pick(qualities("typicality", tokens, known, np.zeros(200), tokenizer), tokens, 16, tokenizer)

    def kept(**keep: bool) -> Wish:
        return settled(from_riff.vary(vae, riff, free(), 0.7, **keep), SteerConfig())

    free, melody = cache(lambda: wish(SteerConfig())), cache(lambda: kept(keep_pitches=True))
    onward = cache(lambda: dataclasses.replace(free(), strength=0.4, candidates=16))
    copies = partial(np.zeros, dtype=bool)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "new riffs, nothing asked": (64, drawn(free)),
        "new riffs, key, first and last note": (64, drawn(lambda: wish(SteerConfig(key="F minor", start_note="F", end_note="F")))),
        "new riffs, density and rests": (64, drawn(lambda: wish(SteerConfig(density=9.0, rests=0.2)))),
        "new riffs, along a direction": (64, drawn(lambda: wish(SteerConfig(attribute="density=+1")))),
        "vary": (64, drawn(lambda: from_riff.vary(vae, riff, free(), 0.35))),
        "vary --keep-rhythm": (64, drawn(lambda: kept(keep_rhythm=True))),
        "vary --keep-pitches": (64, lambda: from_riff.draw_rhythms(vae, diffusion, range(64), sample, melody())),
        "infill --keep-bars 1": (64, drawn(lambda: settled(from_riff.infill(vae, riff, keep, free(), 0.6), SteerConfig()))),
        "answer": (64, drawn(lambda: settled(from_riff.answer(vae, riff, free(), 0.6), SteerConfig()))),
        "continue": (8, lambda: from_riff.continuations(vae, diffusion, riff, range(8), sample, onward())),
        "interpolate, 8 steps": (8, lambda: from_riff.interpolate(vae, diffusion, (riff, other), 8, 0.4, 0, sample, free().rules)),
        "arrange, 16 bars": (
            1,
            lambda: arrange(vae, diffusion, riff, sections, each, 0, sample, onward(), lambda tokens: copies(len(tokens))),
        ),
        "--n 200 --pick 16": (16, picked),
    }
    for name, (count, work) in works.items():
        bench.milliseconds(f"steering, {name}", count, work)
