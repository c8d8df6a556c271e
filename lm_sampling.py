"""Drawing from language models: tokens one by one, with a carried state; whole pieces, and riffs.

Memory does not grow with the length: what is kept are the states, the tokens and their random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from config import SampleConfig, TokenizerConfig
from events import BOS, EOS, NOTE_OFF, NOTE_ON, PAD, PITCHES, TIME_SHIFT
from heads import inverse_cdf
from language_model import LanguageModel, LanguageModelStepper
from pieces import Vocabulary
from sampling import RuleWalker, by_chunks, token_probabilities
from steering.rules import RiffRules

PIECES_TOGETHER = 16  # pieces computed together
UNIFORM = 3  # purpose of random numbers: the draws of a language model


class EventGrammar:
    """Which event may come next, for some sequences at once. PAD and BOS never may.

    Args:
        strict: no NOTE_OFF of a pitch that is silent or was struck at this very time, no NOTE_ON of a sounding one, and nothing but
            NOTE_ON before the first note.
    """

    def __init__(self, count: int, vocabulary: Vocabulary, strict: bool, device: torch.device | str = "cpu") -> None:
        self.strict = strict
        self._always = torch.ones(count, vocabulary.size, dtype=torch.bool, device=device)
        self._always[:, [PAD, BOS]] = False
        self.sounding = torch.zeros(count, PITCHES, dtype=torch.bool, device=device)
        self.fresh = torch.zeros_like(self.sounding)  # struck since the last TIME_SHIFT
        self.begun = torch.zeros(count, dtype=torch.bool, device=device)  # a note was struck

    def allowed(self) -> Tensor:
        """bool [B, V]"""
        if not self.strict:
            return self._always
        allowed = self._always.clone()
        allowed[:, EOS] = self.begun
        allowed[:, TIME_SHIFT + 1 :] = self.begun[:, None]
        allowed[:, NOTE_ON:NOTE_OFF] = ~self.sounding
        allowed[:, NOTE_OFF : TIME_SHIFT + 1] = self.sounding & ~self.fresh
        return allowed

    def advance(self, tokens: Tensor) -> None:
        """Take in the next token of each sequence. tokens: int64 [B]"""
        pitch = (tokens - NOTE_ON) % PITCHES
        here = torch.nn.functional.one_hot(pitch, PITCHES).bool()
        on, off = (tokens >= NOTE_ON) & (tokens < NOTE_OFF), (tokens >= NOTE_OFF) & (tokens <= TIME_SHIFT)
        self.sounding = (self.sounding | (here & on[:, None])) & ~(here & off[:, None])
        self.begun = self.begun | on
        self.fresh = (self.fresh | (here & on[:, None])) & ~(tokens > TIME_SHIFT)[:, None]


class RiffGrammar(RuleWalker):
    """RuleWalker for a vocabulary that has BOS behind the riff's tokens."""

    def allowed(self) -> Tensor:
        """bool [B, V + 1]"""
        mask = super().allowed()
        return torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)  # BOS never comes again


def uniform_numbers(seeds: Sequence[int], count: int, attempt: int) -> np.ndarray:
    """The random numbers of each seed, the same whatever their number. float32 [seeds, count]"""
    rngs = (np.random.default_rng(np.random.SeedSequence([seed, UNIFORM, attempt])) for seed in seeds)
    return np.stack([rng.random(count, dtype=np.float32) for rng in rngs])


@torch.inference_mode()
def continue_sequences(
    model: LanguageModel, given: Tensor, grammar: EventGrammar | RiffGrammar, uniform: Tensor, sample: SampleConfig, eos: int | None
) -> Tensor:
    """Go on from what is given, one token at a time.

    Args:
        given: int64 [B, G], from BOS on; G at least 1.
        grammar: at its beginning.
        uniform: [B, T] in 0..1, for the draws.
        eos: ends a sequence; None never does.

    Returns:
        int64 [B, at most T], the new tokens; PAD behind an EOS. Ends early when all have ended.
    """
    new = torch.full(uniform.shape, PAD, dtype=torch.int64, device=given.device)
    logits, state = model(given)
    logits, step = logits[:, -1], LanguageModelStepper(model)
    for t in range(1, given.shape[1]):
        grammar.advance(given[:, t])
    ended = torch.zeros(len(given), dtype=torch.bool, device=given.device)
    for t in range(uniform.shape[1]):
        if t:
            logits, state = step(new[:, t - 1], state)
        token = inverse_cdf(token_probabilities(logits, grammar.allowed(), sample), uniform[:, t])
        new[:, t] = torch.where(ended, PAD, token)
        grammar.advance(token)
        if eos is not None:
            ended |= token == eos
            if bool(ended.all()):
                return new[:, : t + 1]
    return new


def sample_events(
    model: LanguageModel,
    vocabulary: Vocabulary,
    seeds: Sequence[int],
    sample: SampleConfig,
    length: int,
    prime: np.ndarray | None = None,
    attempt: int = 0,
    chunk: int = PIECES_TOGETHER,
) -> list[np.ndarray]:
    """Draw one piece for each seed, from BOS (or after the given beginning) to EOS or to a length.

    Args:
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        length: most tokens of a piece, BOS and the given ones among them.
        prime: int [tokens], from BOS on, shorter than the length.
        attempt: another number draws another piece for the same seed.
        chunk: pieces computed together; rounding, and so a token here and there, may depend on it.

    Returns:
        int64 [tokens] each; EOS last, unless the length ended it.
    """
    device = next(model.parameters()).device
    begin = np.array([BOS]) if prime is None else np.asarray(prime)[:length]
    given = torch.from_numpy(np.repeat(begin[None].astype(np.int64), chunk, axis=0)).to(device)
    pieces = []
    for first in range(0, len(seeds), chunk):
        some = list(seeds[first : first + chunk])
        uniform = torch.from_numpy(uniform_numbers(some + some[-1:] * (chunk - len(some)), length - len(begin), attempt)).to(device)
        new = continue_sequences(model, given, EventGrammar(chunk, vocabulary, sample.grammar, device), uniform, sample, vocabulary.eos)
        for row in new[: len(some)].cpu().numpy():
            ends = np.flatnonzero(row == EOS)
            pieces.append(np.concatenate([begin, row[: ends[0] + 1] if len(ends) else row]))
    return pieces


def sample_riffs_by_lm(
    model: LanguageModel,
    tokenizer: TokenizerConfig,
    seeds: Sequence[int],
    sample: SampleConfig,
    rules: RiffRules | None = None,
    attempt: int = 0,
) -> np.ndarray:
    """Draw one riff for each seed. int64 [seeds, steps], riffs that obey the rules; see sample_riffs"""
    rules = rules or RiffRules(tokenizer)
    device = next(model.parameters()).device

    def chunk(some: list[int]) -> list[Tensor]:
        given = torch.full((len(some), 1), tokenizer.vocab_size, dtype=torch.int64, device=device)
        uniform = torch.from_numpy(uniform_numbers(some, tokenizer.steps, attempt)).to(device)
        return [continue_sequences(model, given, RiffGrammar(rules, len(some), device), uniform, sample, None)]

    return by_chunks(chunk, seeds, device)[0]
