"""Whole pieces by a language model of events: drawn, checked for copying, written with their records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from checkpoints import build_config, load_language_model, weights_hash
from config import LM_FILE, EventConfig, UserError
from events import events_to_midi, midi_to_events
from files import make_room, require_file
from language_model import LanguageModel
from lm_sampling import sample_events
from measures.novelty import TrainingPieces
from measures.piece_evaluation import piece_facts
from midi_utils import MidiError, program_name, read_midi
from output.outputs import mention_others, refuse_to_overwrite, report_redrawn, write_with_json
from pieces import Vocabulary, event_vocabulary
from presets import Sample
from sampling import MAX_ATTEMPTS

PIECES_FOLDER = "pieces"


def prime_tokens(options: Sample, events: EventConfig) -> np.ndarray | None:
    """The beginning to go on from: BOS and the first tokens of a file; None without one.

    Raises:
        UserError: the file cannot be read, or nothing is left to write.
    """
    if not options.prime:
        return None
    require_file(options.prime, "--prime ")
    try:
        tokens = midi_to_events(read_midi(options.prime), events)[:-1]
    except MidiError as error:
        reason = "only drums, which this model does not read" if "--drums" in str(error) else str(error)
        raise UserError(f"--prime {options.prime}: {reason}") from None
    tokens = tokens[: options.prime_tokens + 1]
    if len(tokens) >= options.length:
        raise UserError(
            f"--length {options.length}: is filled by the {len(tokens) - 1} tokens of --prime and what stands before them; "
            f"give {len(tokens) + 1} or more, or fewer --prime-tokens"
        )
    return tokens


def sample_original_pieces(
    model: LanguageModel, vocabulary: Vocabulary, seeds: Sequence[int], options: Sample, prime: np.ndarray | None, known: TrainingPieces
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


def write_pieces(options: Sample, seeds: list[int], device: torch.device) -> int:
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
            **{name: getattr(options.sample, name) for name in ("temperature", "top_k", "top_p", "grammar", "precision")},
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
    return report_redrawn("piece", attempts, refused, options.max_copy, MAX_ATTEMPTS)
