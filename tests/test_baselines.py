"""Rivals and cheaters: legal riffs, each with what it is named for and without what it lacks."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from conftest import small_songs
from hypothesis import given, settings
from hypothesis import strategies as st

from config import HOLD, REST, DataConfig, TokenizerConfig
from dataset import load_riffs
from measures.baselines import TOKEN_BASELINES, copied, gaussian_mixtures, jittered_latents, markov, shuffled, unigram
from midi_utils import is_legal, tokens_to_notes

TOKENIZER, PLAIN = TokenizerConfig(), TokenizerConfig(hold_token=False)


@pytest.fixture(scope="module")
def riffs(tmp_path_factory: pytest.TempPathFactory) -> dict[TokenizerConfig, np.ndarray]:
    folder = small_songs(tmp_path_factory.mktemp("songs"))
    return {tokenizer: load_riffs(DataConfig(data=str(folder), holdout=0), tokenizer).tokens for tokenizer in (TOKENIZER, PLAIN)}


def made(name: str, tokens: np.ndarray, tokenizer: TokenizerConfig, count: int = 200, seed: int = 0) -> np.ndarray:
    return TOKEN_BASELINES[name](tokens, tokenizer, count, np.random.default_rng(seed))


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PLAIN], ids=["hold", "plain"])
@pytest.mark.parametrize("name", TOKEN_BASELINES)
def test_legal_riffs_that_the_seed_alone_decides(name: str, tokenizer: TokenizerConfig, riffs: dict[TokenizerConfig, np.ndarray]) -> None:
    first, again, other = (made(name, riffs[tokenizer], tokenizer, seed=seed) for seed in (3, 3, 4))
    assert first.shape == (200, tokenizer.steps) and first.dtype == np.int64
    assert is_legal(first, tokenizer)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert set(np.unique(first)) <= set(np.unique(riffs[tokenizer])) | {REST}
    assert len(made(name, riffs[tokenizer][:1], tokenizer, count=3)) == 3  # also from a single riff


@given(seed=st.integers(0, 1000), rests=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_any_training_riffs_will_do(seed: int, rests: float) -> None:
    """Guards against a token that nothing follows, and a hold that comes first: silent riffs, and single notes held to the end."""
    rng = np.random.default_rng(seed)
    tokens = np.where(rng.random((3, 32)) < rests, REST, rng.integers(40, 44, size=(3, 32)))
    tokens[0], tokens[1, 1:] = REST, HOLD
    tokens[1, 0] = 127
    for name in TOKEN_BASELINES:
        assert is_legal(made(name, tokens, TOKENIZER, count=20, seed=seed), TOKENIZER)


def test_copies_are_training_riffs_each_as_often(riffs: dict[TokenizerConfig, np.ndarray]) -> None:
    tokens = riffs[TOKENIZER]
    counts = Counter(riff.tobytes() for riff in copied(tokens, 100 * len(tokens), np.random.default_rng(0)))
    assert set(counts) == {riff.tobytes() for riff in tokens}
    assert max(counts.values()) < 2 * min(counts.values())


def notes_and_rests(riff: np.ndarray) -> tuple[Counter, int]:
    """Notes as (pitch, length), and silent steps."""
    start, end, pitch = tokens_to_notes(riff, TOKENIZER)
    return Counter(zip(pitch.tolist(), (end - start).tolist(), strict=True)), int((riff == REST).sum())


def test_shuffled_riffs_keep_notes_lengths_and_rests_in_another_order(riffs: dict[TokenizerConfig, np.ndarray]) -> None:
    """Guards against a cheater that is easier to catch than it should be."""
    tokens = riffs[TOKENIZER]
    rng = np.random.default_rng(1)
    found = shuffled(tokens, TOKENIZER, 100, rng)
    originals = copied(tokens, 100, np.random.default_rng(1))  # what it drew, with the same numbers
    orders = 0
    for before, after in zip(originals, found, strict=True):
        assert notes_and_rests(before) == notes_and_rests(after)
        orders += not np.array_equal(before, after)
    assert orders > 95
    silent = np.zeros((1, 32), dtype=np.int64)
    assert np.array_equal(shuffled(silent, TOKENIZER, 1, rng), silent)


def test_unigram_has_the_training_frequencies_and_nothing_more(riffs: dict[TokenizerConfig, np.ndarray]) -> None:
    """Without the hold token nothing is forbidden, so frequencies are those of the training riffs, after any token."""
    tokens = riffs[PLAIN]
    found = unigram(tokens, PLAIN, 2000, np.random.default_rng(0))
    expected = np.bincount(tokens.ravel(), minlength=128) / tokens.size
    np.testing.assert_allclose(np.bincount(found.ravel(), minlength=128) / found.size, expected, atol=0.006)
    after_rest = found[:, 1:][found[:, :-1] == REST]
    np.testing.assert_allclose(np.bincount(after_rest, minlength=128) / len(after_rest), expected, atol=0.02)


def test_markov_has_the_training_transitions() -> None:
    """A tune of two notes: how each goes on, and how riffs begin."""
    rng = np.random.default_rng(0)
    tokens = np.empty((300, 32), dtype=np.int64)
    tokens[:, 0] = np.where(rng.random(300) < 0.8, 50, 60)
    for t in range(1, 32):
        leave = np.where(tokens[:, t - 1] == 50, 0.9, 0.2)
        tokens[:, t] = np.where(rng.random(300) < leave, 110 - tokens[:, t - 1], tokens[:, t - 1])
    found = markov(tokens, TOKENIZER, 2000, np.random.default_rng(1))

    def shares(riffs: np.ndarray) -> list[float]:
        before, after = riffs[:, :-1], riffs[:, 1:]
        return [(riffs[:, 0] == 50).mean(), (after[before == 50] == 60).mean(), (after[before == 60] == 50).mean()]

    assert shares(found) == pytest.approx(shares(tokens), abs=0.03)
    assert shares(found) == pytest.approx([0.8, 0.9, 0.2], abs=0.1)  # which 300 riffs have roughly
    assert set(np.unique(found)) == {50, 60}


# ---------------------------------------------------------------- from latents


def test_jittered_latents_lie_on_the_way_to_their_nearest_neighbour() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20, 3)).astype(np.float32)
    found = jittered_latents(z, 200, rng)
    assert found.shape == (200, 3) and found.dtype == np.float32
    for point in found:
        apart = np.linalg.norm(z - point, axis=1)
        own = apart.argmin()
        others = np.linalg.norm(z - z[own], axis=1)
        others[own] = np.inf
        near = z[others.argmin()]
        along = np.linalg.norm(point - z[own]) + np.linalg.norm(near - point)
        assert along == pytest.approx(np.linalg.norm(near - z[own]), rel=1e-4)
    assert jittered_latents(z[:1], 2, rng) == pytest.approx(np.repeat(z[:1], 2, axis=0))


def test_gaussians_have_the_moments_and_the_modes_of_the_latents() -> None:
    """One Gaussian knows mean and covariance alone; the mixture finds two clouds, and BIC does not take more than there are."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(-5, 1, size=(300, 2)), rng.normal(5, 1, size=(300, 2))]).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, components = gaussian_mixtures(z, 2000, seed=0)
        again, _ = gaussian_mixtures(z, 2000, seed=0)
    assert components == 2
    for name, points in found.items():
        assert points.shape == (2000, 2) and points.dtype == np.float32 and np.array_equal(points, again[name])
        np.testing.assert_allclose(points.mean(axis=0), z.mean(axis=0), atol=0.5)
        np.testing.assert_allclose(np.cov(points.T), np.cov(z.T), rtol=0.1)
    between = {name: float((np.abs(points.sum(axis=1)) < 4).mean()) for name, points in found.items()}
    assert between["one Gaussian"] > 0.2 and between["Gaussian mixture"] < 0.02
