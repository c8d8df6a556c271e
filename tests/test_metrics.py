"""Metrics against values worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from config import HOLD, REST, TokenizerConfig
from measures.metrics import (
    accuracies,
    closeness,
    distinct_share,
    ends_at_home,
    framewise_overlap,
    gaussian_overlap,
    groove_consistency,
    ngram_repetition,
    note_density,
    notes_per_bar,
    onset_mask,
    pitch_class_entropy,
    pitch_range,
    relative_tokens,
    rest_ratio,
    restrike_share,
    scale_consistency,
)

BAR, PLAIN_BAR, TWO = TokenizerConfig(bars=1), TokenizerConfig(bars=1, hold_token=False), TokenizerConfig()


def bar(*tokens: int) -> list[int]:
    return [*tokens, *[REST] * (16 - len(tokens))]


RIFFS = np.array([bar(40, HOLD, 40, 43, REST, 43, HOLD, 40), bar(), bar(50)])


def test_onsets() -> None:
    assert np.flatnonzero(onset_mask(RIFFS, BAR)[0]).tolist() == [0, 2, 3, 5, 7]
    plain = np.array([bar(40, 40, 43, REST, 43, 43, 40)])
    assert np.flatnonzero(onset_mask(plain, PLAIN_BAR)[0]).tolist() == [0, 2, 4, 6]
    assert np.flatnonzero(onset_mask(plain, BAR)[0]).tolist() == [0, 1, 2, 4, 5, 6]


def test_rests_notes_and_restrikes() -> None:
    assert rest_ratio(RIFFS).tolist() == [9 / 16, 1.0, 15 / 16]
    assert notes_per_bar(RIFFS, BAR).tolist() == [5, 0, 1]
    two_bars = np.array([[40] * 20 + [REST] * 12])
    assert notes_per_bar(two_bars, TokenizerConfig()).tolist() == [10.0]
    shares = restrike_share(RIFFS, BAR)
    assert shares[0] == pytest.approx(2 / 4)  # 40 40 43 43 40
    assert np.isnan(shares[1:]).all()
    assert restrike_share(np.array([bar(40, 40, REST, 40, 41)]), PLAIN_BAR).tolist() == [0.5]


def test_distinct_share() -> None:
    assert distinct_share(RIFFS) == 1.0
    assert distinct_share(np.array([bar(40), bar(40), bar(40), bar(41)])) == 0.5


@given(shift=st.integers(-30, 30), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_transposed_riffs_have_equal_relative_tokens(shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.choice([REST, HOLD, 50, 55, 60, 70], size=(1, 16))
    sounds = (tokens != REST) & (tokens != HOLD)
    moved = np.where(sounds, tokens + shift, tokens)
    np.testing.assert_array_equal(relative_tokens(moved), relative_tokens(tokens))


def test_relative_tokens_keep_different_riffs_apart() -> None:
    riffs = np.array([bar(40, 42), bar(40, 43), bar(40, HOLD), bar(40, REST), bar(REST, 40), bar(40, 40), bar(), bar(1, 127), bar(127, 1)])
    assert len(np.unique(relative_tokens(riffs), axis=0)) == len(riffs)


def test_accuracies() -> None:
    target = np.array([bar(40, HOLD, 43), bar(50)])
    same = accuracies(target, target, BAR)
    assert same == {"accuracy": 1.0, "onset_accuracy": 1.0, "exact": 1.0}
    predicted = np.array([bar(40, HOLD, 44), bar(50)])
    assert accuracies(predicted, target, BAR) == {"accuracy": 31 / 32, "onset_accuracy": pytest.approx(2 / 3), "exact": 0.5}
    silent = accuracies(np.zeros_like(target), target, BAR)  # holds and rests flatter, onsets do not
    assert (silent["accuracy"], silent["onset_accuracy"], silent["exact"]) == (28 / 32, 0.0, 0.0)
    assert np.isnan(accuracies(np.array([bar()]), np.array([bar()]), BAR)["onset_accuracy"])


def test_scale_consistency_by_hand() -> None:
    def riff(*pitches: int) -> list[int]:
        return [*pitches, *[REST] * (32 - len(pitches))]

    c_major, one_off = riff(60, 62, 64, 65, 67, 69, 71), riff(60, 62, 64, 65, 67, 69, 71, 61)
    a_harmonic_minor, chromatic = riff(57, 59, 60, 62, 64, 65, 68), riff(*range(48, 60))
    found = scale_consistency(np.array([c_major, one_off, a_harmonic_minor, chromatic, riff()]), TokenizerConfig())
    np.testing.assert_allclose(found, [1, 7 / 8, 1, 7 / 12, np.nan])


# ---------------------------------------------------------------- what a riff is like


def two_bars(first: list[int], second: list[int] | None = None) -> list[int]:
    return bar(*first) + bar(*(second or []))


def test_density_and_range_by_hand() -> None:
    tokens = np.array([two_bars([40] * 8), two_bars([40, 52, 45], [38]), two_bars([])])
    np.testing.assert_allclose(note_density(tokens, TWO, np.array([60.0, 120.0, 90.0])), [8 / 8, 4 / 4, 0])
    np.testing.assert_allclose(note_density(tokens, TWO, 120.0), [2, 1, 0])
    np.testing.assert_array_equal(pitch_range(tokens, TWO), [0, 14, np.nan])


@given(st.lists(st.integers(1, 127), min_size=1, max_size=32))
@settings(max_examples=60, deadline=None)
def test_pitch_class_entropy_equals_scipys(pitches: list[int]) -> None:
    tokens = np.array([pitches + [REST] * (32 - len(pitches))])
    counts = np.bincount(np.array(pitches) % 12, minlength=12)
    assert pitch_class_entropy(tokens, TWO)[0] == pytest.approx(scipy.stats.entropy(counts, base=2), abs=1e-12)


def test_pitch_class_entropy_counts_notes_not_steps() -> None:
    held = np.array([two_bars([40, HOLD, HOLD, HOLD, 41, REST, 52])])
    assert pitch_class_entropy(held, TWO)[0] == pytest.approx(scipy.stats.entropy([2, 1], base=2))
    assert np.isnan(pitch_class_entropy(np.array([two_bars([])]), TWO)[0])


def test_repetition_by_hand() -> None:
    """A repeated bar, a run that never comes back, one note over and over; rests and lengths make no difference."""
    same, rising, drone = two_bars([40, 43, 45, 47], [40, 43, 45, 47]), two_bars([*range(40, 48)]), two_bars([40] * 10)
    spread = two_bars([40, HOLD, 43, REST, 45, REST, REST, 47], [40, REST, 43, 45, HOLD, 47])
    tokens = np.array([same, rising, drone, spread, two_bars([40, 41, 42])])
    # five passages of four notes, of which the first comes again; five different; seven equal
    np.testing.assert_allclose(ngram_repetition(tokens, TWO), [1 / 5, 0, 6 / 7, 1 / 5, np.nan])
    np.testing.assert_allclose(ngram_repetition(tokens, TWO, n=1)[:3], [1 / 2, 0, 9 / 10])


def test_groove_and_home_by_hand() -> None:
    tokens = np.array([
        two_bars([40, REST, 43], [52, HOLD, 41]),  # the same rhythm; C# is not home
        two_bars([40, 43], [43, REST, 52]),  # one onset moved: two steps differ; the octave is home
        two_bars([40]),
        two_bars([]),
    ])  # fmt: skip
    np.testing.assert_allclose(groove_consistency(tokens, TWO), [1, 14 / 16, 15 / 16, 1])
    np.testing.assert_array_equal(ends_at_home(tokens, TWO), [0, 1, np.nan, np.nan])
    assert np.isnan(groove_consistency(RIFFS, BAR)).all()
    four = np.concatenate([tokens[0], tokens[1]])[None]
    assert groove_consistency(four, TokenizerConfig(bars=4))[0] == pytest.approx(1 - np.mean([0, 2, 2]) / 16)


# ---------------------------------------------------------------- overlap of frames


def integral_of_the_smaller(mean_1: float, std_1: float, mean_2: float, std_2: float) -> float:
    """By quadrature, split where the integrand bends."""

    def smaller(x: float) -> float:
        return min(scipy.stats.norm.pdf(x, mean_1, std_1), scipy.stats.norm.pdf(x, mean_2, std_2))

    edges = sorted(
        {mean + k * std for mean, std in ((mean_1, std_1), (mean_2, std_2)) for k in (-9, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 9)}
    )
    return sum(scipy.integrate.quad(smaller, a, b, limit=200)[0] for a, b in itertools.pairwise(edges))


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_overlap_equals_the_integral() -> None:
    rng = np.random.default_rng(0)
    cases = [(*rng.normal(0, 2, size=1), rng.uniform(0.1, 3), *rng.normal(0, 2, size=1), rng.uniform(0.1, 3)) for _ in range(25)]
    cases += [(0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.0, 1.0), (3.0, 0.5, 3.0, 2.0), (0.0, 1.0, 0.3, 1.0 + 1e-6), (0, 1, 50, 1.0)]
    cases += [(40.0, 1e-6, 41.0, 2.0), (41.0, 2.0, 40.0, 1e-6), (40.0, 1e-6, 40.0, 1e-6), (40.0, 1e-6, 41.0, 1e-6), (40.0, 1e-6, 90, 2.0)]
    found = gaussian_overlap(*np.array(cases, dtype=float).T)
    for case, value in zip(cases, found, strict=True):
        assert value == pytest.approx(integral_of_the_smaller(*case), abs=2e-5), case
        assert -1e-12 <= value <= 1 + 1e-12


@given(st.tuples(*[st.floats(-60, 60)] * 2), st.tuples(*[st.floats(0, 30)] * 2))
@settings(max_examples=200, deadline=None)
def test_overlap_is_a_share_and_takes_its_two_in_any_order(means: tuple[float, float], stds: tuple[float, float]) -> None:
    one, other = (np.array([means[i]]) for i in (0, 1)), (np.array([stds[i] + 1e-6]) for i in (0, 1))
    (a, b), (s, t) = one, other
    with np.errstate(all="raise", under="ignore"):
        value = gaussian_overlap(a, s, b, t)[0]
    assert -1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(gaussian_overlap(b, t, a, s)[0], abs=1e-9)
    assert value == pytest.approx(gaussian_overlap(a + 7, s, b + 7, t)[0], abs=1e-6)


def test_framewise_overlap_by_hand() -> None:
    """Half bars of equal notes overlap wholly, also where a rest half bar lies beside them; one pitch against another not at all."""
    same = two_bars([40, 43] * 8, [40, 43] * 8)
    moved = two_bars([40] * 8 + [60] * 8, [40] * 8 + [60] * 8)
    gap = two_bars([40] * 8, [40] * 8)  # halves with and without notes take turns: no neighbours
    longer = two_bars([40, HOLD] * 4 + [43] * 8)
    pitch, length = framewise_overlap(np.array([same, moved, gap, longer, two_bars([])]), TWO, 8, 8)
    np.testing.assert_allclose(pitch, [1, 0, np.nan, 0, np.nan], atol=1e-6)
    np.testing.assert_allclose(length, [1, 1, np.nan, 0, np.nan], atol=1e-6)
    first, second = two_bars([40, 44] * 4 + [41, 47] * 4), two_bars([40, 44] * 4 + [41, 47] * 4, [40, 44] * 4 + [41, 47] * 4)
    one = integral_of_the_smaller(42, 2, 44, 3)
    np.testing.assert_allclose(framewise_overlap(np.array([first, second]), TWO, 8, 8)[0], [one, one], atol=1e-5)


def test_closeness_by_hand() -> None:
    """Equations 5 and 6: a relative difference, clipped."""
    assert closeness(0.4, 0.4) == 1
    np.testing.assert_allclose(closeness(np.array([0.6, 0.2, 0.9]), np.array([0.4, 0.4, 0.4])), [0.5, 0.5, 0])
    assert np.isnan(closeness(np.array([0.5, 0.5]), np.array([0.0, np.nan]))).all()
