"""What generate.py does with models of windows: new music, a file as the model hears it or plays it, ways from one file to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import TokenizerConfig, UserError
from dataset import plural
from family.measures import NearestWindow, backbeat, nearest_windows, playing
from family.windows import Window, read_windows, to_pattern, windows_to_midi
from files import make_room, sha256
from measures.metrics import notes_per_bar, rest_ratio, step_accuracies
from midi_utils import MidiError, program_name
from output.outputs import mention_others, refuse_to_overwrite, report_redrawn, write_with_json
from output.window_models import WindowModel, load_window_model
from presets import FromRiff, Generate, Interpolate, Reconstruct, Sample
from sampling import CHUNK, MAX_ATTEMPTS, decode_steps, play_hits, sample_riffs
from steering.ways import way

FOLDER = "windows"
LONG_NAME = "generated_long.mid"
COMPARED = 100_000  # training windows that new ones are compared with, at most


@dataclass(frozen=True)
class Made:
    """One file to write: windows in a row."""

    path: Path
    windows: tuple[np.ndarray, ...]
    markers: tuple[str, ...]
    facts: dict[str, Any]  # for its JSON


# ---------------------------------------------------------------- what is measured and written


def described(steps: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """What some windows are like, in plain numbers. steps: [windows, T] and more"""
    kind = tokenizer.representation
    line = dataclasses.replace(tokenizer, representation="mono", given="all")
    if kind == "mono":
        facts = {"notes_per_bar": notes_per_bar(steps, line).mean(), "rest_ratio": rest_ratio(steps).mean()}
    elif kind == "trio":
        facts = {f"{name}_notes_per_bar": notes_per_bar(steps[..., i], line).mean() for i, name in enumerate(("melody", "bass"))}
        facts["drum_hits_per_bar"] = (steps[..., 2] != 0).sum(axis=1).mean() / tokenizer.bars
    else:
        hits = np.stack([to_pattern(one, tokenizer).hits for one in steps])
        facts = {"hits_per_bar": hits.sum(axis=(1, 2)).mean() / tokenizer.bars, **backbeat(hits, tokenizer)}
        facts |= playing(steps) if kind == "groove" else {}
    return {name: round(float(value), 4) if np.isfinite(value) else None for name, value in facts.items()}


def nearest_of(model: WindowModel, steps: np.ndarray) -> tuple[NearestWindow, list[str]] | None:
    """The training windows that share most with some, of very many those of a random choice, and their names; None where they are gone."""
    if model.windows is None:
        return None
    index = model.windows.train_index
    if len(index) > COMPARED:
        index = np.sort(np.random.default_rng(0).choice(index, COMPARED, replace=False))
    nearest = nearest_windows(steps, model.windows.tokens[index], model.tokenizer)
    return nearest, [model.windows.name_of(int(index[i])) for i in nearest.index]


def programs_of(options: Generate, model: WindowModel, given: Sequence[Window] = ()) -> tuple[int, ...]:
    """The MIDI programs of the lines that are written; none for drums."""
    if model.tokenizer.representation in ("drums", "groove"):
        return ()
    programs = given[0].programs if given else tuple(model.content["data"].get("programs", ()))
    return (options.program, *programs[1:]) if options.program >= 0 else programs


def record_of(options: Generate, model: WindowModel, bpm: float, programs: Sequence[int]) -> dict[str, Any]:
    """How the files of a call are made, for their JSON."""
    sampled = ("prior", "sampling_steps", "eta", "temperature", "rest_penalty", "top_k", "top_p")
    settings = {name: getattr(options.sample, name) for name in sampled}
    settings["prior"] = "diffusion" if model.diffusion is not None else "normal"
    return {
        "mode": options.MODE,
        "settings": settings,
        "bpm": bpm,
        "programs": list(programs),
        "tokenizer": dataclasses.asdict(model.tokenizer),
        **model.hashes(),
    }


def write_all(files: Sequence[Made], model: WindowModel, made_with: dict[str, Any]) -> None:
    """
    Raises:
        UserError: somebody's file would be overwritten.
    """
    for made in files:
        refuse_to_overwrite(made.path)
    make_room(files[0].path.parent)
    for made in files:
        midi = windows_to_midi(made.windows, model.tokenizer, made_with["bpm"], made_with["programs"], made.markers)
        steps = [np.round(one, 4).tolist() if one.dtype.kind == "f" else one.tolist() for one in made.windows]
        write_with_json(made.path, midi, {**made_with, **made.facts, "steps": steps})


def print_table(labels: Sequence[str], steps: np.ndarray, model: WindowModel, nearest: tuple[NearestWindow, list[str]] | None) -> None:
    """One line for each window."""
    most = 20
    facts = [described(one[None], model.tokenizer) for one in steps]
    width = max(map(len, labels))
    print(f"{'':{width}s} " + " ".join(f"{name.replace('_', ' '):>16s}" for name in facts[0]) + "   copied  nearest training window")
    for i, (label, values) in enumerate(list(zip(labels, facts, strict=True))[:most]):
        shown = " ".join("               -" if value is None else f"{value:16.3g}" for value in values.values())
        print(f"{label:{width}s} {shown} " + (f"{nearest[0].copied[i]:8.0%}  {nearest[1][i]}" if nearest else "       -  -"))
    if len(labels) > most:
        print(f"   ... and {len(labels) - most} more")
    if nearest is None:
        print("the token file that the model was trained on is gone or changed: how much is copied cannot be said")
    else:
        copied = nearest[0].copied
        print(
            f"copied: notes and hits in both, of those in either, in any key: {np.median(copied):.0%} in the middle, "
            f"{copied.max():.0%} at most; "
            f"{int((copied == 1).sum())} whole copies"
        )


# ---------------------------------------------------------------- new windows


def write_samples(options: Sample, seeds: list[int], model: WindowModel) -> int:
    """New windows: one file each, and all in a row. -> exit status"""
    output_dir = Path(options.output_dir or options.run.run_dir)
    bpm = options.bpm or model.content["data"]["bpm"]
    programs = programs_of(options, model)
    folder = output_dir / FOLDER
    paths = [folder / f"window_seed{seed:06d}_{bpm:.0f}bpm.mid" for seed in seeds]
    for path in (*paths, output_dir / LONG_NAME):
        refuse_to_overwrite(path)
    steps, attempts, nearest = draw_original(options, seeds, model)
    kept = np.flatnonzero(attempts >= 0)
    refused = [seed for seed, attempt in zip(seeds, attempts, strict=True) if attempt < 0]
    redrawn, steps, attempts = attempts, steps[kept], attempts[kept]
    nearest = (NearestWindow(nearest[0].index[kept], nearest[0].copied[kept]), [nearest[1][i] for i in kept]) if nearest else None
    paths, seeds = [paths[i] for i in kept], [seeds[i] for i in kept]
    files = []
    for i, (seed, path) in enumerate(zip(seeds, paths, strict=True)):
        near = {"window": nearest[1][i], "copied": round(float(nearest[0].copied[i]), 4)} if nearest else None
        facts = {"seed": seed, "attempt": int(attempts[i]), "nearest": near, "window": described(steps[i : i + 1], model.tokenizer)}
        files.append(Made(path, (steps[i],), (f"seed {seed}",), facts))
    parts = [{"seed": seed, "file": path.relative_to(output_dir).as_posix()} for seed, path in zip(seeds, paths, strict=True)]
    files.append(Made(output_dir / LONG_NAME, tuple(steps), tuple(f"seed {seed}" for seed in seeds), {"windows": parts}))
    write_all(files, model, record_of(options, model, bpm, programs))
    print_table([f"seed {seed}" for seed in seeds], steps, model, nearest)
    say_files(files, model, bpm, programs)
    prior = "the latent diffusion model" if model.diffusion is not None else "N(0, I): no diffusion model was trained, or --prior normal"
    print(f"z from {prior}, temperature {options.sample.temperature:g}")
    mention_others(folder, "window", paths)
    return report_redrawn("window", redrawn, refused, options.max_copy, MAX_ATTEMPTS)


def draw_original(
    options: Sample, seeds: Sequence[int], model: WindowModel
) -> tuple[np.ndarray, np.ndarray, tuple[NearestWindow, list[str]] | None]:
    """Draw one window for each seed, and draw it again, up to MAX_ATTEMPTS times in all, where it copies more than it may.

    Returns:
        steps, of the last attempt; attempts: int64 [seeds], 0 where the first one would do, -1 where none did; and the nearest
        training windows.

    Raises:
        UserError: none did for any seed.
    """
    steps = sample_riffs(model.vae, model.diffusion, seeds, options.sample)[0]
    attempts = np.zeros(len(seeds), dtype=np.int64)
    nearest = nearest_of(model, steps)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        again = np.flatnonzero(nearest[0].copied > options.max_copy) if nearest else np.empty(0, dtype=np.int64)
        if not len(again):
            break
        if attempt == MAX_ATTEMPTS:
            attempts[again] = -1
            break
        steps[again] = sample_riffs(model.vae, model.diffusion, [seeds[i] for i in again], options.sample, attempt=attempt)[0]
        attempts[again] = attempt
        nearest = nearest_of(model, steps)
    if (attempts < 0).all():
        raise UserError(
            f"--max-copy {options.max_copy:g}: no seed gave music that copies so little, in {MAX_ATTEMPTS} attempts; allow more"
        )
    return steps, attempts, nearest


def say_files(files: Sequence[Made], model: WindowModel, bpm: float, programs: Sequence[int]) -> None:
    long = files[-1]
    bars = len(long.windows) * model.tokenizer.bars
    what = ", ".join(program_name(program) for program in programs) or "drums"
    print(f"{long.path}: {plural(bars, 'bar')} at {bpm:g} bpm, {what}")
    if len(files) > 1:
        print(f"{files[0].path.parent}: {plural(len(files) - 1, 'file')}, and how they were made (.json)")


# ---------------------------------------------------------------- from files


def read_given(file: str, options: FromRiff, model: WindowModel) -> list[Window]:
    """The windows of a file, one after the other, from the bar that is asked for.

    Raises:
        UserError: it holds none, or none there, or several lines where one is needed.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{file}: there is no such file; give a MIDI file")
    songs = dataclasses.replace(model.songs, hop=1, track=options.track, kit=options.kit, min_notes_per_bar=0.0)
    try:
        windows, _ = read_windows(path, songs, model.data, model.tokenizer, one_line=True)
    except MidiError as error:
        raise UserError(f"{file}: {error}") from None
    by_bar = {window.first_bar: window for window in windows}
    if options.from_bar and options.from_bar not in by_bar:
        raise UserError(
            f"--from-bar {options.from_bar}: {file} has windows at bar {windows[0].first_bar} to {windows[-1].first_bar}; give one of them"
        )
    places = range(options.from_bar or windows[0].first_bar, windows[-1].first_bar + 1, model.tokenizer.bars)
    missing = [f"{bar}-{bar + model.tokenizer.bars - 1}" for bar in places if bar not in by_bar]
    if missing:
        print(f"{file}: bars {', '.join(missing[:8])} left out: silent, or nothing that this model can read")
    return [by_bar[bar] for bar in places if bar in by_bar]


def write_reconstruction(options: Reconstruct, model: WindowModel) -> int:
    """A file as the model hears it; given a score or taps, as it plays them. -> exit status"""
    file = one_file(options, 1)[0]
    given = read_given(file, options, model)
    tokenizer = model.tokenizer
    steps = np.stack([window.steps for window in given])
    z = model.encode(steps)
    if tokenizer.given == "hits":  # what is written is played, and nothing else
        made = play_hits(model.vae, z, torch.from_numpy(steps[..., :9] > 0.5).to(z.device)).cpu().numpy()
    else:
        made = decoded(model, z, options)
    bpm, programs = options.bpm or round(given[0].bpm, 3), programs_of(options, model, given)
    words = {"all": "reconstruct", "hits": "humanize", "taps": "tap_to_drums"}[tokenizer.given]
    folder = Path(options.output_dir or Path(options.run.run_dir) / options.MODE)
    markers = tuple(f"bar {window.first_bar}" for window in given)
    facts = {"given": facts_of(file, given), "what": words, "accuracies": accuracies_of(made, steps, tokenizer)}
    path = folder / f"{Path(file).stem}_{words}_{bpm:.0f}bpm.mid"
    files = [Made(path, tuple(made), markers, facts)]
    write_all(files, model, record_of(options, model, bpm, programs))
    print_table(list(markers), made, model, nearest_of(model, made))
    if tokenizer.representation == "groove":
        for name, some in (("given", steps), ("played", made)):
            print(f"{name:7s} " + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in playing(some).items()))
    if tokenizer.given == "all":
        print(
            "given back: "
            + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in facts["accuracies"].items() if value is not None)
        )
    say_files(files, model, bpm, programs)
    return 0


def write_interpolation(options: Interpolate, seeds: list[int], model: WindowModel) -> int:
    """Windows on the way from one file to another, one file each and all in a row. -> exit status"""
    given = [read_given(file, options, model)[0] for file in one_file(options, 2)]
    ends = model.encode(np.stack([window.steps for window in given]))
    through = model.diffusion if options.through == "diffusion" and options.strength > 0 else None
    if through is None and len(seeds) > 1:
        raise UserError(
            "interpolate: without a diffusion model, or --through direct, it makes the same for every seed; leave out --num-outputs"
        )
    if through is None and options.through == "diffusion":
        print("no diffusion model to go through: what lies on the arc is decoded as it is")
    bpm, programs = options.bpm or round(given[0].bpm, 3), programs_of(options, model, given)
    folder = Path(options.output_dir or Path(options.run.run_dir) / options.MODE)
    stem = "_to_".join(Path(file).stem[:80] for file in options.files)
    facts = {"given": [facts_of(file, [window]) for file, window in zip(options.files, given, strict=True)]}
    facts["through"] = "diffusion" if through is not None else "direct"
    files, rows = [], []
    for seed in seeds:
        steps = decoded(model, way(through, ends[0], ends[1], options.steps, options.strength, seed, options.sample), options)
        name = f"{stem}_interpolate" + f"_seed{seed:06d}" * (through is not None)
        for i, one in enumerate(steps):
            share = round(i / (options.steps - 1), 4)
            path = folder / f"{name}_step{i + 1:03d}_{bpm:.0f}bpm.mid"
            files.append(Made(path, (one,), (f"step {i + 1}",), {**facts, "seed": seed, "step": i + 1, "share": share}))
        rows.append(steps)
    new = np.concatenate(rows)
    labels = [f"seed {made.facts['seed']} step {made.facts['step']}" for made in files]
    files.append(Made(folder / f"{stem}_interpolate_long.mid", tuple(new), tuple(labels), facts))
    write_all(files, model, record_of(options, model, bpm, programs))
    print_table(labels, new, model, nearest_of(model, new))
    say_files(files, model, bpm, programs)
    return 0


def one_file(options: FromRiff, count: int) -> tuple[str, ...]:
    """
    Raises:
        UserError: too few or too many files.
    """
    if len(options.files) != count:
        wanted = "two MIDI files, A.mid B.mid" if count == 2 else "one MIDI file"
        raise UserError(f"{options.MODE}: give {wanted}; there are {len(options.files)}")
    return options.files


def decoded(model: WindowModel, z: torch.Tensor, options: Generate) -> np.ndarray:
    """The likeliest music of some latents. z: [windows, Z]"""
    likeliest = dataclasses.replace(options.sample, temperature=0.0)
    parts = []
    for some in z.split(CHUNK):
        padded = torch.cat([some, some[-1:].expand(CHUNK - len(some), -1)])  # so that a window comes out alike whatever else is decoded
        uniform = torch.zeros(CHUNK, model.tokenizer.steps, model.vae.embedding.draws, device=z.device)
        parts.append(decode_steps(model.vae, padded, uniform, likeliest)[: len(some)].cpu())
    return torch.cat(parts).numpy()


def accuracies_of(made: np.ndarray, steps: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, float | None]:
    values = step_accuracies(made, steps, tokenizer)
    return {name: round(value, 4) if np.isfinite(value) else None for name, value in values.items()}


def facts_of(file: str, given: Sequence[Window]) -> dict[str, Any]:
    """A file that was given, for the record."""
    return {
        "file": Path(file).name,
        "sha256": sha256(Path(file).read_bytes()),
        "bars": [window.first_bar for window in given],
        "part": given[0].part,
    }


# ---------------------------------------------------------------- one call


def write_windows(options: Generate, seeds: list[int], device: torch.device) -> int:
    """What generate.py does with a model of windows. -> exit status

    Raises:
        UserError: a mode that these models do not have.
    """
    if not isinstance(options, Sample | Reconstruct | Interpolate):
        raise UserError(f"{options.MODE}: needs a VAE of riffs; {options.preset} has sample, reconstruct and interpolate")
    through = isinstance(options, Interpolate) and options.through == "diffusion" and options.strength > 0
    model = load_window_model(options, device, with_prior=isinstance(options, Sample) or through)
    if isinstance(options, Sample):
        return write_samples(options, seeds, model)
    if isinstance(options, Reconstruct):
        return write_reconstruction(options, model)
    return write_interpolation(options, seeds, model)
