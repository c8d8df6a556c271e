"""Rivals that every number is set beside: simple generators, and cheaters that please one metric and fail another.

Each makes legal riffs from the training riffs alone. Those that need a VAE's latents take them as arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from config import HOLD, REST, TokenizerConfig
from midi_utils import tokens_to_notes

MIXTURE_SIZES = (1, 2, 4, 8, 16, 32)  # components tried for the Gaussian mixture


# ---------------------------------------------------------------- from tokens alone


def copied(tokens: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Training riffs, drawn with equal chances: perfect in style, and nothing new. int64 [count, steps]"""
    return tokens[rng.integers(len(tokens), size=count)]


def shuffled(tokens: np.ndarray, tokenizer: TokenizerConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Training riffs whose notes and rests come in another order: the same counts, no phrase. int64 [count, steps]"""
    riffs = np.empty((count, tokens.shape[1]), dtype=np.int64)
    for row, riff in enumerate(copied(tokens, count, rng)):
        start, end, _ = tokens_to_notes(riff, tokenizer)
        pieces = [riff[a:b] for a, b in zip(start, end, strict=True)] + [riff[t : t + 1] for t in np.flatnonzero(riff == REST)]
        riffs[row] = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    return riffs


def unigram(tokens: np.ndarray, tokenizer: TokenizerConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Each token drawn by how often it stands in the training riffs, whatever stands before it. int64 [count, steps]"""
    frequency = np.bincount(tokens.ravel(), minlength=tokenizer.vocab_size).astype(float)
    return _draw_chain(np.tile(frequency, (tokenizer.vocab_size + 1, 1)), tokenizer, count, rng)


def markov(tokens: np.ndarray, tokenizer: TokenizerConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Each token drawn by how often it follows the one before it in the training riffs. int64 [count, steps]"""
    following = np.zeros((tokenizer.vocab_size + 1, tokenizer.vocab_size))
    before = np.concatenate([np.full_like(tokens[:, :1], tokenizer.vocab_size), tokens[:, :-1]], axis=1)
    np.add.at(following, (before.ravel(), tokens.ravel()), 1)
    return _draw_chain(following, tokenizer, count, rng)


def _draw_chain(following: np.ndarray, tokenizer: TokenizerConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw token after token. following: float [V + 1, V], weights of the next token after each token (V: the start)"""
    weights = following.copy()
    if tokenizer.hold_token:
        weights[[REST, tokenizer.vocab_size], HOLD] = 0
    weights[weights.sum(axis=1) == 0, REST] = 1  # only ever seen at the end of a riff, or followed by nothing that may follow
    cumulative = np.cumsum(weights, axis=1)
    riffs = np.empty((count, tokenizer.steps), dtype=np.int64)
    before = np.full(count, tokenizer.vocab_size)
    for t in range(tokenizer.steps):
        target = rng.random(count) * cumulative[before, -1]
        before = riffs[:, t] = (cumulative[before] <= target[:, None]).sum(axis=1)
    return riffs


# ---------------------------------------------------------------- from latents


def jittered_latents(z: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Training latents moved up to half of the way to their nearest neighbour. z: [n, Z] -> float32 [count, Z]"""
    from distances import squared_distances

    chosen = rng.integers(len(z), size=count)
    apart = squared_distances(z[chosen], z)
    apart[np.arange(count), chosen] = np.inf
    near = z[apart.argmin(axis=1)] if len(z) > 1 else z[chosen]
    return (z[chosen] + 0.5 * rng.random((count, 1)) * (near - z[chosen])).astype(np.float32)


def gaussian_mixtures(z: np.ndarray, count: int, seed: int) -> tuple[dict[str, np.ndarray], int]:
    """Latents from one Gaussian and from the Gaussian mixture with the lowest BIC, full covariances, fitted by EM.

    Args:
        z: float [n, Z], drawn from q(z|x) of the training riffs.

    Returns:
        float32 [count, Z] for "one Gaussian" and "Gaussian mixture"; and the components of the latter.
    """
    from sklearn.mixture import GaussianMixture  # here, because it takes a second to import

    z = z.astype(np.float64)  # in float32 the covariances come out slightly asymmetric
    fits = [GaussianMixture(k, reg_covar=1e-3, max_iter=100, random_state=seed).fit(z) for k in MIXTURE_SIZES if k * 4 <= len(z)]
    best = min(fits, key=lambda fit: fit.bic(z))
    names = {"one Gaussian": fits[0], "Gaussian mixture": best}
    return {name: fit.sample(count)[0].astype(np.float32) for name, fit in names.items()}, best.n_components


Baseline = Callable[[np.ndarray, TokenizerConfig, int, np.random.Generator], np.ndarray]

TOKEN_BASELINES: dict[str, Baseline] = {
    "unigram": unigram,
    "Markov": markov,
    "shuffled": shuffled,
    "training riffs copied": lambda tokens, tokenizer, count, rng: copied(tokens, count, rng),
}
