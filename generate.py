"""Write new riffs with a trained run.

    python generate.py [--num-outputs 16] [--seeds 0-15] [--temperature 1.0] [--rest-penalty 0] [--prior diffusion] ...

Writes generated_riff_long.mid (all riffs in a row, a marker at each) to the run folder, and one file per riff to riffs/
beside it, named by seed and tempo. Beside each MIDI file lies a JSON file that says how it was made, and how much of it the
nearest training riff has too; what copies more than --max-copy is drawn again. The same seed gives the same bytes, whatever
else is made with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import BASE_NAME, load_diffusion, load_vae, riffs_by_origin, training_riffs, weights_hash
from config import (
    DIFFUSION_FILE,
    LONG_FILE,
    VAE_FILE,
    Generate,
    TokenizerConfig,
    UserError,
    format_options,
    parse_options,
    parse_seeds,
    run_script,
)
from dataset import plural
from files import write_files
from metrics import distinct_share, notes_per_bar, rest_ratio, restrike_share
from midi_utils import Riff, pitch_name, program_name, riffs_to_midi, tokens_to_notes
from novelty import Nearest
from sampling import MAX_ATTEMPTS, sample_original_riffs
from training import choose_device, choose_threads

PARTS_FOLDER = "riffs"


def describe(tokens: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """What a riff is like, in plain numbers, for its JSON. tokens: int [T]"""
    pitch = tokens_to_notes(tokens, tokenizer)[2]
    one = tokens[None]
    restrikes = float(restrike_share(one, tokenizer)[0])
    return {
        "notes": len(pitch),
        "notes_per_bar": float(notes_per_bar(one, tokenizer)[0]),
        "rest_ratio": float(rest_ratio(one)[0]),
        "restrike_share": None if np.isnan(restrikes) else round(restrikes, 4),
        "lowest": pitch_name(int(pitch.min())) if len(pitch) else None,
        "highest": pitch_name(int(pitch.max())) if len(pitch) else None,
        "tokens": tokens.tolist(),
    }


def refuse_to_overwrite(path: Path) -> None:
    """Our own output may be replaced, since its JSON says how to make it again; anything else may not.

    Raises:
        UserError: there is a file that generate.py did not write, or that was edited since.
    """
    record = path.with_suffix(".json")
    known = ""
    if record.exists():
        try:
            known = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{record}: was not written by generate.py; move it away, or give another --output-dir") from None
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != known:
        raise UserError(f"{path}: is not, or no longer, as generate.py wrote it; move it away, or give another --output-dir")


def plan_files(output_dir: Path, seeds: Sequence[int], bpm: float) -> list[Path]:
    """The files to write, the long one first. Names sort by seed and carry the tempo.

    Raises:
        UserError: one of them would overwrite somebody's file.
    """
    parts = [output_dir / PARTS_FOLDER / f"riff_seed{seed:06d}_{bpm:.0f}bpm.mid" for seed in seeds]
    for path in [output_dir / LONG_FILE, *parts]:
        refuse_to_overwrite(path)
    return [output_dir / LONG_FILE, *parts]


def write_with_json(path: Path, midi: bytes, facts: dict[str, Any]) -> None:
    """Write a MIDI file and the JSON that describes it, both or neither."""
    record = {"file": path.name, "sha256": hashlib.sha256(midi).hexdigest(), **facts}
    write_files({path: midi, path.with_suffix(".json"): (json.dumps(record, indent=1) + "\n").encode()})


def print_table(tokens: np.ndarray, seeds: Sequence[int], nearest: Nearest, names: Sequence[str], tokenizer: TokenizerConfig) -> None:
    """One line per riff, and their means.

    Args:
        nearest: among all riffs the weights have seen.
        names: of the nearest riffs.
    """
    most = 20
    head = f"{'seed':>6s} {'notes':>6s} {'rests':>6s} {'lowest':>7s} {'highest':>8s} {'copied':>7s}"
    contour = "contour (. rest, - hold)"
    print(f"{head}  {contour:{tokenizer.steps + tokenizer.bars - 1}s}  nearest riff")
    for seed, riff, copied, name in list(zip(seeds, tokens, nearest.copied, names, strict=True))[:most]:
        facts = describe(riff, tokenizer)
        start, end, pitch = tokens_to_notes(riff, tokenizer)
        signs = ["."] * len(riff)
        for first, last, value in zip(start, end, pitch, strict=True):
            signs[first:last] = ["0123456789abcdefghijklmnopqrstuvwxyz"[min(35, int(value - pitch.min()))]] + ["-"] * int(last - first - 1)
        shown = "|".join("".join(signs[i : i + tokenizer.steps_per_bar]) for i in range(0, len(signs), tokenizer.steps_per_bar))
        low, high = facts["lowest"] or "-", facts["highest"] or "-"
        print(f"{seed:6d} {facts['notes']:6d} {facts['rest_ratio']:6.0%} {low:>7s} {high:>8s} {copied:7.0%}  {shown}  {name}")
    if len(seeds) > most:
        print(f"   ... and {len(seeds) - most} more")
    silent = int((rest_ratio(tokens) == 1).sum())
    print(
        f"  mean: {notes_per_bar(tokens, tokenizer).mean():.1f} notes per bar, rests {rest_ratio(tokens).mean():.1%}; "
        f"{distinct_share(tokens):.0%} distinct, {silent} silent"
    )
    print(
        f"  copied: {np.median(nearest.copied):.0%} of the middle riff is in its nearest training riff too (same step, same interval), "
        f"{nearest.copied.max():.0%} at most; {int(nearest.copy.sum())} exact or transposed copies"
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(Generate, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    run, sample = options.run, options.sample
    folder = Path(run.run_dir)
    first = run.seed
    seeds = parse_seeds(options.seeds) if options.seeds else list(range(first, first + options.num_outputs))

    # ---- models
    device = choose_device(run.device)
    choose_threads(run.threads)
    vae, content = load_vae(folder / VAE_FILE, str(device))
    diffusion, diffusion_hash = None, None
    if sample.prior == "diffusion":
        diffusion, _ = load_diffusion(folder / DIFFUSION_FILE, vae, str(device))
        timesteps = diffusion.config.num_timesteps
        if sample.sampling_steps > timesteps:
            raise UserError(f"--sampling-steps {sample.sampling_steps}: this model has {timesteps} timesteps; give that many or fewer")
        diffusion_hash = weights_hash(diffusion.state_dict())
    bpm = options.bpm or content["data"]["bpm"]
    program = options.program if options.program >= 0 else content["data"]["program"]
    output_dir = Path(options.output_dir or folder)
    long_path, *paths = plan_files(output_dir, seeds, bpm)

    # ---- music
    pitch_range = (content["data"]["lowest"], content["data"]["highest"])
    known = training_riffs(content, vae.tokenizer)
    origins = dict(zip(("nearest", "nearest_in_base_model"), riffs_by_origin(content, vae.tokenizer), strict=True))
    drawn, attempts, nearest = sample_original_riffs(vae, diffusion, seeds, sample, known, options.max_copy, pitch_range)
    kept = np.flatnonzero(attempts >= 0)
    refused = [seed for seed, attempt in zip(seeds, attempts, strict=True) if attempt < 0]
    if not len(kept):
        raise UserError(
            f"--max-copy {options.max_copy:g}: no seed gave a riff that copies so little, in {MAX_ATTEMPTS} attempts "
            f"({nearest.copied.min():.0%} at least in the last); allow more"
        )
    tokens, nearest, attempts = drawn[kept], nearest.take(kept), attempts[kept]
    among = {key: riffs.nearest(tokens) if riffs else None for key, riffs in origins.items()}
    seeds, paths = [seeds[i] for i in kept], [paths[i] for i in kept]
    made_with = {
        "settings": {**dataclasses.asdict(sample), "max_copy": options.max_copy},
        "bpm": bpm,
        "program": program,
        "pitch_range": pitch_range,
        "tokenizer": dataclasses.asdict(vae.tokenizer),
        "vae": weights_hash(vae.state_dict()),
        "diffusion": diffusion_hash,
    }
    riffs = [
        Riff(riff, ((0.0, bpm),), program, f"riff seed {seed}", ((0.0, f"seed {seed}"),)) for seed, riff in zip(seeds, tokens, strict=True)
    ]
    for i, (seed, riff, path) in enumerate(zip(seeds, riffs, paths, strict=True)):
        facts = {"attempt": int(attempts[i]), "riff": describe(riff.tokens, vae.tokenizer)}
        facts |= {
            key: riffs.describe(found, i) if riffs and found else None
            for (key, found), riffs in zip(among.items(), origins.values(), strict=True)
        }
        write_with_json(path, riffs_to_midi([riff], vae.tokenizer), {"seed": seed, **made_with, **facts})
    parts = [{"seed": seed, "file": path.relative_to(output_dir).as_posix()} for seed, path in zip(seeds, paths, strict=True)]
    write_with_json(long_path, riffs_to_midi(riffs, vae.tokenizer), {**made_with, "riffs": parts})

    # ---- what was made
    print_table(
        tokens,
        seeds,
        nearest,
        ["(the base model's)" if known.names[i].startswith(BASE_NAME) else known.names[i] for i in nearest.index],
        vae.tokenizer,
    )
    bars = len(seeds) * vae.tokenizer.bars
    print(f"{long_path}: {len(seeds)} riffs in a row, {bars} bars at {bpm:g} bpm, {program_name(program)}")
    print(f"{output_dir / PARTS_FOLDER}: one file for each riff, how it was made and what it is closest to (.json)")
    others = set((output_dir / PARTS_FOLDER).glob("riff_seed*.mid")) - set(paths)
    if others:
        print(f"{output_dir / PARTS_FOLDER}: {plural(len(others), 'riff')} of earlier calls lie there too; --output-dir keeps sets apart")
    if (attempts > 0).any():
        print(f"drawn again because they copied too much (--max-copy {options.max_copy:g}): {int((attempts > 0).sum())} of {len(seeds)}")
    if refused:
        shown = ", ".join(map(str, refused[:8])) + ", ..." * (len(refused) > 8)
        print(
            f"generate.py: no riff for seed {shown}: {MAX_ATTEMPTS} attempts all copied more than --max-copy {options.max_copy:g}",
            file=sys.stderr,
        )
    return 1 if refused else 0


if __name__ == "__main__":
    run_script(main)
