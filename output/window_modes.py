"""What generate.py does with models of windows: new music, a file as the model hears it or plays it, ways from one file to another."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import SampleConfig, TokenizerConfig, UserError
from dataset import plural
from family.measures import NearestWindow, backbeat, onsets_of, playing
from family.windows import Window, kit_of, read_windows, to_pattern, windows_to_midi
from files import make_room, require_file, sha256
from latents import as_steps, given_hits
from measures.metrics import notes_per_bar, rest_ratio, step_accuracies
from midi_utils import MidiError, program_name
from output.outputs import mention_others, refuse_to_overwrite, report_redrawn, write_with_json
from output.window_models import WindowModel, load_window_model
from presets import FromRiff, Generate, Interpolate, Reconstruct, Sample
from sampling import MAX_ATTEMPTS, by_chunks, decode_steps, draw_original, random_numbers, sample_riffs
from steering.ways import way

FOLDER = "windows"
LONG_NAME = "generated_long.mid"
COLUMNS = {  # of the table; offsets are in half steps, 1 is as late as a hit can be
    "rest_ratio": "rests", "kick": "kick on 1, 3", "kick_elsewhere": "elsewhere", "snare": "snare on 2, 4", "snare_elsewhere": "elsewhere",
    "offset_std": "offset spread", "offset_mean": "mean", "velocity_std": "velocity spread", "velocity_mean": "mean",
}  # fmt: skip


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


def programs_of(options: Generate, model: WindowModel, given: Sequence[Window] = ()) -> tuple[int, ...]:
    """The MIDI programs of the lines that are written; none for drums."""
    if model.tokenizer.representation in ("drums", "groove"):
        return ()
    programs = given[0].programs if given else tuple(model.content["data"].get("programs", ()))
    return (options.program, *programs[1:]) if options.program >= 0 else programs


def record_of(options: Generate, sample: SampleConfig, model: WindowModel, bpm: float, programs: Sequence[int]) -> dict[str, Any]:
    """How the files of a call are made, for their JSON. sample: as it was used"""
    sampled = ("prior", "sampling_steps", "eta", "temperature", "rest_penalty", "top_k", "top_p", "precision")
    settings = {name: getattr(sample, name) for name in sampled}
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


def print_table(labels: Sequence[str], steps: np.ndarray, model: WindowModel, nearest: NearestWindow | None) -> None:
    """One line for each window. nearest: None where nothing can be copied"""
    most = 20
    facts = [described(one[None], model.tokenizer) for one in steps]
    first = max(map(len, labels))
    heads = [f"{COLUMNS.get(name, name.replace('_', ' ')):>6s}" for name in facts[0]]
    print(f"{'':{first}s}  " + "  ".join(heads) + ("  copied  nearest training window" if nearest is not None else ""))
    beside = [""] * len(steps)
    if nearest is not None:
        shares = ["-" if np.isnan(share) else f"{share:.0%}" for share in nearest.copied]
        beside = [f"  {share:>6s}  {name}" for share, name in zip(shares, model.names_of(nearest), strict=True)]
    for label, values, more in list(zip(labels, facts, beside, strict=True))[:most]:
        cells = ["-" if value is None else f"{value:.3g}" for value in values.values()]
        print(f"{label:{first}s}  " + "  ".join(f"{cell:>{len(head)}s}" for cell, head in zip(cells, heads, strict=True)) + more)
    if len(labels) > most:
        print(f"   ... and {len(labels) - most} more")
    begun = np.stack([part != 0 for part in onsets_of(steps, model.tokenizer)]).any(axis=(0, 2))
    silent = int((~begun).sum())
    if silent:
        print(f"silent, without a note or hit: {silent} of {len(steps)}")
    if nearest is None:
        return
    if model.windows is None:
        print("the token file that the model was trained on is gone or changed: how much is copied cannot be said")
        return
    print(
        f"copied: notes and hits in both, of those in either, in any key: {np.median(nearest.copied):.0%} in the middle, "
        f"{nearest.copied.max():.0%} at most; {int((nearest.copied == 1).sum())} whole copies"
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

    def draw(some: Sequence[int], attempt: int) -> np.ndarray:
        return sample_riffs(model.vae, model.diffusion, some, options.sample, attempt=attempt, pitches=model.data.pitches)[0]

    path_of = dict(zip(seeds, paths, strict=True))
    steps, attempts, nearest, seeds, refused = draw_original(draw, seeds, model.known.nearest, options.max_copy, "window")
    paths, names = [path_of[seed] for seed in seeds], model.names_of(nearest)
    files = []
    for i, (seed, path) in enumerate(zip(seeds, paths, strict=True)):
        near = {"window": names[i], "copied": round(float(nearest.copied[i]), 4)} if model.windows is not None else None
        facts = {"seed": seed, "attempt": int(attempts[i]), "nearest": near, "window": described(steps[i : i + 1], model.tokenizer)}
        files.append(Made(path, (steps[i],), (f"seed {seed}",), facts))
    parts = [{"seed": seed, "file": path.relative_to(output_dir).as_posix()} for seed, path in zip(seeds, paths, strict=True)]
    files.append(Made(output_dir / LONG_NAME, tuple(steps), tuple(f"seed {seed}" for seed in seeds), {"windows": parts}))
    write_all(files, model, record_of(options, options.sample, model, bpm, programs))
    print_table([f"seed {seed}" for seed in seeds], steps, model, nearest)
    say_files(files, model, bpm, programs)
    why = "as --prior asks" if options.sample.prior == "normal" else "no diffusion model was trained"
    prior = "the latent diffusion model" if model.diffusion is not None else f"N(0, I): {why}"
    print(f"z from {prior}, temperature {options.sample.temperature:g}")
    mention_others(folder, "window", paths)
    return report_redrawn("window", attempts, refused, options.max_copy, MAX_ATTEMPTS)


def say_file(made: Made, model: WindowModel, bpm: float, programs: Sequence[int]) -> None:
    bars = len(made.windows) * model.tokenizer.bars
    what = ", ".join([program_name(program) for program in programs] + ["drums"] * (model.tokenizer.representation != "mono"))
    print(f"{made.path}: {plural(bars, 'bar')} at {bpm:g} bpm, {what}")


def say_files(files: Sequence[Made], model: WindowModel, bpm: float, programs: Sequence[int]) -> None:
    """files: the last is the others in a row"""
    say_file(files[-1], model, bpm, programs)
    print(f"{files[0].path.parent}: {plural(len(files) - 1, 'file')}, and how they were made (.json)")


# ---------------------------------------------------------------- from files


def read_given(file: str, options: FromRiff, model: WindowModel, whole: bool = True) -> list[Window]:
    """The windows of a file, one after the other, from the bar that is asked for.

    Args:
        whole: whether all of them are of use, and what is left out is worth saying.

    Raises:
        UserError: it holds none, or none there, or several lines where one is needed.
    """
    require_file(file)
    path = Path(file)
    kit = kit_of(path, model.songs.kit) if options.kit == "as_trained" else options.kit
    songs = dataclasses.replace(model.songs, hop=1, track=options.track, kit=kit, min_notes_per_bar=0.0)
    try:
        windows, _ = read_windows(path, songs, model.data, model.tokenizer, one_line=True)
    except MidiError as error:
        raise UserError(f"{file}: {error}; `python check_midi.py {file}` tells more") from None
    if model.tokenizer.representation != "mono":
        hint = " (--kit takes the other)" * (options.kit == "as_trained")
        print(f"{file}: {', '.join(filter(None, (windows[0].part, f'drums read as the {kit} kit')))}{hint}")
    by_bar = {window.first_bar: window for window in windows}
    if options.from_bar and options.from_bar not in by_bar:
        raise UserError(
            f"--from-bar {options.from_bar}: {file} has windows at bar {windows[0].first_bar} to {windows[-1].first_bar}; give one of them"
        )
    places = range(options.from_bar or windows[0].first_bar, windows[-1].first_bar + 1, model.tokenizer.bars)
    missing = [f"{bar}-{bar + model.tokenizer.bars - 1}" for bar in places if bar not in by_bar]
    if missing and whole:
        print(f"{file}: bars {', '.join(missing[:8])} left out: silent, or nothing that this model can read")
    end, covered = windows[-1].first_bar + model.tokenizer.bars - 1, places[-1] + model.tokenizer.bars - 1
    if covered < end and whole:
        left = f"bar {end} is" if covered + 1 == end else f"bars {covered + 1}-{end} are"
        print(f"{file}: {left} left out: this model reads {plural(model.tokenizer.bars, 'bar')} at a time")
    found = [by_bar[bar] for bar in places if bar in by_bar]
    unknown = sum(window.unknown for window in (found if whole else found[:1]))
    if unknown:
        print(f"{file}: {plural(unknown, 'note')} left out: no drum of the {kit} kit")
    return found


def write_reconstruction(options: Reconstruct, seeds: list[int], model: WindowModel) -> int:
    """A file as the model hears it; given a score or taps, as it plays them, once for each seed. -> exit status"""
    file = options.required_files()[0]
    given = read_given(file, options, model)
    tokenizer = model.tokenizer
    plays = tokenizer.given != "all"
    sample = options.sample if plays else dataclasses.replace(options.sample, temperature=0.0)
    steps = np.stack([window.steps for window in given])
    z, hits = model.encode(steps), given_hits(as_steps(steps), tokenizer)
    bpm, programs = options.bpm or round(given[0].bpm, 3), programs_of(options, model, given)
    word = {"all": "reconstruct", "hits": "humanize", "taps": "tap_to_drums"}[tokenizer.given]
    folder = Path(options.output_dir or Path(options.run.run_dir) / options.MODE)
    markers = tuple(f"bar {window.first_bar}" for window in given)
    files, made = [], steps
    for seed in seeds:
        made = decoded(model, z, sample, [[seed, window.first_bar] for window in given], hits)
        facts = {"given": facts_of(file, given), "what": word, "accuracies": accuracies_of(made, steps, tokenizer)}
        name = f"{Path(file).stem}_{word}" + f"_seed{seed:06d}" * plays
        files.append(Made(folder / f"{name}_{bpm:.0f}bpm.mid", tuple(made), markers, facts | ({"seed": seed} if plays else {})))
    write_all(files, model, record_of(options, sample, model, bpm, programs))
    if plays and len(seeds) > 1:
        print(f"of seed {seeds[-1]}:")
    print_table(list(markers), made, model, model.known.nearest(made) if hits is None else None)  # given hits are the file's own
    if tokenizer.representation == "groove":
        for name, some in (("given", steps), ("played", made)):
            print(f"{name:7s} " + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in playing(some).items()))
    if not plays:
        values = {name: value for name, value in files[0].facts["accuracies"].items() if value is not None}
        print("given back: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items()))
    for one in files:
        say_file(one, model, bpm, programs)
    return 0


def write_interpolation(options: Interpolate, seeds: list[int], model: WindowModel) -> int:
    """Windows on the way from one file to another, one file each and all in a row. -> exit status"""
    tracks = options.track.split(",") if options.track.count(",") == 1 else [options.track] * 2
    given = [
        read_given(file, dataclasses.replace(options, track=track.strip()), model, whole=False)[0]
        for file, track in zip(options.required_files(), tracks, strict=True)
    ]
    ends = model.encode(np.stack([window.steps for window in given]))
    through = model.diffusion if options.through == "diffusion" and options.strength > 0 else None
    if through is None and len(seeds) > 1:
        raise UserError(
            "interpolate: without a diffusion model, or --through direct, it makes the same for every seed; leave out --num-outputs"
        )
    if through is None and options.through == "diffusion" and options.strength > 0:
        print("no diffusion model to go through: what lies on the arc is decoded as it is")
    bpm, programs = options.bpm or round(given[0].bpm, 3), programs_of(options, model, given)
    first, last = (
        f"bars {window.first_bar}-{window.first_bar + model.tokenizer.bars - 1} of {file}"
        for file, window in zip(options.files, given, strict=True)
    )
    print(f"from {first} to {last}" + (" (--from-bar takes others)" if not options.from_bar else ""))
    folder = Path(options.output_dir or Path(options.run.run_dir) / options.MODE)
    stem = "_to_".join(Path(file).stem[:80] for file in options.files)
    facts = {"given": [facts_of(file, [window]) for file, window in zip(options.files, given, strict=True)]}
    facts["through"] = "diffusion" if through is not None else "direct"
    files, rows, likeliest = [], [], dataclasses.replace(options.sample, temperature=0.0)
    for seed in seeds:
        steps = decoded(model, way(through, ends[0], ends[1], options.steps, options.strength, seed, options.sample), likeliest)
        name = f"{stem}_interpolate" + f"_seed{seed:06d}" * (through is not None)
        for i, one in enumerate(steps):
            share = round(i / (options.steps - 1), 4)
            path = folder / f"{name}_step{i + 1:03d}_{bpm:.0f}bpm.mid"
            files.append(Made(path, (one,), (f"step {i + 1}",), {**facts, "seed": seed, "step": i + 1, "share": share}))
        rows.append(steps)
    new = np.concatenate(rows)
    labels = [f"seed {made.facts['seed']} step {made.facts['step']}" for made in files]
    files.append(Made(folder / f"{stem}_interpolate_long.mid", tuple(new), tuple(labels), facts))
    write_all(files, model, record_of(options, likeliest, model, bpm, programs))
    print_table(labels, new, model, model.known.nearest(new))
    say_files(files, model, bpm, programs)
    mention_others(folder, "step", [made.path for made in files], f"{glob.escape(stem)}_interpolate*_step*.mid")
    return 0


def decoded(
    model: WindowModel, z: torch.Tensor, sample: SampleConfig, entropy: Sequence[Sequence[int]] = (), hits: torch.Tensor | None = None
) -> np.ndarray:
    """The likeliest music of some latents, or at a temperature a draw of it. A window comes out alike whatever else is decoded.

    Args:
        z: [windows, Z]
        entropy: of each window, for its random numbers; not read at temperature 0.
        hits: bool [windows, T, 9], see decode_steps.
    """

    def chunk(rows: list[int]) -> list[torch.Tensor]:
        uniform, _ = random_numbers(model.vae, [entropy[row] if entropy else [0] for row in rows], draws=0)
        struck = None if hits is None else hits[rows].to(z.device)
        return [decode_steps(model.vae, z[rows], uniform.unflatten(1, (model.tokenizer.steps, -1)), sample, struck, model.data.pitches)]

    return by_chunks(chunk, range(len(z)), z.device)[0]


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
        return write_reconstruction(options, seeds, model)
    return write_interpolation(options, seeds, model)
