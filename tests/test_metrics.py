"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import HOLD, REST, TokenizerConfig
from metrics import (
    accuracies,
    bootstrap_interval,
    distinct_share,
    notes_per_bar,
    onset_mask,
    relative_tokens,
    rest_ratio,
    restrike_share,
    scale_consistency,
)

BAR, PLAIN_BAR = TokenizerConfig(bars=1), TokenizerConfig(bars=1, hold_token=False)


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


def test_the_interval_covers_a_known_mean_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(3.0, 2.0, size=40), resamples=300, seed=trial)
        hits += low <= 3.0 <= high
    assert 0.90 <= hits / 300 <= 0.98  # 40 values and the percentile method: slightly under 95 %


def test_groups_widen_the_interval_and_keep_its_cover() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 8)
    hits = {True: 0, False: 0}
    widths = {True: 0.0, False: 0.0}
    for trial in range(60):
        values = rng.normal(size=12)[groups] + 0.1 * rng.normal(size=96)  # riffs of one song resemble each other
        for grouped in (True, False):
            low, high = bootstrap_interval(values, groups if grouped else None, resamples=200, seed=trial)
            hits[grouped] += low <= 0 <= high
            widths[grouped] += high - low
    assert widths[True] > 2 * widths[False]
    assert hits[True] >= 50 > 40 > hits[False]


def test_the_interval_is_seeded_and_takes_any_statistic() -> None:
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    low, high = bootstrap_interval(values, statistic=np.median)
    assert low <= np.median(values) <= high
    assert bootstrap_interval(np.full(5, 7.0)) == (7.0, 7.0)


def test_scale_consistency_by_hand() -> None:
    def riff(*pitches: int) -> list[int]:
        return [*pitches, *[REST] * (32 - len(pitches))]

    c_major, one_off = riff(60, 62, 64, 65, 67, 69, 71), riff(60, 62, 64, 65, 67, 69, 71, 61)
    a_harmonic_minor, chromatic = riff(57, 59, 60, 62, 64, 65, 68), riff(*range(48, 60))
    found = scale_consistency(np.array([c_major, one_off, a_harmonic_minor, chromatic, riff()]), TokenizerConfig())
    np.testing.assert_allclose(found, [1, 7 / 8, 1, 7 / 12, np.nan])


def test_the_bootstrap_refuses_what_it_cannot_weigh() -> None:
    for values in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="NaN"):
            bootstrap_interval(np.array(values))
