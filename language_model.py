"""The language model: an LSTM over tokens that can, by option, copy what stood earlier in the piece.

No device choice, no printing, no file access in here. Dimensions: B batch, T tokens, E embedding, H hidden, K key, W window,
N remembered tokens, V vocabulary. Run `python language_model.py` to see parameter counts.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import LMConfig
from lm_stepwise import Copying, LMWalk, mixed
from products import Product, prepared
from recurrent import Stepping, layer_weights

BUCKET = 32  # tokens


class CopyMemory(NamedTuple):
    """The tokens of a piece so far, up to a window, each under the key of the place it followed. A ring: the oldest is overwritten."""

    keys: Tensor  # [B, W, K], entry i at i % W
    tokens: Tensor  # int64 [B, W]
    newest_key: Tensor  # [B, K], of the newest place, whose token is not known yet
    count: int  # entries so far, those overwritten among them


class LMState(NamedTuple):
    """What a language model knows of the tokens before."""

    count: int  # how many there were
    layers: list[tuple[Tensor, Tensor]]  # hidden and cell state of each LSTM layer, [1, B, H] each
    memory: CopyMemory | None  # where it copies


class CopyAttention(nn.Module):
    """Which of the tokens so far comes again, and how far to trust that: a pointer (Merity et al. 2017, arXiv:1609.07843).

    Every place has a key; a place attends to the earlier ones, and what followed those is what it would copy. The weight left for
    the vocabulary (their sentinel) is a score of its own in the same softmax.
    """

    def __init__(self, config: LMConfig, vocab_size: int) -> None:
        super().__init__()
        self.window, self.lag, self.vocab_size = config.copy_window, config.copy_lag, vocab_size
        self.query = nn.Linear(config.hidden_size, config.copy_size)
        self.key = nn.Linear(config.hidden_size, config.copy_size)
        self.trust = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor, tokens: Tensor, memory: CopyMemory | None) -> tuple[Tensor, Tensor, CopyMemory]:
        """All places of a sequence at once.

        Args:
            x: [B, T, H], of each place.
            tokens: int64 [B, T], the token read there.
            memory: of the tokens before; None at the beginning.

        Returns:
            the weight of the vocabulary [B, T, 1] and of each token by copying [B, T, V], which sum to 1; and the memory after.
        """
        keys, length = self.key(x), tokens.shape[1]
        count = 0 if memory is None else memory.count + 1  # entries there are at the first place
        keys_before, tokens_known = keys[:, :-1], tokens[:, 1:]  # [B, N, K] and [B, N]
        number = count + torch.arange(length - 1, device=x.device)  # [N], which entry of the piece
        if memory is not None:
            used = min(memory.count, self.window)
            keys_before = torch.cat([memory.keys[:, :used], memory.newest_key[:, None], keys_before], dim=1)
            tokens_known = torch.cat([memory.tokens[:, :used], tokens], dim=1)
            number = torch.cat([self._numbers(memory.count, x.device), number.new_full((1,), memory.count), number])
        known = count + torch.arange(length, device=x.device)  # [T], entries there are when a place is reached
        visible = (number <= known[:, None] - self.lag) & (number >= known[:, None] - self.window)  # [T, N]
        scores = self.query(x) @ keys_before.transpose(1, 2) / math.sqrt(keys.shape[2])  # [B, T, N]
        weights = torch.cat([self.trust(x), scores.masked_fill(~visible, -torch.inf)], dim=2).softmax(dim=2)  # [B, T, 1 + N]
        copied = weights[:, :, 1:] @ F.one_hot(tokens_known, self.vocab_size).to(x.dtype)  # [B, T, V]
        before = 0 if memory is None else memory.count
        return weights[:, :, :1], copied, self._remember(keys_before, tokens_known, before, keys[:, -1], count + length - 1)

    def _numbers(self, count: int, device: torch.device) -> Tensor:
        """Which entry of the piece each slot of the ring holds. int64 [N]"""
        slots = torch.arange(min(count, self.window), device=device)
        return count - 1 - (count - 1 - slots) % self.window

    def _remember(self, keys: Tensor, tokens: Tensor, before: int, newest_key: Tensor, count: int) -> CopyMemory:
        """The newest of all entries as a ring.

        Args:
            keys: [B, N, K], those of a ring and the new ones.
            tokens: int64 [B, N]
            before: entries of the piece when the ring was as it stands there.
            count: entries of the piece now.
        """
        entries = self._numbers(count, keys.device)
        at = torch.where(entries < before, entries % self.window, min(before, self.window) + entries - before)  # where in the row
        ring = keys.new_zeros(len(keys), self.window, keys.shape[2])
        ring[:, : len(at)] = keys[:, at]
        known = tokens.new_zeros(len(keys), self.window)
        known[:, : len(at)] = tokens[:, at]
        return CopyMemory(ring, known, newest_key, count)


class LanguageModel(nn.Module):
    """p(token | tokens before) by an embedding, LSTM layers and a linear layer (Sundermeyer et al. 2012), and by copying.

    Args:
        config: sizes; copy_size 0 leaves the copying out.
        vocab_size: V.
    """

    def __init__(self, config: LMConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, config.embed_size)
        sizes = [config.embed_size] + [config.hidden_size] * config.layers
        self.layers = nn.ModuleList(nn.LSTM(before, after, batch_first=True) for before, after in itertools.pairwise(sizes))
        self.output = nn.Linear(config.hidden_size, vocab_size)
        self.copy = CopyAttention(config, vocab_size) if config.copy_size else None
        self.position = nn.Embedding(config.position_buckets, config.embed_size) if config.position_buckets else None
        if self.position is not None:
            nn.init.zeros_(self.position.weight)

    def embed(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Tokens as vectors. tokens: int64 [...]; place: how many stand before each in its piece, int64, broadcast -> [..., E]"""
        x = self.embedding(tokens)
        if self.position is None:
            return x
        return x + self.position((place // BUCKET).clamp(max=self.config.position_buckets - 1))

    def forward(
        self, tokens: Tensor, state: LMState | None = None, masks: list[Tensor] | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, LMState]:
        """
        Args:
            tokens: int64 [B, T]
            state: after the tokens before; None at the beginning.
            masks: [B, T, H] for each layer, dropout on its output: 0 or 1 / (1 - p); None drops nothing.
            first: int64 [B], where in their pieces the sequences begin, if that is not known from the state; None: at the beginning.

        Returns:
            logits of each next token [B, T, V], and the state after these tokens.
        """
        count = 0 if state is None else state.count
        place = count + torch.arange(tokens.shape[1], device=tokens.device) + (0 if first is None else first[:, None])
        x = self.embed(tokens, place)  # [B, T, E]
        layers = []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, None if state is None else state.layers[i])  # [B, T, H]
            layers.append(after)
            if masks is not None:
                x = x * masks[i]
        logits, memory = self.output(x), None
        if self.copy is not None:
            own, copied, memory = self.copy(x, tokens, None if state is None else state.memory)
            logits = mixed(logits, own, copied)
        return logits, LMState(count + tokens.shape[1], layers, memory)

    @torch.no_grad()
    def begin(self, state: LMState, precision: torch.dtype = torch.float32) -> LMWalk:
        """Go on token by token, without gradients: lm_stepwise.lm_logits_at gives the logits that forward would. torch's LSTM repacks its
        weights at every call, which for single tokens costs ten times the step itself (one sequence; twice at 16).

        Args:
            state: after the tokens before, at least one; it is copied.
            precision: of the LSTM's products.
        """
        weights, copying, memory = prepared(self, LMWeights, precision), None, state.memory
        carried = torch.cat([part[0] for kind in zip(*state.layers, strict=True) for part in kind], dim=1)  # [B, S]
        if memory is not None:
            reading, kept = weights.reading.laid(len(carried)), (memory.keys, memory.tokens, memory.newest_key)
            copying = Copying(reading, *(part.clone() for part in kept), self.config.copy_lag)
        states, output = weights.layers.begin(carried), weights.output.laid(len(carried))
        return LMWalk(states, weights.table, weights.from_place, BUCKET, output, copying)


class LMWeights:
    """A language model's weights, laid out: what each token and each place add to the first layer's gates is computed once.

    Args:
        precision: of the LSTM's products; the output layer and copying are float32.
    """

    def __init__(self, model: LanguageModel, precision: torch.dtype) -> None:
        self.layers = Stepping([layer_weights(layer) for layer in model.layers], is_lstm=True, precision=precision)
        self.table = F.linear(model.embedding.weight, self.layers.input_weight, self.layers.input_bias)  # [V, G]
        self.from_place = [] if model.position is None else list(F.linear(model.position.weight, self.layers.input_weight).unbind())
        self.output, copy = Product(model.output.weight, model.output.bias), model.copy
        if copy is not None:
            by_root = 1 / math.sqrt(copy.key.out_features)
            weight = torch.cat([copy.key.weight, by_root * copy.query.weight, copy.trust.weight])
            bias = torch.cat([copy.key.bias, by_root * copy.query.bias, copy.trust.bias])
            self.reading = Product(weight, bias)


if __name__ == "__main__":
    from pieces import vocabulary
    from presets import PRESETS, TrainLM, is_language_model, preset_options

    for preset in filter(is_language_model, PRESETS):
        options = preset_options(TrainLM, preset)
        model = LanguageModel(options.model, vocabulary(options.model, options.tokenizer, options.events).size)
        print(f"{preset:18s} {sum(p.numel() for p in model.parameters()):,} parameters")
