"""Features and distances against scipy, closed forms and loops written from the papers' definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist

from config import HOLD, REST, TokenizerConfig
from measures.distances import (
    frechet_distance,
    median_bandwidth,
    mmd,
    precision_recall_density_coverage,
    rbf_kernel,
    riff_features,
    squared_distances,
    standardize,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(9, 4)), RNG.normal(0.5, 1.4, size=(7, 4))


# ---------------------------------------------------------------- kernels


def test_squared_distances_and_bandwidth_equal_scipys() -> None:
    np.testing.assert_allclose(squared_distances(A, B), cdist(A, B, "sqeuclidean"), atol=1e-12)
    assert (squared_distances(A * 1e8, A * 1e8) >= 0).all()  # rounding must not make a root of it impossible
    assert median_bandwidth(A[:7]) == pytest.approx(np.median(pdist(A[:7])))
    assert median_bandwidth(np.ones((5, 3))) == median_bandwidth(np.ones((1, 3))) == 1.0
    np.testing.assert_allclose(rbf_kernel(A, B, 0.7), np.exp(-cdist(A, B, "sqeuclidean") / (2 * 0.49)))


# ---------------------------------------------------------------- MMD


def naive_mmd(a, b, bandwidth, groups_a, groups_b, counts_a, counts_b) -> float:
    """Means over pairs, one by one; a point that counts twice stands there twice."""

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2))

    def within(points, groups, counts):
        some = np.repeat(np.arange(len(points)), counts)
        values = [kernel(points[i], points[j]) for i in some for j in some if groups[i] != groups[j]]
        return np.mean(values) if values else np.nan

    between = [kernel(a[i], b[j]) for i in np.repeat(np.arange(len(a)), counts_a) for j in np.repeat(np.arange(len(b)), counts_b)]
    return within(a, groups_a, counts_a) + within(b, groups_b, counts_b) - 2 * np.mean(between)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_mmd_equals_a_double_loop(grouped: bool, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    alone = np.arange(len(A)), np.arange(len(B))
    groups = (np.array(list("aaabbcccd")), np.array([0, 0, 1, 1, 1, 2, 3])) if grouped else alone
    weights = (rng.multinomial(9, np.full(9, 1 / 9), size=5), rng.multinomial(7, np.full(7, 1 / 7), size=5)) if weighted else None
    found = mmd(A, B, 1.3, *(groups if grouped else (None, None)), *(w.astype(float) for w in weights or ()))
    ones = (np.ones((1, len(A)), dtype=int), np.ones((1, len(B)), dtype=int))
    expected = [naive_mmd(A, B, 1.3, *groups, counts_a, counts_b) for counts_a, counts_b in zip(*(weights or ones), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mmd_is_unbiased() -> None:
    """Around 0 for two draws from one distribution (the biased estimate lies above it), and above it for two that differ."""
    rng = np.random.default_rng(2)
    same = [mmd(rng.normal(size=(10, 3)), rng.normal(size=(8, 3)), 1.5)[0] for _ in range(2000)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 3.5 * error < 0.01
    other = [mmd(rng.normal(size=(10, 3)), rng.normal(1.0, 1.0, size=(8, 3)), 1.5)[0] for _ in range(50)]
    assert np.mean(other) > 20 * error


def test_mmd_is_unbiased_for_riffs_that_come_in_songs() -> None:
    """Guards against pairs of one song, which make every set of songs look far from every other."""
    rng = np.random.default_rng(3)

    def songs() -> np.ndarray:
        return np.repeat(rng.normal(size=(4, 3)), 3, axis=0) + 0.05 * rng.normal(size=(12, 3))

    group = np.repeat(np.arange(4), 3)
    draws = [(songs(), songs()) for _ in range(1500)]
    values = {grouped: [mmd(a, b, 1.5, *((group, group) if grouped else ()))[0] for a, b in draws] for grouped in (True, False)}
    assert abs(np.mean(values[True])) < 3.5 * np.std(values[True]) / np.sqrt(len(draws))
    assert np.mean(values[False]) > 0.1


def test_mmd_without_a_pair_cannot_be_told() -> None:
    assert np.isnan(mmd(A, B, 1.0, groups_a=np.zeros(len(A)))[0])
    assert np.isnan(mmd(A[:1], B, 1.0)[0])
    assert np.isnan(mmd(A, B, 1.0, weights_a=np.zeros((1, len(A))))[0])


# ---------------------------------------------------------------- Frechet


def test_frechet_distance_equals_the_formula_with_scipys_square_root() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, size=(25, 5))
        cov_a, cov_b = np.cov(a.T), np.cov(b.T)
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
        assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_a_line_is_that_of_two_normal_distributions() -> None:
    a, b = RNG.normal(1.0, 0.5, size=(50, 1)), RNG.normal(-2.0, 3.0, size=(60, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_with_fewer_points_than_dimensions() -> None:
    """Singular covariances, as with few held-out riffs: a number, not below 0, and 0 to itself."""
    few = RNG.normal(size=(6, 40))
    assert 0 <= frechet_distance(few, few) < 1e-4
    assert 0 <= frechet_distance(few[:, ::-1], few[:, ::-1].copy()) < 1e-4
    assert frechet_distance(few, few + 1) == pytest.approx(40)


# ---------------------------------------------------------------- precision, recall, density, coverage


def naive_shares(fake: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    """From the definitions: Kynkaanniemi et al. 2019, eq. 1 and 2; Naeem et al. 2020, eq. 3 and 4."""

    def reach(points: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(points[i] - other) for j, other in enumerate(points) if j != i)[k - 1]

    def inside(x: np.ndarray, points: np.ndarray) -> list[bool]:
        return [bool(np.linalg.norm(x - points[i]) <= reach(points, i)) for i in range(len(points))]

    return {
        "precision": float(np.mean([any(inside(x, real)) for x in fake])),
        "recall": float(np.mean([any(inside(x, fake)) for x in real])),
        "density": sum(sum(inside(x, real)) for x in fake) / (k * len(fake)),
        "coverage": float(np.mean([any(np.linalg.norm(x - y) <= reach(real, i) for x in fake) for i, y in enumerate(real)])),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_four_shares_equal_loops_from_the_definitions(k: int) -> None:
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(14, 3)), rng.normal(0.8, 0.7, size=(11, 3))
    expected = naive_shares(fake, real, k)
    assert precision_recall_density_coverage(fake, real, k) == pytest.approx(expected)
    assert min(expected.values()) > 0 and len(set(expected.values())) > 2


def test_the_four_shares_tell_apart_what_they_are_for() -> None:
    """One mode of two: precise, not covering. Far away: nothing. The same distribution: density and coverage near 1."""
    rng = np.random.default_rng(4)
    real = np.concatenate([rng.normal(size=(60, 2)), rng.normal(30, 1, size=(60, 2))])
    one_mode = precision_recall_density_coverage(rng.normal(size=(120, 2)), real)
    assert one_mode["precision"] > 0.8 and one_mode["recall"] < 0.6 and one_mode["coverage"] < 0.6
    assert set(precision_recall_density_coverage(rng.normal(500, 1, size=(120, 2)), real).values()) == {0.0}
    same = precision_recall_density_coverage(np.concatenate([rng.normal(size=(60, 2)), rng.normal(30, 1, size=(60, 2))]), real)
    assert same["density"] == pytest.approx(1, abs=0.25) and same["coverage"] > 0.9


def test_too_few_points_for_their_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 5"):
        precision_recall_density_coverage(A[:5], B, 5)
    precision_recall_density_coverage(A[:6], B[:6], 5)


# ---------------------------------------------------------------- features


def test_features_by_hand() -> None:
    tokens = np.array([[40, HOLD, REST, 47, 52, 52, REST, REST, *[REST] * 24], [REST] * 32])
    features = riff_features(tokens, TokenizerConfig())
    assert features.shape == (2, 6 + 8 + 4 + 26)
    named = dict(enumerate(features[0].tolist()))
    rest, notes, restrike, groove, entropy, scale = features[0, :6]
    assert (rest, notes, restrike, scale) == (27 / 32, 2.0, pytest.approx(1 / 3), 1.0)
    assert (groove, entropy) == (12 / 16, pytest.approx(0.8112781))  # three E and a B, in the first bar
    assert features[0, 6:14].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0]  # onsets of each beat
    assert features[0, 14:18].tolist() == [2 / 8, 1 / 8, 0, 1 / 8]  # and of each place within a beat
    assert features[0, 18:24].tolist() == [40, 52, 191 / 4, 40, 52, 12]
    assert named[24] == 1.25  # mean length
    assert features[0, 26:32].tolist() == pytest.approx([4, np.std([7, 5, 0]), 2 / 3, 0, 1 / 3, 7])
    classes = np.zeros(12)
    classes[0], classes[7] = 4 / 5, 1 / 5  # E sounds for four steps of five, B for one
    assert features[0, 32:].tolist() == pytest.approx(classes.tolist())
    assert features[1].tolist() == [1.0] + [0.0] * 2 + [1.0] + [0.0] * 40  # silence: rests, and two bars of one rhythm


def test_standardize_by_hand() -> None:
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])
    np.testing.assert_allclose(standardize(np.array([[1.0, 5.0], [4.0, 7.0]]), reference), [[0, 0], [3, 2]])
