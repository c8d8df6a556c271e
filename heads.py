"""What goes into the networks at a step, and what their outputs say of one: tokens of a line, of drums, of a trio, or groove vectors.

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, E embedding, P position, H hidden, G gates (of all
units of a layer), V logits (of all parts). Steps of music are int64 [B, T] (a line, drums), int64 [B, T, 3] (a trio) or float32
[B, T, 27] (groove: hits, velocities, offsets of the nine drum classes).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import DRUM_CLASSES, DRUM_TOKENS, GROOVE_SIZE, MAX_PITCH, REST, TokenizerConfig, VAEConfig
from stepwise import Chances, StepDraws, play_groove

DRUMS = len(DRUM_CLASSES)
FIRST_SPREAD = 0.3  # of velocities and offsets, before training
LEAST_LOG_SPREAD = math.log(1 / 127)  # finer than MIDI is nothing; of drums that nobody played a density would have no upper bound


class StepEmbedding(nn.Module, ABC):
    """A step of music and its place in the bar and in the whole, as one vector; and what a decoder's output says of a step."""

    size: int  # of a step's vector with its place: E + P
    vector_size: int  # without: E
    logit_size: int  # V
    draws: int  # random numbers that drawing a step takes

    def add_places(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        self.in_bar = nn.Embedding(tokenizer.steps_per_bar, model.position_size)
        self.bar = nn.Embedding(tokenizer.bars, model.position_size)
        place = torch.arange(tokenizer.steps)
        self.register_buffer("place_in_bar", place % tokenizer.steps_per_bar, persistent=False)
        self.register_buffer("place_bar", place // tokenizer.steps_per_bar, persistent=False)
        self.size = self.vector_size + model.position_size

    def positions(self) -> Tensor:
        return self.in_bar(self.place_in_bar) + self.bar(self.place_bar)  # [T, P]

    def forward(self, steps: Tensor) -> Tensor:
        positions = self.positions().expand(len(steps), -1, -1)  # [B, T, P]
        return torch.cat([self.vectors(steps), positions], dim=-1)  # [B, T, E + P]

    @abstractmethod
    def vectors(self, steps: Tensor) -> Tensor:
        """Steps without their place. [..., E]"""

    @abstractmethod
    def start(self, count: int) -> Tensor:
        """What stands before the first step, and in place of steps that word dropout hides: a step for each of so many."""

    @abstractmethod
    def gate_tables(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        """What stepwise.write_gates needs of a step's share of the next one's gates (weight times its vector, plus bias), computed once.
        weight: [G, E]; bias: [G]"""

    @abstractmethod
    def logits(self, output: Tensor, bias: Tensor) -> Tensor:
        """What a decoder's output says. output: [..., E]; bias: [V] -> [..., V]"""

    @abstractmethod
    def output_weights(self, weight: Tensor, bias: Tensor, logit_bias: Tensor) -> tuple[Tensor, Tensor]:
        """A decoder's output layer and `logits` as one. weight: [E, H]; bias: [E]; logit_bias: [V] -> [V, H], [V]"""

    @abstractmethod
    def nats(self, logits: Tensor, steps: Tensor) -> Tensor:
        """Reconstruction loss of each step. logits: [B, T, V] -> [B, T]"""

    @abstractmethod
    def likeliest(self, logits: Tensor) -> Tensor:
        """The likeliest steps. logits: [..., V]"""

    @abstractmethod
    def right(self, predicted: Tensor, steps: Tensor) -> Tensor:
        """Which steps are right, all of their parts. bool [B, T]"""

    @abstractmethod
    def step_draws(self, chances: Chances, banned: Sequence[Tensor | None] | None = None) -> StepDraws:
        """What steps are drawn from. banned: of each part, see sampling.banned_tokens; None bans nothing"""

    @abstractmethod
    def step_numbers(self, uniform: Tensor) -> list[list[Tensor]]:
        """What each step is drawn with, for stepwise's loops. uniform: [B, T, draws] in 0..1 (1 excluded)"""


def step_embedding(model: VAEConfig, tokenizer: TokenizerConfig) -> StepEmbedding:
    """The embedding of a representation."""
    return (GrooveEmbedding if tokenizer.representation == "groove" else TokenEmbedding)(model, tokenizer)


# ---------------------------------------------------------------- tokens


class PitchTable(nn.Module):
    """Vectors of a line's tokens; index V is the start token.

    A pitch is the sum of a vector of its own, one of its pitch class and one of its octave: what is learned of one E helps with the
    others.
    """

    def __init__(self, size: int, embed_size: int) -> None:
        super().__init__()
        tokens = torch.arange(size + 1)
        is_pitch = (tokens > REST) & (tokens <= MAX_PITCH)
        self.register_buffer("pitch_class_of", torch.where(is_pitch, tokens % 12, 12), persistent=False)
        self.register_buffer("octave_of", torch.where(is_pitch, tokens // 12, MAX_PITCH // 12 + 1), persistent=False)
        self.token = nn.Embedding(len(tokens), embed_size)
        self.pitch_class = nn.Embedding(13, embed_size)
        self.octave = nn.Embedding(MAX_PITCH // 12 + 2, embed_size)

    def forward(self) -> Tensor:
        return self.token.weight + self.pitch_class(self.pitch_class_of) + self.octave(self.octave_of)  # [V + 1, E]


class DrumTable(nn.Module):
    """Vectors of drum tokens, each the sum of one of its own and one of each class that is struck; index 512 is the start token."""

    def __init__(self, embed_size: int) -> None:
        super().__init__()
        struck = (torch.arange(DRUM_TOKENS + 1).unsqueeze(1) >> torch.arange(DRUMS)) % 2  # nothing for the start token
        self.register_buffer("struck", struck.float(), persistent=False)
        self.token = nn.Embedding(DRUM_TOKENS + 1, embed_size)
        self.drum = nn.Embedding(DRUMS, embed_size)

    def forward(self) -> Tensor:
        return self.token.weight + cast(Tensor, self.struck) @ self.drum.weight  # [V + 1, E]


class TokenEmbedding(StepEmbedding):
    """Steps of tokens: of one part (a line, drums), or of three (a trio).

    The output layer shares the token vectors of the input (Press & Wolf 2017): with few riffs it learns several times faster.
    """

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.sizes, self.embed_size = tokenizer.vocab_sizes, model.embed_size
        self.logit_size, self.draws, self.vector_size = sum(self.sizes), len(self.sizes), len(self.sizes) * model.embed_size
        self.parts = nn.ModuleList(
            DrumTable(model.embed_size) if size == DRUM_TOKENS else PitchTable(size, model.embed_size) for size in self.sizes
        )
        self.add_places(model, tokenizer)

    def tables(self) -> list[Tensor]:
        """The vectors of all tokens of each part. [V + 1, E] each"""
        return [part() for part in self.parts]

    def split(self, steps: Tensor) -> Sequence[Tensor]:
        """The parts of some steps, each int64 [...]."""
        return steps.unbind(dim=-1) if len(self.sizes) > 1 else [steps]

    def split_logits(self, logits: Tensor) -> Sequence[Tensor]:
        """Those of each part. [..., V of the part]"""
        return logits.split(self.sizes, dim=-1) if len(self.sizes) > 1 else [logits]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=-1) if len(parts) > 1 else parts[0]

    def vectors(self, steps: Tensor) -> Tensor:
        return torch.cat([F.embedding(part, table) for part, table in zip(self.split(steps), self.tables(), strict=True)], dim=-1)

    def start(self, count: int) -> Tensor:
        device = self.in_bar.weight.device
        return self.join([torch.full((count,), size, dtype=torch.int64, device=device) for size in self.sizes])

    def gate_tables(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        weights = weight.split(self.embed_size, dim=1)
        biases = [bias, *[torch.zeros_like(bias)] * (len(weights) - 1)]
        return [F.linear(table, w, b) for table, w, b in zip(self.tables(), weights, biases, strict=True)]

    def logits(self, output: Tensor, bias: Tensor) -> Tensor:
        outputs, biases = output.split(self.embed_size, dim=-1), bias.split(self.sizes)
        return torch.cat([F.linear(x, table[:-1], b) for x, table, b in zip(outputs, self.tables(), biases, strict=True)], dim=-1)

    def output_weights(self, weight: Tensor, bias: Tensor, logit_bias: Tensor) -> tuple[Tensor, Tensor]:
        by_part = zip(self.tables(), weight.split(self.embed_size), bias.split(self.embed_size), logit_bias.split(self.sizes), strict=True)
        weights, biases = zip(*((table[:-1] @ w, table[:-1] @ b + more) for table, w, b, more in by_part), strict=True)
        return torch.cat(weights), torch.cat(biases)

    def part_nats(self, logits: Tensor, steps: Tensor) -> list[Tensor]:
        """`nats` of each part: cross-entropy. [B, T] each"""
        by_part = zip(self.split_logits(logits), self.split(steps), strict=True)
        return [F.cross_entropy(some.transpose(1, 2), part, reduction="none") for some, part in by_part]

    def nats(self, logits: Tensor, steps: Tensor) -> Tensor:
        first, *others = self.part_nats(logits, steps)
        return sum(others, first)

    def likeliest(self, logits: Tensor) -> Tensor:
        return self.join([part.argmax(dim=-1) for part in self.split_logits(logits)])

    def right(self, predicted: Tensor, steps: Tensor) -> Tensor:
        return (predicted == steps).reshape(*steps.shape[:2], -1).all(dim=-1)

    def step_draws(self, chances: Chances, banned: Sequence[Tensor | None] | None = None) -> StepDraws:
        return StepDraws(list(self.sizes), list(banned or [None] * len(self.sizes)), chances, None)

    def step_numbers(self, uniform: Tensor) -> list[list[Tensor]]:
        heights, parts = uniform.double().permute(1, 2, 0).flatten(0, 1).unsqueeze(-1).unbind(), len(self.sizes)  # T * parts of [B, 1]
        return [list(heights[i : i + parts]) for i in range(0, len(heights), parts)]


# ---------------------------------------------------------------- groove vectors


def normal_nats(errors: Tensor, struck: Tensor, log_spread: Tensor) -> Tensor:
    """Negative log density of what is struck, if errors are normal: those of a class apart, and one that all of a step share.

    Args:
        errors: [..., 9]
        struck: [..., 9], 1 where something is struck, else 0.
        log_spread: [10], logarithms of the standard deviations of each class and of what is shared.

    Returns:
        [...]: with variances d and the shared variance s, the determinant of diag(d) + s is prod d * (1 + s * sum 1 / d), and its inverse
        is Sherman and Morrison's.
    """
    log_variance, shared = 2 * log_spread[:-1], (2 * log_spread[-1]).exp()
    weight = struck * (-log_variance).exp()
    more = 1 + shared * weight.sum(dim=-1)
    square = (weight * errors.square()).sum(dim=-1) - shared * (weight * errors).sum(dim=-1).square() / more
    return 0.5 * (square + more.log() + (struck * (log_variance + math.log(2 * math.pi))).sum(dim=-1))


class GrooveEmbedding(StepEmbedding):
    """Steps of groove vectors, which are their own embedding (Gillick et al. 2019, arXiv:1905.06118).

    Hits are Bernoulli, in nats; velocities and offsets are predicted as they are, and their squared errors added, over all classes, those
    that are not struck (0) included. So the sum is no likelihood, and a -ELBO with it compares groove models alone.

    With groove_spread they are normally distributed around what is predicted, for what is struck alone: the sum is a density's, in nats,
    and both can be drawn. Errors have two parts, one of each class and one that all drums of a step share, for hands and feet that strike
    together are early together. Squared errors with the zeros of what is not struck pull loudness down wherever a hit is in doubt, and
    nobody is as even as what is expected of him.
    """

    def __init__(self, model: VAEConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.vector_size, self.logit_size = GROOVE_SIZE, GROOVE_SIZE
        self.draws = GROOVE_SIZE + 2 if model.groove_spread else DRUMS
        # of velocities and of offsets, each: the classes' own, and the shared one
        self.log_spread = nn.Parameter(torch.full((2, DRUMS + 1), FIRST_SPREAD).log()) if model.groove_spread else None
        self.add_places(model, tokenizer)

    def vectors(self, steps: Tensor) -> Tensor:
        return steps

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, GROOVE_SIZE, device=self.in_bar.weight.device)

    def gate_tables(self, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [weight, bias]

    def logits(self, output: Tensor, bias: Tensor) -> Tensor:
        return output + bias

    def output_weights(self, weight: Tensor, bias: Tensor, logit_bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight, bias + logit_bias

    def part_nats(self, logits: Tensor, steps: Tensor) -> list[Tensor]:
        """The losses of hits, velocities and offsets. [B, T] each"""
        hits, velocities, offsets = steps.split(DRUMS, dim=-1)
        hit_logits, loud, late = logits.split(DRUMS, dim=-1)
        errors = loud.sigmoid() - velocities, late.tanh() - offsets
        hit_nats = F.binary_cross_entropy_with_logits(hit_logits, hits, reduction="none").sum(dim=-1)
        if self.log_spread is None:
            return [hit_nats, *(error.square().sum(dim=-1) for error in errors)]
        spreads = self.log_spread.clamp(min=LEAST_LOG_SPREAD)
        return [hit_nats, *(normal_nats(error, hits, spread) for error, spread in zip(errors, spreads, strict=True))]

    def nats(self, logits: Tensor, steps: Tensor) -> Tensor:
        hits, velocities, offsets = self.part_nats(logits, steps)
        return hits + velocities + offsets

    def likeliest(self, logits: Tensor) -> Tensor:
        return play_groove(logits, logits[..., :DRUMS] > 0, None, 0.0, None)

    def right(self, predicted: Tensor, steps: Tensor) -> Tensor:
        return (predicted[..., :DRUMS] == steps[..., :DRUMS]).all(dim=-1)

    def _spread(self) -> Tensor | None:
        return None if self.log_spread is None else self.log_spread.clamp(min=LEAST_LOG_SPREAD).exp()

    def step_draws(self, chances: Chances, banned: Sequence[Tensor | None] | None = None) -> StepDraws:
        return StepDraws([], [], chances, self._spread())

    def step_numbers(self, uniform: Tensor) -> list[list[Tensor]]:
        return [[numbers] for numbers in uniform.unbind(dim=1)]
