"""What we measure on riffs: small pure functions over token arrays. No torch, no files.

Tokens are int arrays [riffs, steps]; a riff with no notes counts where that makes sense and is left out where it does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from config import HOLD, REST, TokenizerConfig
from midi_utils import tokens_to_notes


def onset_mask(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Where notes start. bool [riffs, steps]"""
    sounds = (tokens != REST) & (tokens != HOLD)
    if tokenizer.hold_token:
        return sounds
    before = np.concatenate((np.full_like(tokens[:, :1], REST), tokens[:, :-1]), axis=1)
    return sounds & (tokens != before)


def rest_ratio(tokens: np.ndarray) -> np.ndarray:
    """Share of silent steps of each riff, 0..1. float [riffs]"""
    return (tokens == REST).mean(axis=1)


def notes_per_bar(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Note onsets of each riff, per bar. float [riffs]"""
    return onset_mask(tokens, tokenizer).sum(axis=1) / tokenizer.bars


def restrike_share(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Share of each riff's notes, from its second, that repeat the pitch before. float [riffs], NaN below two notes"""
    shares = np.full(len(tokens), np.nan)
    for i, riff in enumerate(tokens):
        pitch = tokens_to_notes(riff, tokenizer)[2]
        if len(pitch) > 1:
            shares[i] = np.mean(pitch[1:] == pitch[:-1])
    return shares


_MAJOR, _HARMONIC_MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)
# Pitch classes of 24 keys: a natural minor key has the notes of its relative major, so minor means harmonic minor here.
_SCALES = np.array([[(pitch - root) % 12 in scale for pitch in range(12)] for scale in (_MAJOR, _HARMONIC_MINOR) for root in range(12)])


def scale_consistency(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Largest share of a riff's notes that lie in one of 24 keys. float [riffs], 0..1, NaN for a silent riff"""
    shares = np.full(len(tokens), np.nan)
    for i, riff in enumerate(tokens):
        pitch = tokens_to_notes(riff, tokenizer)[2]
        if len(pitch):
            shares[i] = _SCALES[:, pitch % 12].mean(axis=1).max()
    return shares


def relative_tokens(tokens: np.ndarray) -> np.ndarray:
    """Tokens with pitches counted from the riff's first note (as 64), so that transposed riffs are equal. int [riffs, steps]"""
    sounds = (tokens != REST) & (tokens != HOLD)
    first = tokens[np.arange(len(tokens)), sounds.argmax(axis=1)]
    return np.where(sounds, tokens - first[:, None] + 64 + 256, tokens)  # + 256 keeps pitches apart from rest and hold


def distinct_share(tokens: np.ndarray) -> float:
    """Share of riffs that differ from all earlier ones, 0..1."""
    return len(np.unique(tokens, axis=0)) / len(tokens)


def accuracies(predicted: np.ndarray, target: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, float]:
    """How much of some riffs a model returns.

    Args:
        predicted, target: int [riffs, steps]

    Returns:
        accuracy: share of steps whose token is right; onset_accuracy: the same over the steps on which the target has a note
        onset (holds make plain accuracy flattering); exact: share of riffs that are right in every step.
    """
    right = predicted == target
    onsets = onset_mask(target, tokenizer)
    return {
        "accuracy": float(right.mean()),
        "onset_accuracy": float(right[onsets].mean()) if onsets.any() else float("nan"),
        "exact": float(right.all(axis=1).mean()),
    }


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray | None = None, statistic: Callable = np.mean, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:  # fmt: skip
    """95 % percentile bootstrap interval of a statistic (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: float [n], without NaN.
        groups: int [n]; whole groups are drawn, because riffs of one song resemble each other. None draws single values.

    Returns:
        (lower, upper)

    Raises:
        ValueError: no values, or a NaN among them.
    """
    values = np.asarray(values, dtype=float)
    if not len(values) or np.isnan(values).any():
        raise ValueError("the bootstrap needs values, and none of them NaN: drop those riffs first")
    members = (
        [np.flatnonzero(groups == g) for g in np.unique(groups)] if groups is not None else [np.array([i]) for i in range(len(values))]
    )
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(members), size=(resamples, len(members)))
    results = [statistic(values[np.concatenate([members[i] for i in draw])]) for draw in draws]
    low, high = np.percentile(results, [2.5, 97.5])
    return float(low), float(high)
