"""What generate.py writes and says of riffs: files with their records, a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import riffs_by_origin
from config import TokenizerConfig
from dataset import plural
from guitar.fretboard import parse_tuning
from guitar.guitar_pro import STEPS_PER_BEAT
from guitar.tab import unplayable
from measures.metrics import distinct_share, notes_per_bar, rest_ratio, restrike_share
from measures.novelty import Nearest
from midi_utils import Riff, pitch_name, riffs_to_midi, tokens_to_notes
from output.outputs import companions, refuse_to_overwrite, write_with_json
from output.riff_models import RiffModel
from presets import Generate
from steering.attributes import measure

KINDS = {".txt": "tab (.txt)", ".gp5": "Guitar Pro (.gp5)", ".wav": "sound (.wav)"}


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
        "syncopation": float(measure("syncopation", one, tokenizer)[0]),
        "range": float(measure("range", one, tokenizer)[0]),
        "lowest": pitch_name(int(pitch.min())) if len(pitch) else None,
        "highest": pitch_name(int(pitch.max())) if len(pitch) else None,
        "tokens": tokens.tolist(),
    }


def print_table(
    tokens: np.ndarray,
    labels: Sequence[str],
    nearest: Nearest,
    names: Sequence[str],
    tokenizer: TokenizerConfig,
    changed: np.ndarray | None = None,
) -> None:
    """One line per riff, and their means.

    Args:
        labels: of the riffs: seeds, or steps on a way.
        nearest: among all riffs the weights have seen.
        names: of the nearest riffs.
        changed: distance to the riff that was given, 0..1, if there was one.
    """
    most = 20
    head = f"{'seed':>6s} {'notes':>6s} {'rests':>6s} {'lowest':>7s} {'highest':>8s} {'copied':>7s}"
    head += f" {'changed':>8s}" * (changed is not None)
    contour = "semitones above lowest, 0-9a-z"
    print(f"{head}  {contour:{tokenizer.steps + tokenizer.bars - 1}s}  nearest riff")
    for i, (label, riff, copied, name) in enumerate(list(zip(labels, tokens, nearest.copied, names, strict=True))[:most]):
        facts = describe(riff, tokenizer)
        start, end, pitch = tokens_to_notes(riff, tokenizer)
        signs = ["."] * len(riff)
        for first, last, value in zip(start, end, pitch, strict=True):
            signs[first:last] = ["0123456789abcdefghijklmnopqrstuvwxyz"[min(35, int(value - pitch.min()))]] + ["-"] * int(last - first - 1)
        shown = "|".join("".join(signs[i : i + tokenizer.steps_per_bar]) for i in range(0, len(signs), tokenizer.steps_per_bar))
        away = "" if changed is None else f" {changed[i]:8.0%}"
        low, high = facts["lowest"] or "-", facts["highest"] or "-"
        print(f"{label:>6s} {facts['notes']:6d} {facts['rest_ratio']:6.0%} {low:>7s} {high:>8s} {copied:7.0%}{away}  {shown}  {name}")
    if len(labels) > most:
        print(f"   ... and {len(labels) - most} more")
    silent = int((rest_ratio(tokens) == 1).sum())
    print(
        f"  mean: {notes_per_bar(tokens, tokenizer).mean():.1f} notes per bar, rests {rest_ratio(tokens).mean():.1%}; "
        f"{distinct_share(tokens):.0%} distinct, {silent} silent"
    )
    print(
        f"  copied: half of the riffs share {np.median(nearest.copied):.0%} or more of their notes (step and interval) with the "
        f"nearest known riff, the most {nearest.copied.max():.0%}; {int(nearest.copy.sum())} exact or transposed copies"
    )


@dataclasses.dataclass(frozen=True)
class Output:
    """One file to write: riffs in a row."""

    path: Path
    seed: int
    tokens: tuple[np.ndarray, ...]  # int64 [T] each
    markers: tuple[str, ...]  # one for each riff
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)  # for its JSON


def as_riffs(output: Output, bpm: float, program: int) -> list[Riff]:
    """The riffs of a file, with tempo, program and markers."""
    pairs = zip(output.tokens, output.markers, strict=True)
    return [Riff(tokens, ((0.0, bpm),), program, "riff " * text.startswith("seed") + text, ((0.0, text),)) for tokens, text in pairs]


def write_outputs(options: Generate, model: RiffModel, outputs: Sequence[Output], long: Output, made_with: dict[str, Any]) -> None:
    """Write each file and the long one, each with its record, tab and what else is asked for.

    Args:
        made_with: what all have in common, for the records; with bpm and program.

    Raises:
        UserError: somebody's file would be overwritten.
    """
    for output in (long, *outputs):
        refuse_to_overwrite(output.path)
    tokenizer, bpm, program = model.tokenizer, made_with["bpm"], made_with["program"]
    new = np.stack([output.tokens[-1] for output in outputs])
    own, base = riffs_by_origin(model.content, tokenizer)
    among = {"nearest": (own, own.nearest(new)), "nearest_in_base_model": (base, base.nearest(new)) if base else None}
    for i, output in enumerate(outputs):
        riffs = as_riffs(output, bpm, program)
        facts = {"riff": describe(output.tokens[-1], tokenizer)} if len(riffs) == 1 else {}
        facts |= {key: pair[0].describe(pair[1], i) if pair else None for key, pair in among.items()} if len(riffs) == 1 else {}
        beside = companions(riffs, tokenizer, model.board, options.sound)
        write_with_json(output.path, riffs_to_midi(riffs, tokenizer), {"seed": output.seed, **made_with, **output.facts, **facts}, beside)
    riffs = as_riffs(long, bpm, program)
    beside = companions(riffs, tokenizer, model.board, options.sound)
    write_with_json(long.path, riffs_to_midi(riffs, tokenizer), {**made_with, **long.facts}, beside)


def kinds_written(options: Generate, tokenizer: TokenizerConfig) -> str:
    """What lies beside each MIDI file, in words."""
    written = [".txt", *([".gp5"] if tokenizer.steps_per_beat in STEPS_PER_BEAT else []), *([".wav"] if options.sound.wav else [])]
    return ", ".join(KINDS[ending] for ending in written)


def say_guitar(options: Generate, model: RiffModel, riffs: Sequence[Riff]) -> None:
    """The guitar that the riffs are for, and whether a standard one would do."""
    print(f"guitar: {model.board.name}, {model.board.frets} frets")
    if not options.guitar.tuning and (standard := dataclasses.replace(model.board, strings=parse_tuning("standard"))) != model.board:
        lower = sum(bool(unplayable(riff, model.tokenizer, standard)) for riff in riffs)
        need = f"{lower} of {plural(len(riffs), 'riff')} need it; --tuning standard keeps riffs on {standard.name}"
        print(f"        {need if lower else f'none of these riffs needs it; --tuning standard writes them for {standard.name}'}")
