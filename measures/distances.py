"""How far one set of riffs lies from another: fixed features of a riff, and distances between clouds of points.

The features are made by hand and never trained, so no model can be good at them by construction. Points are float arrays
[n, D]; riffs are int token arrays [riffs, steps].
"""

from __future__ import annotations

import numpy as np

from config import TokenizerConfig
from measures.metrics import (
    groove_consistency,
    notes_per_bar,
    onset_mask,
    pitch_class_entropy,
    rest_ratio,
    restrike_share,
    scale_consistency,
)
from midi_utils import tokens_to_notes

# ---------------------------------------------------------------- fixed features


def riff_features(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """What a riff is like, in some fifty numbers a musician would name; silent riffs get zeros where a number needs notes.

    Rests, notes per bar, re-strikes, groove, pitch-class entropy, notes in one scale; lowest, highest, mean and first pitch and the
    range; mean and spread of note lengths and of intervals; share of rising, falling and stepwise intervals; how often each beat
    and each place within a beat has an onset; and how long each pitch class above the lowest note sounds.

    Args:
        tokens: int [riffs, steps]

    Returns:
        float64 [riffs, D], each in its own unit: see `standardize`.
    """
    onsets = onset_mask(tokens, tokenizer)
    whole = [
        rest_ratio(tokens), notes_per_bar(tokens, tokenizer), restrike_share(tokens, tokenizer), groove_consistency(tokens, tokenizer),
        pitch_class_entropy(tokens, tokenizer), scale_consistency(tokens, tokenizer),
    ]  # fmt: skip
    by_beat = onsets.reshape(len(tokens), -1, tokenizer.steps_per_beat)  # [riffs, beats, steps of a beat]
    lines = np.stack([_line_features(*tokens_to_notes(riff, tokenizer)) for riff in tokens])
    return np.concatenate([np.nan_to_num(np.stack(whole, axis=1)), by_beat.mean(axis=2), by_beat.mean(axis=1), lines], axis=1)


def _line_features(start: np.ndarray, end: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """The features of one riff's notes. float64 [26]"""
    if not len(pitch):
        return np.zeros(26)
    length, step = (end - start).astype(float), np.diff(pitch).astype(float)
    step = step if len(step) else np.zeros(1)
    classes = np.bincount((pitch - pitch.min()) % 12, weights=length, minlength=12) / length.sum()
    moves = [np.abs(step).mean(), step.std(), (step > 0).mean(), (step < 0).mean(), (np.abs(step) <= 2).mean(), np.abs(step).max()]
    places = [pitch.min(), pitch.max(), pitch.mean(), pitch[0], pitch[-1], np.ptp(pitch)]
    return np.array([*places, length.mean(), length.std(), *moves, *classes])


def standardize(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Points in units of a reference set: its mean becomes 0 and its standard deviation 1 in each dimension.

    A dimension in which the reference does not vary keeps its own unit.
    """
    std = reference.std(axis=0)
    return (points - reference.mean(axis=0)) / np.where(std > 1e-9, std, 1)


# ---------------------------------------------------------------- distances between clouds


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [n, D], [m, D] -> [n, m]"""
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def median_bandwidth(real: np.ndarray) -> float:
    """The median distance between two points of a set, the usual bandwidth of the kernel below; 1 where all are equal."""
    apart = squared_distances(real, real)[np.triu_indices(len(real), k=1)]
    median = float(np.sqrt(np.median(apart))) if len(apart) else 0.0
    return median or 1.0


def rbf_kernel(a: np.ndarray, b: np.ndarray, bandwidth: float) -> np.ndarray:
    """exp(-|a - b|^2 / (2 bandwidth^2)). [n, m]"""
    return np.exp(-squared_distances(a, b) / (2 * bandwidth**2))


def mmd(
    a: np.ndarray, b: np.ndarray, bandwidth: float,
    groups_a: np.ndarray | None = None, groups_b: np.ndarray | None = None,
    weights_a: np.ndarray | None = None, weights_b: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), by an RBF kernel.

    Around 0 where both sets come from one distribution, also below it. It is unbiased over pairs of independent points only:
    riffs of one song resemble each other, and counting their pairs would make any set of songs look far from any other.

    Args:
        a: [n, D], b: [m, D]
        groups_a: int [n], groups_b: int [m]: pairs within a group are left out; None where every point stands alone.
        weights_a: [R, n], weights_b: [R, m]: how often each point counts in each of R bootstrap draws; None for one
            estimate with all points once.

    Returns:
        float64 [R]; NaN where a set has no pair of independent points.
    """
    weights_a = np.ones((1, len(a))) if weights_a is None else weights_a
    weights_b = np.ones((1, len(b))) if weights_b is None else weights_b

    def within(points: np.ndarray, groups: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
        groups = np.arange(len(points)) if groups is None else np.asarray(groups)
        independent = (groups[:, None] != groups).astype(float)
        pairs = ((weights @ independent) * weights).sum(axis=1)
        sums = ((weights @ (rbf_kernel(points, points, bandwidth) * independent)) * weights).sum(axis=1)
        return np.where(pairs > 0, sums / np.where(pairs > 0, pairs, 1), np.nan)

    pairs_between = weights_a.sum(axis=1) * weights_b.sum(axis=1)
    between = ((weights_a @ rbf_kernel(a, b, bandwidth)) * weights_b).sum(axis=1) / np.where(pairs_between > 0, pairs_between, 1)
    return within(a, groups_a, weights_a) + within(b, groups_b, weights_b) - 2 * between


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two normal distributions fitted to sets of points (Dowson & Landau 1982; FID: Heusel et al. 2017).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2). Biased upwards when n is small against D: compare at equal n only.
    """
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0)).sum()  # tr (C_a C_b)^1/2
    return max(0.0, float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def precision_recall_density_coverage(fake: np.ndarray, real: np.ndarray, k: int = 5) -> dict[str, float]:
    """How much of the fake set lies among the real one, and the other way about.

    Precision and recall: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 2; density and coverage: Naeem et al. 2020
    (arXiv:2002.09797), eq. 3 and 4. Balls reach to a point's k-th nearest neighbour in its own set.

    Returns:
        precision: share of fake points inside some real ball; recall: share of real points inside some fake ball; density: real
        balls around a fake point, over k (may exceed 1); coverage: share of real balls that hold a fake point.

    Raises:
        ValueError: fewer than k + 1 points in a set.
    """
    if min(len(fake), len(real)) <= k:
        raise ValueError(f"{len(fake)} and {len(real)} points: {k} nearest neighbours need more than {k} in each")

    def radii(points: np.ndarray) -> np.ndarray:
        return np.sort(squared_distances(points, points), axis=1)[:, k]  # the nearest of all is the point itself

    apart = squared_distances(real, fake)  # [real, fake]
    in_real_ball = apart < radii(real)[:, None]
    return {
        "precision": float(in_real_ball.any(axis=0).mean()),
        "recall": float((apart < radii(fake)).any(axis=1).mean()),
        "density": float(in_real_ball.sum(axis=0).mean() / k),
        "coverage": float(in_real_ball.any(axis=1).mean()),
    }
