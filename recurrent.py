"""Recurrent layers: over whole sequences with gradients, or step by step without.

No device choice, no printing, no file access in here. Dimensions: B batch, T steps, I input, H hidden, G gates (of all units of a layer),
S state (all that the layers carry from step to step, as one vector).
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from products import Product


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

    def weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of a layer: input to gates [G, I], state to gates [G, H], and the bias of each [G]."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self.rnn, f"{name}_l{layer}") for name in names)
        return weight_ih, weight_hh, bias_ih, bias_hh

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs: [B, T, I]; state: [B, S] -> outputs [B, T, H] and the last state [B, S]"""
        parts = tuple(part.unflatten(1, (self.layers, -1)).transpose(0, 1).contiguous() for part in state_parts(state, self.is_lstm))
        output, last = run_layers(self.rnn, inputs, parts if self.is_lstm else parts[0])  # [B, T, H], [layers, B, H]
        return output, torch.cat([part.transpose(0, 1).flatten(1) for part in (last if self.is_lstm else (last,))], dim=1)


def state_parts(state: Tensor, is_lstm: bool) -> tuple[Tensor, ...]:
    """Outputs and, of an LSTM, cells. [B, S] -> [B, layers * H] each"""
    return state.chunk(2, dim=1) if is_lstm else (state,)


# ---------------------------------------------------------------- step by step


class LayerStates:
    """Where layers are on their way: everything in here is overwritten at each step.

    Attributes:
        outputs: float32 [B, H] of each layer.
        cells: the same, of an LSTM.
        gates: float32 [B, G] of the first layer: what the input adds to them has to stand there before a step.
        steps: for each layer, a function that takes it one step on. They hold tensors, not these states: a circle would keep all rooms.
    """

    def __init__(self, state: Tensor, layers: int, is_lstm: bool) -> None:
        parts = [[one.contiguous() for one in part.chunk(layers, dim=1)] for part in state_parts(state.clone(), is_lstm)]
        self.outputs, self.cells = parts[0], parts[1] if is_lstm else []
        rows, size = self.outputs[0].shape
        self.gates = state.new_empty(rows, (4 if is_lstm else 3) * size)
        self.steps: list[Callable[[], None]] = []

    def joined(self) -> Tensor:
        """As one state [B, S]."""
        return torch.cat([*self.outputs, *self.cells], dim=1)


class Stepping:
    """The weights of recurrent layers, laid out for going on step by step, without gradients.

    Args:
        precision: what states and weights are multiplied in; states and gates are float32.
    """

    def __init__(self, layers: Recurrent, precision: torch.dtype = torch.float32) -> None:
        self.is_lstm, self.layers, self.precision = layers.is_lstm, layers.layers, precision
        for_cell = functools.partial(weights_for_cell, hidden_size=layers.rnn.hidden_size)
        (weight_ih, weight_hh, bias_ih, bias_hh), *above = (layers.weights(layer) for layer in range(layers.layers))

        def product(weights: Sequence[Tensor], bias: Tensor | None) -> Product:
            together = torch.cat([weight.to(precision) for weight in weights], dim=1)  # smaller first, then moved about
            return Product(for_cell(together), None if bias is None else for_cell(bias), precision)

        if layers.is_lstm:  # what comes from below and from the state is added up: one product for both
            self.input_weight, self.input_bias = for_cell(weight_ih), for_cell(bias_ih + bias_hh)
            self.from_state = [product([weight_hh], None)]
            self.from_both = [product([ih, hh], b + more) for ih, hh, b, more in above]
        else:
            self.input_weight, self.input_bias = for_cell(weight_ih), for_cell(bias_ih)
            self.from_state = [product([hh], more) for _, hh, _, more in ((0, weight_hh, 0, bias_hh), *above)]
            self.from_below = [product([ih], b) for ih, _, b, _ in above]

    def begin(self, state: Tensor) -> LayerStates:
        """state: [B, S]"""
        states = LayerStates(state, self.layers, self.is_lstm)
        states.steps = self._lstm_steps(states) if self.is_lstm else self._gru_steps(states)
        return states

    def step(self, states: LayerStates) -> Tensor:
        """One step.

        Args:
            states: of the step before, with what the input adds to the first layer's gates: `input_weight` times it, and `input_bias`;
                they become those of this step.

        Returns:
            output [B, H], which the next step overwrites
        """
        for take in states.steps:
            take()
        return states.outputs[-1]

    def _lstm_steps(self, states: LayerStates) -> list[Callable[[], None]]:
        """Where everything stands is looked up once; then a step is made of operations alone."""
        first = states.outputs[0].to(self.precision)  # in float32 the same tensor
        both = [torch.cat(pair, dim=1).to(self.precision) for pair in itertools.pairwise(states.outputs)]  # of a layer, and the one above
        room, minus_two = torch.empty_like(states.outputs[0]), states.gates.new_full((), -2.0)

        def layer_step(layer: int) -> Callable[[], None]:
            output, cells, gates = states.outputs[layer], states.cells[layer], states.gates  # one room for all layers stays in the cache
            product = self.from_both[layer - 1].bound(both[layer - 1], gates) if layer else self.from_state[0].bound(first, gates, add=True)
            four, size = gates.chunk(4, dim=1), output.shape[1]
            copies = [first] if layer == 0 and first is not output else []
            copies += [above[:, :size] for above in both[layer : layer + 1]]
            copies += [both[layer - 1][:, size:]] if layer else []

            def take() -> None:
                sums = product().sigmoid_()
                lstm_cell(four if sums is gates else sums.chunk(4, dim=1), cells, room, output, minus_two)
                for copy in copies:
                    copy.copy_(output)

            return take

        return [layer_step(layer) for layer in range(self.layers)]

    def _gru_steps(self, states: LayerStates) -> list[Callable[[], None]]:
        """As _lstm_steps."""
        seen = [output.to(self.precision) for output in states.outputs]  # in float32 the same tensors
        rows, size = states.outputs[0].shape
        both, new, one = states.gates.new_empty(rows, 2 * size), torch.empty_like(states.outputs[0]), states.gates.new_full((), 1.0)

        def layer_step(layer: int) -> Callable[[], None]:
            output, gates = states.outputs[layer], states.gates
            product = self.from_state[layer].bound(seen[layer], torch.empty_like(gates))
            below = self.from_below[layer - 1].bound(seen[layer - 1], torch.empty_like(gates)) if layer else lambda: gates
            copied = seen[layer] is not output

            def take() -> None:
                gru_cell(below(), product(), both, new, output, one)
                if copied:
                    seen[layer].copy_(output)

            return take

        return [layer_step(layer) for layer in range(self.layers)]


def weights_for_cell(weight: Tensor, hidden_size: int) -> Tensor:
    """A layer's weights or bias as lstm_cell and gru_cell want them: those of the gate that tanh bends, the third, times -2.

    tanh(x) is computed as 1 - 2 sigmoid(-2 x): PyTorch's tanh takes ten times as long as its sigmoid. weight: [G] or [G, ...], copied
    """
    weight = weight.detach().clone()
    weight[2 * hidden_size : 3 * hidden_size] *= -2
    return weight


def lstm_cell(gates: Sequence[Tensor], cells: Tensor, room: Tensor, output: Tensor, minus_two: Tensor) -> None:
    """
    Args:
        gates: four of [B, H], see weights_for_cell, bent by a sigmoid.
        cells: [B, H], overwritten with the new ones.
        room: [B, H], to work in.
        output: [B, H], overwritten.
        minus_two: [], which PyTorch would make of a number at each call, in three times the time that the product takes for one row.
    """
    enter, forget, new, leave = gates
    torch.addcmul(enter, enter, new, value=-2, out=room)
    torch.addcmul(room, forget, cells, out=cells)
    torch.mul(cells, minus_two, out=room).sigmoid_()
    torch.addcmul(leave, leave, room, value=-2, out=output)


def gru_cell(gates: Tensor, from_state: Tensor, both: Tensor, new: Tensor, output: Tensor, one: Tensor) -> None:
    """
    Args:
        gates, from_state: [B, 3H], see weights_for_cell.
        both: [B, 2H], to work in.
        new: [B, H], to work in.
        output: [B, H], the one before; overwritten.
        one: [], see lstm_cell.
    """
    sizes = [both.shape[1], output.shape[1]]
    (gates, gates_new), (from_state, state_new) = gates.split(sizes, dim=1), from_state.split(sizes, dim=1)
    reset, update = torch.add(gates, from_state, out=both).sigmoid_().chunk(2, dim=1)
    torch.addcmul(gates_new, reset, state_new, out=new).sigmoid_()
    torch.lerp(torch.sub(one, new, alpha=2, out=new), output, update, out=output)
