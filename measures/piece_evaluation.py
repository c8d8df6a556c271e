"""Whole pieces set side by side: what evaluation.py does for riffs, for pieces of event tokens of any length. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from config import EventConfig
from events import EOS, events_to_notes
from measures.evaluation import HELD, MORE, RESAMPLES, Measured, Metric, conclude, weighted_means
from measures.metrics import class_entropy, repeated_grams
from measures.novelty import TrainingPieces

PIECE_METRICS: dict[str, Metric] = {
    "pitch_class_entropy": Metric("pitch-class entropy", "inside", "bits; 0 is one pitch class, 3.58 all twelve equally often"),
    "note_density": Metric("notes per second", "inside", "notes over the seconds from the first onset to the last end"),
    "ngram_repetition": Metric("4-gram repetition", "inside", "1 - unique / all passages of four tokens"),
    "seconds": Metric("seconds", "inside", "from the first onset to the last end"),
    "polyphony": Metric("notes at a time", "inside", "mean over the time in which any sounds"),
    "pitch_range": Metric("pitch range", "inside", "semitones from the lowest to the highest note"),
    "copied": Metric("copied", "at most", "share of a piece that stands in one training piece, in one passage", MORE),
}


def piece_facts(tokens: np.ndarray, events: EventConfig) -> dict[str, float]:
    """What a piece is like; NaN where it has no notes.

    Args:
        tokens: int [tokens], with or without BOS and EOS.

    Returns:
        notes; seconds; pitch_class_entropy (bits), note_density (notes per second) and ngram_repetition (of tokens), as the event
        LSTM's reference measures them; polyphony; pitch_range (semitones); ended (whether an EOS ended it).
    """
    (start, end, pitch), length = events_to_notes(tokens)
    facts = {"notes": len(pitch), "ended": float((tokens == EOS).any()), "ngram_repetition": repeated_grams(tokens, 4)}
    if not len(pitch):
        return facts | dict.fromkeys(("seconds", "pitch_class_entropy", "note_density", "polyphony", "pitch_range"), float("nan"))
    seconds = int(end.max() - start[0]) * events.time_step_ms / 1000
    changes = np.bincount(start, minlength=length + 1) - np.bincount(end, minlength=length + 1)
    sounding = np.cumsum(changes)
    return facts | {
        "seconds": seconds,
        "pitch_class_entropy": class_entropy(pitch),
        "note_density": len(pitch) / seconds,
        "polyphony": float(sounding[sounding > 0].mean()),
        "pitch_range": float(pitch.max() - pitch.min()),
    }


def compare_pieces(
    held: Sequence[np.ndarray], rows: Mapping[str, Sequence[np.ndarray]], known: TrainingPieces, events: EventConfig, seed: int = 0
) -> dict[str, Any]:
    """Measure pieces and judge them by the held-out ones, whose bootstrap interval (whole pieces are drawn) is the band.

    Args:
        held: int [tokens] each.
        rows: the pieces to judge, by name.

    Returns:
        see evaluation.compare.
    """
    measured: dict[str, dict[str, Measured]] = {key: {} for key in PIECE_METRICS}
    for number, (name, pieces) in enumerate({HELD: held, **rows}.items()):
        facts = [{**piece_facts(piece, events), "copied": known.shared(piece)[0]} for piece in pieces]
        rng = np.random.default_rng(np.random.SeedSequence([seed, number]))
        weights = rng.multinomial(len(facts), np.full(len(facts), 1 / len(facts)), size=RESAMPLES).astype(float)
        for key in PIECE_METRICS:
            values = np.array([fact[key] for fact in facts])
            value = float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
            measured[key][name] = Measured(value, weighted_means(values, weights))
    return conclude([measured], PIECE_METRICS)
