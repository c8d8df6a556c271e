"""Make many, keep a few: the best by some measure that also differ from each other."""

from __future__ import annotations

from typing import get_args

import numpy as np

from config import PickBy, TokenizerConfig
from measures.distances import riff_features, squared_distances, standardize
from measures.novelty import riff_distances
from steering.attributes import measure

BY = get_args(PickBy)
VARIETY = 0.5  # share of variety in the choice, the rest is quality
NEIGHBOURS = 5  # training riffs that say how typical a riff is


def qualities(by: str, tokens: np.ndarray, known: np.ndarray, distance: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """How much riffs have of what they are picked by.

    Args:
        by: of BY. novelty is the distance to the nearest training riff; typicality is the closeness, in the features that evaluate.py
            compares sets of riffs by, to the nearest few training riffs; the others are attributes.
        tokens: int [riffs, T]
        known: int [training riffs, T]
        distance: float [riffs], see novelty.Nearest.

    Returns:
        float64 [riffs]
    """
    if by == "novelty":
        return distance
    if by == "typicality":
        reference = riff_features(known, tokenizer)
        ours, theirs = (standardize(points, reference) for points in (riff_features(tokens, tokenizer), reference))
        return -np.sort(np.sqrt(squared_distances(ours, theirs)), axis=1)[:, :NEIGHBOURS].mean(axis=1)
    return measure(by, tokens, tokenizer)


def pick(quality: np.ndarray, tokens: np.ndarray, count: int, tokenizer: TokenizerConfig) -> np.ndarray:
    """A varied best set: the best first, then always the riff with the best sum of quality and distance to those already taken.

    Maximal marginal relevance (Carbonell & Goldstein 1998). Quality counts by rank, distance by edits over (onset, interval) events.

    Args:
        quality: float [riffs]
        tokens: int [riffs, T]
        count: how many, at most riffs.

    Returns:
        int64 [count], in the order taken.
    """
    apart = riff_distances(tokens, tokens, tokenizer)
    rank = np.argsort(np.argsort(quality, kind="stable"), kind="stable") / max(1, len(quality) - 1)
    taken = [int(np.argmax(rank))]
    while len(taken) < min(count, len(quality)):
        value = (1 - VARIETY) * rank + VARIETY * apart[:, taken].min(axis=1)
        value[taken] = -np.inf
        taken.append(int(np.argmax(value)))
    return np.array(taken)
