"""Write new riffs, or whole pieces, with a trained run.

    python generate.py [--num-outputs 16] [--seeds 0-15] [--temperature 1.0] [--rest-penalty 0] [--prior diffusion] ...
    python generate.py --preset events_lstm [--length 4000] [--top-k 50] [--prime FILE.mid --prime-tokens 64] ...

Writes generated_riff_long.mid (all riffs in a row, a marker at each) to the run folder, and one file per riff to riffs/
beside it, named by seed and tempo. Beside each MIDI file lies a JSON file that says how it was made, and how much of it the
nearest training riff has too; what copies more than --max-copy is drawn again. The same seed gives the same bytes, whatever
else is made with it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import (
    BASE_NAME,
    build_config,
    load_diffusion,
    load_language_model,
    load_vae,
    riffs_by_origin,
    training_riffs,
    weights_hash,
)
from config import (
    DIFFUSION_FILE,
    LM_FILE,
    LONG_FILE,
    VAE_FILE,
    EventConfig,
    GuitarConfig,
    SoundConfig,
    TokenizerConfig,
    UserError,
    run_script,
)
from dataset import plural
from events import events_to_midi, midi_to_events
from files import make_room
from fretboard import Fretboard, fretboard, parse_tuning
from language_model import LanguageModel
from metrics import distinct_share, notes_per_bar, rest_ratio, restrike_share
from midi_utils import MidiError, Riff, pitch_name, program_name, read_midi, riffs_to_midi, tokens_to_notes
from novelty import Nearest, TrainingPieces
from outputs import companions, refuse_to_overwrite, write_with_json
from piece_evaluation import piece_facts
from pieces import Vocabulary, event_vocabulary
from presets import Generate, format_options, is_language_model, parse_options, parse_seeds, preset_options, writes_events
from sampling import MAX_ATTEMPTS, Draw, sample_events, sample_original_riffs, sample_riffs, sample_riffs_by_lm
from tab import unplayable
from training import choose_device, choose_threads

PARTS_FOLDER, PIECES_FOLDER = "riffs", "pieces"
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
        "lowest": pitch_name(int(pitch.min())) if len(pitch) else None,
        "highest": pitch_name(int(pitch.max())) if len(pitch) else None,
        "tokens": tokens.tolist(),
    }


def plan_files(output_dir: Path, seeds: Sequence[int], bpm: float) -> list[Path]:
    """The files to write, the long one first. Names sort by seed and carry the tempo.

    Raises:
        UserError: one of them would overwrite somebody's file.
    """
    parts = [output_dir / PARTS_FOLDER / f"riff_seed{seed:06d}_{bpm:.0f}bpm.mid" for seed in seeds]
    for path in [output_dir / LONG_FILE, *parts]:
        refuse_to_overwrite(path)
    return [output_dir / LONG_FILE, *parts]


def print_table(tokens: np.ndarray, seeds: Sequence[int], nearest: Nearest, names: Sequence[str], tokenizer: TokenizerConfig) -> None:
    """One line per riff, and their means.

    Args:
        nearest: among all riffs the weights have seen.
        names: of the nearest riffs.
    """
    most = 20
    head = f"{'seed':>6s} {'notes':>6s} {'rests':>6s} {'lowest':>7s} {'highest':>8s} {'copied':>7s}"
    contour = "semitones above lowest, 0-9a-z"
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
        f"  copied: half of the riffs share {np.median(nearest.copied):.0%} or more of their notes (step and interval) with the "
        f"nearest known riff, the most {nearest.copied.max():.0%}; {int(nearest.copy.sum())} exact or transposed copies"
    )


@dataclasses.dataclass(frozen=True)
class RiffModel:
    """Trained models that write riffs: a VAE with its prior, or a language model."""

    tokenizer: TokenizerConfig
    content: dict[str, Any]  # of the checkpoint that knows the training riffs
    board: Fretboard  # the guitar that the riffs are for
    pitch_range: tuple[int, int]  # MIDI pitches that the riffs stay in: those of the training riffs that the guitar has
    draw: Draw
    hashes: dict[str, str | None]  # of the weights, for the record


def load_riff_model(options: Generate, device: torch.device) -> RiffModel:
    """The models of a run.

    Raises:
        UserError: none there, or they do not fit together.
    """
    folder, sample = Path(options.run.run_dir), options.sample
    if is_language_model(options.preset):
        model, content = load_language_model(folder / LM_FILE, "riff", str(device))
        tokenizer = build_config(TokenizerConfig, content["tokenizer"], folder / LM_FILE)
        board, pitch_range = guitar_of(content, options)

        def draw_by_lm(seeds: Sequence[int], attempt: int) -> np.ndarray:
            return sample_riffs_by_lm(model, tokenizer, seeds, sample, pitch_range, attempt)

        return RiffModel(tokenizer, content, board, pitch_range, draw_by_lm, {"language_model": weights_hash(model.state_dict())})
    vae, content = load_vae(folder / VAE_FILE, str(device))
    diffusion = None
    if sample.prior == "diffusion":
        diffusion, _ = load_diffusion(folder / DIFFUSION_FILE, vae, str(device))
        timesteps = diffusion.config.num_timesteps
        if sample.sampling_steps > timesteps:
            raise UserError(f"--sampling-steps {sample.sampling_steps}: this model has {timesteps} timesteps; give that many or fewer")

    board, pitch_range = guitar_of(content, options)

    def draw(seeds: Sequence[int], attempt: int) -> np.ndarray:
        return sample_riffs(vae, diffusion, seeds, sample, pitch_range, attempt)[0]

    hashes = {"vae": weights_hash(vae.state_dict()), "diffusion": weights_hash(diffusion.state_dict()) if diffusion else None}
    return RiffModel(vae.tokenizer, content, board, pitch_range, draw, hashes)


def guitar_of(content: Mapping[str, Any], options: Generate) -> tuple[Fretboard, tuple[int, int]]:
    """The guitar that riffs are written for, and the MIDI pitches they stay in: those of the training riffs that it has.

    Raises:
        UserError: it has none of them, or there is no such tuning.
    """
    low, high = content["data"]["lowest"], content["data"]["highest"]
    board = fretboard(options.guitar, low, high)
    both = max(low, board.lowest), min(high, board.highest)
    if both[0] > both[1]:
        raise UserError(
            f"--tuning {board.notes}: goes from {pitch_name(board.lowest)} to {pitch_name(board.highest)}, "
            f"the training riffs from {pitch_name(low)} to {pitch_name(high)}; give another"
        )
    return board, both


def write_riffs(options: Generate, seeds: list[int], device: torch.device) -> int:
    """Riffs: one file each, and all in a row. -> exit status"""
    model = load_riff_model(options, device)
    content, tokenizer = model.content, model.tokenizer
    bpm = options.bpm or content["data"]["bpm"]
    program = options.program if options.program >= 0 else content["data"]["program"]
    output_dir = Path(options.output_dir or options.run.run_dir)
    long_path, *paths = plan_files(output_dir, seeds, bpm)

    # ---- music
    known = training_riffs(content, tokenizer)
    origins = dict(zip(("nearest", "nearest_in_base_model"), riffs_by_origin(content, tokenizer), strict=True))
    drawn, attempts, nearest = sample_original_riffs(model.draw, seeds, known, options.max_copy)
    kept = np.flatnonzero(attempts >= 0)
    refused = [seed for seed, attempt in zip(seeds, attempts, strict=True) if attempt < 0]
    if not len(kept):
        raise UserError(
            f"--max-copy {options.max_copy:g}: no seed gave a riff that copies so little, in {MAX_ATTEMPTS} attempts "
            f"({nearest.copied.min():.0%} at least in the last); allow more"
        )
    tokens, nearest, attempts = drawn[kept], nearest.take(kept), attempts[kept]
    among = {key: (riffs, riffs.nearest(tokens)) if riffs else None for key, riffs in origins.items()}
    seeds, paths = [seeds[i] for i in kept], [paths[i] for i in kept]
    made_with = {
        "settings": {**dataclasses.asdict(options.sample), "max_copy": options.max_copy},
        "bpm": bpm,
        "program": program,
        "pitch_range": model.pitch_range,
        "tuning": model.board.notes,
        "capo": model.board.capo,
        "tokenizer": dataclasses.asdict(tokenizer),
        **model.hashes,
    }
    riffs = [
        Riff(riff, ((0.0, bpm),), program, f"riff seed {seed}", ((0.0, f"seed {seed}"),)) for seed, riff in zip(seeds, tokens, strict=True)
    ]
    for i, (seed, riff, path) in enumerate(zip(seeds, riffs, paths, strict=True)):
        facts = {"attempt": int(attempts[i]), "riff": describe(riff.tokens, tokenizer)}
        facts |= {key: pair[0].describe(pair[1], i) if pair else None for key, pair in among.items()}
        beside = companions([riff], tokenizer, model.board, options.sound)
        write_with_json(path, riffs_to_midi([riff], tokenizer), {"seed": seed, **made_with, **facts}, beside)
    parts = [{"seed": seed, "file": path.relative_to(output_dir).as_posix()} for seed, path in zip(seeds, paths, strict=True)]
    beside = companions(riffs, tokenizer, model.board, options.sound)
    write_with_json(long_path, riffs_to_midi(riffs, tokenizer), {**made_with, "riffs": parts}, beside)

    # ---- what was made
    names = ["(the base model's)" if known.names[i].startswith(BASE_NAME) else known.names[i] for i in nearest.index]
    print_table(tokens, seeds, nearest, names, tokenizer)
    bars = len(seeds) * tokenizer.bars
    print(f"{long_path}: {plural(len(seeds), 'riff')} in a row, {bars} bars at {bpm:g} bpm, {program_name(program)}")
    kinds = ", ".join(KINDS[ending] for ending in beside)
    print(f"{output_dir / PARTS_FOLDER}: one file for each riff, how it was made and what it is closest to (.json); with {kinds}")
    print(f"guitar: {model.board.name}, {model.board.frets} frets")
    if not options.guitar.tuning and (standard := dataclasses.replace(model.board, strings=parse_tuning("standard"))) != model.board:
        lower = sum(bool(unplayable(riff, tokenizer, standard)) for riff in riffs)
        print(f"        {lower} of {plural(len(riffs), 'riff')} cannot be played on {standard.name}; --tuning keeps riffs on another")
    mention_others(output_dir / PARTS_FOLDER, "riff", paths)
    return report_redrawn("riff", seeds, attempts, refused, options.max_copy)


def mention_others(folder: Path, noun: str, ours: Sequence[Path]) -> None:
    """Say that files of earlier calls lie beside those of this one."""
    others = set(folder.glob(f"{noun}_seed*.mid")) - set(ours)
    if others:
        print(f"{folder}: {plural(len(others), noun)} of earlier calls lie there too; --output-dir keeps sets apart")


def report_redrawn(noun: str, seeds: Sequence[int], attempts: np.ndarray, refused: Sequence[int], max_copy: float) -> int:
    """Say what was drawn again and what could not be had. -> exit status"""
    if (attempts > 0).any():
        print(f"drawn again because they copied too much (--max-copy {max_copy:g}): {int((attempts > 0).sum())} of {len(seeds)}")
    if refused:
        shown = ", ".join(map(str, refused[:8])) + ", ..." * (len(refused) > 8)
        print(
            f"generate.py: no {noun} for seed {shown}: {MAX_ATTEMPTS} attempts all copied more than --max-copy {max_copy:g}",
            file=sys.stderr,
        )
    return 1 if refused else 0


# ---------------------------------------------------------------- pieces


def prime_tokens(options: Generate, events: EventConfig) -> np.ndarray | None:
    """The beginning to go on from: BOS and the first tokens of a file; None without one.

    Raises:
        UserError: the file cannot be read, or nothing is left to write.
    """
    if not options.prime:
        return None
    try:
        tokens = midi_to_events(read_midi(options.prime), events)[:-1]
    except MidiError as error:
        reason = "only drums, which this model does not read" if "--drums" in str(error) else str(error)
        raise UserError(f"--prime {options.prime}: {reason}") from None
    tokens = tokens[: options.prime_tokens + 1]
    if len(tokens) >= options.length:
        raise UserError(
            f"--length {options.length}: is filled by the {len(tokens) - 1} tokens of --prime; give more, or fewer --prime-tokens"
        )
    return tokens


def sample_original_pieces(
    model: LanguageModel, vocabulary: Vocabulary, seeds: Sequence[int], options: Generate, prime: np.ndarray | None, known: TrainingPieces
) -> tuple[list[np.ndarray], np.ndarray, list[tuple[float, int, str]]]:
    """Draw one piece for each seed, and draw it again, up to MAX_ATTEMPTS times in all, where it copies too much.

    Returns:
        tokens; attempts: int64 [seeds], -1 where none would do; and what each shares with the training pieces (TrainingPieces.shared).
    """
    given = 0 if prime is None else len(prime)  # what was given is not copied by the model
    pieces: list[np.ndarray] = [np.empty(0)] * len(seeds)
    shared = [(0.0, 0, "")] * len(seeds)
    attempts, again = np.zeros(len(seeds), dtype=np.int64), list(range(len(seeds)))
    for attempt in range(MAX_ATTEMPTS):
        found = sample_events(model, vocabulary, [seeds[i] for i in again], options.sample, options.length, prime, attempt=attempt)
        for i, piece in zip(again, found, strict=True):
            pieces[i], shared[i], attempts[i] = piece, known.shared(piece[given:]), attempt
        again = [i for i in again if shared[i][0] > options.max_copy]
        if not again:
            break
    attempts[again] = -1
    return pieces, attempts, shared


def write_pieces(options: Generate, seeds: list[int], device: torch.device) -> int:
    """Pieces of event tokens: one file each. -> exit status"""
    path = Path(options.run.run_dir) / LM_FILE
    model, content = load_language_model(path, "events", str(device))
    events = build_config(EventConfig, content["events"], path)
    program = options.program if options.program >= 0 else content["data"]["program"]
    prime = prime_tokens(options, events)
    folder = Path(options.output_dir or options.run.run_dir) / PIECES_FOLDER
    paths = [folder / f"piece_seed{seed:06d}.mid" for seed in seeds]
    for file in paths:
        refuse_to_overwrite(file)

    # ---- music
    known = TrainingPieces([piece.numpy() for piece in content["known"]["tokens"]], content["known"]["names"])
    make_room(folder)
    pieces, attempts, shared = sample_original_pieces(model, event_vocabulary(events), seeds, options, prime, known)
    refused = [seed for seed, attempt in zip(seeds, attempts, strict=True) if attempt < 0]
    made_with = {
        "settings": {
            **{name: getattr(options.sample, name) for name in ("temperature", "top_k", "top_p", "grammar")},
            "max_copy": options.max_copy,
            "length": options.length,
        },
        "prime": {"file": Path(options.prime).name, "tokens": len(prime) - 1} if prime is not None else None,
        "program": program,
        "events": content["events"],
        "language_model": weights_hash(model.state_dict()),
    }
    head = f"{'seed':>6s} {'tokens':>7s} {'notes':>6s} {'seconds':>8s} {'entropy':>8s} {'notes/s':>8s} {'4-grams':>8s} {'copied':>7s}"
    print(f"{head}  longest passage from")
    for seed, piece, attempt, (share, length, name), file in zip(seeds, pieces, attempts, shared, paths, strict=True):
        if attempt < 0:
            continue
        facts = piece_facts(piece, events)
        shown = {key: None if np.isnan(value) else round(float(value), 4) for key, value in facts.items()}
        nearest = {"piece": name, "copied": round(share, 4), "passage": length}
        record = {"seed": seed, **made_with, "attempt": int(attempt), "nearest": nearest, "piece": {**shown, "tokens": piece.tolist()}}
        write_with_json(file, events_to_midi(piece, events, program, f"piece seed {seed}"), record)
        ended = "" if facts["ended"] else f"  (cut at --length {options.length})"
        print(
            f"{seed:6d} {len(piece):7d} {facts['notes']:6.0f} {facts['seconds']:8.1f} {facts['pitch_class_entropy']:8.3f} "
            f"{facts['note_density']:8.3f} {facts['ngram_repetition']:8.3f} {share:7.0%}  {name}{ended}"
        )
    if len(refused) < len(seeds):
        given = ", without --prime" if prime is not None else ""
        print(f"entropy: of pitch classes, bits; 4-grams: share of passages of four tokens heard before; copied: in one passage{given}")
        print(f"{folder}: one file for each piece, {program_name(program)}, and how it was made (.json)")
    mention_others(folder, "piece", [file for file, attempt in zip(paths, attempts, strict=True) if attempt >= 0])
    return report_redrawn("piece", seeds, attempts, refused, options.max_copy)


# ---------------------------------------------------------------- main

# Options that mean nothing to a kind of model, as section.name; "" is the script itself.
RIFFS_ALONE = (
    ".bpm",
    *(f"guitar.{f.name}" for f in dataclasses.fields(GuitarConfig)),
    *(f"sound.{f.name}" for f in dataclasses.fields(SoundConfig)),
)
DIFFUSION_ALONE = ("sample.prior", "sample.sampling_steps", "sample.eta")
PIECES_ALONE = (".prime", ".prime_tokens", ".length", "sample.grammar")


def refuse_without_effect(options: Generate, seeds: Sequence[int]) -> None:
    """
    Raises:
        UserError: an option was given that would change nothing, or a temperature that makes all pieces the same.
    """
    base = preset_options(Generate, options.preset)
    pieces, lm = writes_events(options.preset), is_language_model(options.preset)
    idle = (*RIFFS_ALONE, "sample.rest_penalty", *DIFFUSION_ALONE) if pieces else (*PIECES_ALONE, *(DIFFUSION_ALONE if lm else ()))
    for key in idle:
        section, name = key.split(".")
        ours, theirs = ((getattr(part, section) if section else part) for part in (options, base))
        if getattr(ours, name) != getattr(theirs, name):
            kind = ("a language model of " if lm else "a model of ") + ("whole pieces (events)" if pieces else "riffs")
            raise UserError(f"--{name.replace('_', '-')}: has no effect on {options.preset}, {kind}; leave it out")
    if lm and options.sample.temperature == 0 and len(seeds) > 1:
        raise UserError("--temperature 0: makes the same for every seed; give --num-outputs 1, or a temperature above 0")


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(Generate, argv)
    if options.run.dry_run:
        print(format_options(options))
        return 0
    first = options.run.seed
    seeds = parse_seeds(options.seeds) if options.seeds else list(range(first, first + options.num_outputs))
    refuse_without_effect(options, seeds)
    device = choose_device(options.run.device)
    choose_threads(options.run.threads)
    if writes_events(options.preset):
        return write_pieces(options, seeds, device)
    return write_riffs(options, seeds, device)


if __name__ == "__main__":
    run_script(main)
