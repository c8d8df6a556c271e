"""Recurrent layers: over whole sequences with gradients, or step by step without.

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, I input, H hidden, G gates (of all units of a layer),
S state (all that the layers carry from step to step, as one vector).
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from products import Product
from stepwise import LayerStates

LayerWeights = tuple[Tensor, Tensor, Tensor, Tensor]


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map, to nothing as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs)


def state_size(cell: str, hidden_size: int, layers: int) -> int:
    """S, of a Recurrent's state."""
    return hidden_size * layers * (2 if cell == "lstm" else 1)


def layer_precision(x: Tensor) -> torch.dtype:
    """What recurrent layers compute in where x is: that of autocast, where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


def side_by_side(*parts: Tensor) -> Tensor:
    """Parts of each step's input as one. They are laid out step by step and in the layers' precision, which otherwise would take two more
    copies of the whole, forth and back.

    Args:
        parts: [B, T, some] each.

    Returns:
        [B, T, I]; in half precision with a zero more where I is odd, see run_layers.
    """
    precision = layer_precision(parts[0])
    together = [part.transpose(0, 1).to(precision) for part in parts]
    if precision != torch.float32 and sum(part.shape[-1] for part in parts) % 2:
        together.append(together[0].new_zeros(*together[0].shape[:2], 1))
    return torch.cat(together, dim=-1).transpose(0, 1)


def run_layers(rnn: nn.GRU | nn.LSTM, inputs: Tensor, state: Tensor | tuple[Tensor, ...] | None = None) -> tuple[Tensor, Any]:
    """rnn(inputs, state). In half precision an odd number of inputs gets a zero more, and weights for it: oneDNN multiplies pairs, and
    takes two to three times as long where one is left over.

    Args:
        inputs: [B, T, I], or already with a zero more.
    """
    if rnn.input_size % 2 == 0 or layer_precision(inputs) == torch.float32:
        return rnn(inputs, state)
    inputs = F.pad(inputs, (0, rnn.input_size + 1 - inputs.shape[-1]))
    names = [name for names in rnn._all_weights for name in names]
    weights = [F.pad(weight, (0, 1)) if "weight_ih_l0" in name else weight for name, weight in zip(names, rnn._flat_weights, strict=True)]
    if state is None:
        zeros = inputs.new_zeros(rnn.num_layers * (1 + rnn.bidirectional), len(inputs), rnn.hidden_size)
        state = (zeros, zeros) if isinstance(rnn, nn.LSTM) else zeros
    options = (rnn.bias, rnn.num_layers, rnn.dropout, rnn.training, rnn.bidirectional, rnn.batch_first)
    if isinstance(rnn, nn.LSTM):
        output, *last = torch.lstm(inputs, state, weights, *options)  # type: ignore[attr-defined]
        return output, tuple(last)
    return torch.gru(inputs, state, weights, *options)  # type: ignore[attr-defined]


class Recurrent(nn.Module):
    """Recurrent layers that start from a state: one vector of all layers, [B, S], an LSTM's outputs before its cells."""

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int) -> None:
        super().__init__()
        self.is_lstm, self.layers = cell == "lstm", layers
        self.state_size = state_size(cell, hidden_size, layers)
        self.rnn = (nn.LSTM if self.is_lstm else nn.GRU)(input_size, hidden_size, num_layers=layers, batch_first=True)

    def stepping(self, precision: torch.dtype = torch.float32) -> Stepping:
        """As they are now, for going on step by step."""
        return Stepping([layer_weights(self.rnn, layer) for layer in range(self.layers)], self.is_lstm, precision)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs: [B, T, I]; state: [B, S] -> outputs [B, T, H] and the last state [B, S]"""
        parts = tuple(part.unflatten(1, (self.layers, -1)).transpose(0, 1).contiguous() for part in state_parts(state, self.is_lstm))
        output, last = run_layers(self.rnn, inputs, parts if self.is_lstm else parts[0])  # [B, T, H], [layers, B, H]
        return output, torch.cat([part.transpose(0, 1).flatten(1) for part in (last if self.is_lstm else (last,))], dim=1)


def layer_weights(rnn: nn.RNNBase, layer: int = 0) -> LayerWeights:
    """Of a layer: input to gates [G, I], state to gates [G, H], and the bias of each [G]."""
    weight_ih, weight_hh, bias_ih, bias_hh = (getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return weight_ih, weight_hh, bias_ih, bias_hh


def state_parts(state: Tensor, is_lstm: bool) -> tuple[Tensor, ...]:
    """Outputs and, of an LSTM, cells. [B, S] -> [B, layers * H] each"""
    return state.chunk(2, dim=1) if is_lstm else (state,)


# ---------------------------------------------------------------- step by step


class Stepping:
    """The weights of recurrent layers, laid out for going on step by step, without gradients.

    Args:
        weights: of each layer, see layer_weights; all of one hidden size.
        precision: what states and weights are multiplied in; states and gates are float32.
    """

    def __init__(self, weights: Sequence[LayerWeights], is_lstm: bool, precision: torch.dtype = torch.float32) -> None:
        self.is_lstm, self.layers, self.precision = is_lstm, len(weights), precision
        (weight_ih, weight_hh, bias_ih, bias_hh), *above = weights
        for_cell = functools.partial(weights_for_cell, hidden_size=weight_hh.shape[1])

        def product(weights: Sequence[Tensor], bias: Tensor | None) -> Product:
            together = torch.cat([weight.to(precision) for weight in weights], dim=1)  # smaller first, then moved about
            return Product(for_cell(together), None if bias is None else for_cell(bias), precision)

        self._from_below: list[Product] = []
        if is_lstm:  # what comes from below and from the state is added up: one product for both
            self.input_weight, self.input_bias = for_cell(weight_ih), for_cell(bias_ih + bias_hh)
            self._from_state = [product([weight_hh], None), *(product([ih, hh], b + more) for ih, hh, b, more in above)]
        else:
            self.input_weight, self.input_bias = for_cell(weight_ih), for_cell(bias_ih)
            self._from_state = [product([hh], more) for _, hh, _, more in ((0, weight_hh, 0, bias_hh), *above)]
            self._from_below = [product([ih], b) for ih, _, b, _ in above]

    def begin(self, state: Tensor) -> LayerStates:
        """The layers, on their way from a state; take_step goes on, with what the input adds to the first layer's gates standing there:
        `input_weight` times it, and `input_bias`. state: [B, S]"""
        parts = [[one.contiguous() for one in part.chunk(self.layers, dim=1)] for part in state_parts(state.clone(), self.is_lstm)]
        outputs, cells = parts[0], parts[1] if self.is_lstm else []
        rows, size = outputs[0].shape
        gates = state.new_empty(rows, (4 if self.is_lstm else 3) * size)
        seen = [output.to(self.precision) for output in outputs]  # in float32 the same tensors
        if self.is_lstm:
            seen[1:] = [torch.cat(pair, dim=1).to(self.precision) for pair in itertools.pairwise(outputs)]  # of a layer below, and its own
            copies = [[both[:, :size]] for both in seen[1:]] + [[]]
            for layer, both in enumerate(seen[1:], 1):
                copies[layer].append(both[:, size:])
            copies[0] += [seen[0]] if seen[0] is not outputs[0] else []
            rooms = [torch.empty_like(outputs[0])]
        else:
            copies = [[] if one is output else [one] for one, output in zip(seen, outputs, strict=True)]
            rooms = [gates.new_empty(rows, 2 * size), torch.empty_like(outputs[0]), torch.empty_like(gates), torch.empty_like(gates)]
        from_state, from_below = ([product.laid(rows) for product in products] for products in (self._from_state, self._from_below))
        kinds, number = list(gates.chunk(4, dim=1)) if self.is_lstm else [], gates.new_full((), -2.0 if self.is_lstm else 1.0)
        return LayerStates(self.is_lstm, outputs, cells, gates, kinds, seen, from_state, from_below, copies, rooms, number)


def joined(states: LayerStates) -> Tensor:
    """What layers carry, as one state [B, S]."""
    return torch.cat([*states.outputs, *states.cells], dim=1)


def weights_for_cell(weight: Tensor, hidden_size: int) -> Tensor:
    """A layer's weights or bias as lstm_cell and gru_cell want them: those of the gate that tanh bends, the third, times -2.

    tanh(x) is computed as 1 - 2 sigmoid(-2 x): PyTorch's tanh takes ten times as long as its sigmoid. weight: [G] or [G, ...], copied
    """
    weight = weight.detach().clone()
    weight[2 * hidden_size : 3 * hidden_size] *= -2
    return weight
