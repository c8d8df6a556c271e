"""Rivals that every number is set beside: simple generators, and cheaters that please one metric and fail another.

Each makes legal riffs from the training riffs alone. Those that need a VAE's latents take them as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    from measures.distances import squared_distances

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


# ---------------------------------------------------------------- n-grams


class NGram:
    """An n-gram model by interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999, section 4.2), over whole sequences.

    The lowest order is interpolated with equal chances for every token, so that nothing has probability 0.

    Args:
        sequences: int [tokens] each, from BOS on.
        size: of the vocabulary.
        order: tokens looked at together, 1 or more.
    """

    def __init__(self, sequences: Sequence[np.ndarray], size: int, order: int = 5) -> None:
        self.size, self.order = size, order
        grams: dict[tuple[int, ...], int] = {}
        for sequence in sequences:
            padded = [int(sequence[0])] * (order - 1) + sequence[1:].tolist()
            for i in range(order - 1, len(padded)):
                gram = tuple(padded[i - order + 1 : i + 1])
                grams[gram] = grams.get(gram, 0) + 1
        self._followers: list[dict[tuple[int, ...], dict[int, int]]] = []  # by length of the context: context -> token -> count
        self._discounts: list[tuple[float, float, float]] = []
        for _ in range(order):
            followers: dict[tuple[int, ...], dict[int, int]] = {}
            for gram, count in grams.items():
                followers.setdefault(gram[:-1], {})[gram[-1]] = count
            self._followers.insert(0, followers)
            self._discounts.insert(0, discounts(np.fromiter(grams.values(), dtype=np.int64)))
            shorter: dict[tuple[int, ...], int] = {}
            for gram in grams:  # lower orders count in how many different contexts a token was seen, not how often
                shorter[gram[1:]] = shorter.get(gram[1:], 0) + 1
            grams = shorter

    def probability(self, context: Sequence[int], token: int) -> float:
        """p(token | context); of the context the last order - 1 tokens count."""
        value = 1 / self.size
        for length, (followers, (one, two, more)) in enumerate(zip(self._followers, self._discounts, strict=True)):
            counts = followers.get(tuple(context[len(context) - length :]))
            if counts is None:
                break  # a longer context was not seen either
            total = sum(counts.values())
            taken = sum(one if c == 1 else two if c == 2 else more for c in counts.values())
            count = counts.get(token, 0)
            kept = count - (one if count == 1 else two if count == 2 else more) if count else 0.0
            value = (kept + taken * value) / total
        return value

    def nats(self, sequence: np.ndarray) -> float:
        """-log p of a sequence's tokens after its BOS, summed."""
        padded = [int(sequence[0])] * (self.order - 1) + sequence[1:].tolist()
        places = range(self.order - 1, len(padded))
        return -sum(float(np.log(self.probability(padded[i - self.order + 1 : i], padded[i]))) for i in places)

    def sample(self, bos: int, eos: int | None, length: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a sequence from BOS to EOS or to a length. int64 [tokens]"""
        context, tokens = [bos] * (self.order - 1), [bos]
        while len(tokens) < length and tokens[-1:] != [eos]:
            tokens.append(self._draw(context, rng))
            context = (context + tokens[-1:])[1:]
        return np.array(tokens, dtype=np.int64)

    def _draw(self, context: list[int], rng: np.random.Generator) -> int:
        """A token: from the longest context that was seen, with the discounted share of chances from the next shorter one."""
        for length in range(self.order - 1, -1, -1):
            counts = self._followers[length].get(tuple(context[len(context) - length :]))
            if counts is None:
                continue
            one, two, more = self._discounts[length]
            tokens, values = np.fromiter(counts, dtype=np.int64), np.fromiter(counts.values(), dtype=np.float64)
            kept = np.cumsum(values - np.where(values == 1, one, np.where(values == 2, two, more)))
            place = rng.random() * values.sum()
            if place < kept[-1]:
                return int(tokens[np.searchsorted(kept, place, side="right")])
        return int(rng.integers(self.size))


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken off counts of one, two and more (Chen & Goodman 1999, eq. 17).

    Music that repeats whole phrases has too many even counts for the formula; so no discount is below the one before it, and the first
    is 0.05 at least. Where too little was counted to tell: 0.5, 1, 1.5.
    """
    n1, n2, n3, n4 = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return 0.5, 1.0, 1.5
    y = n1 / (n1 + 2 * n2)
    one = max(0.05, 1 - 2 * y * n2 / n1)
    two = max(one, 2 - 3 * y * n3 / n2)
    return one, two, max(two, 3 - 4 * y * n4 / n3)
