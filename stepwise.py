"""What decoders do at each step, without gradients, and the loops over steps, as functions that TorchScript takes too.

A step is some thirty operations of a few microseconds. Started from Python, they wait for it: a sixth of the time at 64 rows, two fifths at
one; and threads that decode side by side wait for each other's Python. So on a CPU a loop over steps runs as TorchScript (see `looped`).
Elsewhere, and where TorchScript is not to be had, the same functions run as they are.

No `from __future__ import annotations` in here: TorchScript reads annotations as they stand. Dimensions: B batch, H hidden, G gates (of all
units of a layer), I inputs, O outputs, V logits (of all parts), C plan.
"""

import functools
import math
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

# ---------------------------------------------------------------- products


class Laid(NamedTuple):
    """A product's weights, laid out for some number of rows; see products.Product."""

    weight: Tensor  # [O, I]
    bias: Tensor | None  # [O]
    packed: bool  # by oneDNN, in a layout of its own
    one_row: bool


def multiply(x: Tensor, by: Laid) -> Tensor:
    """x W^T + b. [B, I] -> [B, O], all in the precision multiplied in"""
    if by.packed:
        return torch.ops.mkldnn._linear_pointwise(x, by.weight, by.bias, "none", [], "")
    if by.one_row:
        return _multiply_vector(x[0], by.weight, by.bias).unsqueeze(0)
    return F.linear(x, by.weight, by.bias)


def _multiply_vector(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)


def multiply_into(x: Tensor, by: Laid, room: Tensor, add: bool) -> Tensor:
    """The product in float32.

    Args:
        x: [B, I], in the precision multiplied in.
        room: float32 [B, O]
        add: to what stands in the room; not with a bias.

    Returns:
        where it stands: in the room or, if it is not added, where that is quicker.
    """
    bias = by.bias
    if by.one_row and add:
        torch.addmv(room[0], by.weight, x[0], out=room[0])
        return room
    if by.one_row and bias is not None:
        torch.addmv(bias, by.weight, x[0], out=room[0])
        return room
    product = multiply(x, by)
    if add:
        return room.add_(product)
    return product if product.dtype == room.dtype else room.copy_(product)


# ---------------------------------------------------------------- recurrent layers


def lstm_cell(gates: list[Tensor], cells: Tensor, room: Tensor, output: Tensor, minus_two: Tensor) -> None:
    """
    Args:
        gates: four of [B, H], see recurrent.weights_for_cell, bent by a sigmoid.
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
        gates, from_state: [B, 3H], see recurrent.weights_for_cell.
        both: [B, 2H], to work in.
        new: [B, H], to work in.
        output: [B, H], the one before; overwritten.
        one: [], see lstm_cell.
    """
    sizes = [both.shape[1], output.shape[1]]
    gates_both, gates_new = gates.split(sizes, dim=1)
    state_both, state_new = from_state.split(sizes, dim=1)
    reset, update = torch.add(gates_both, state_both, out=both).sigmoid_().chunk(2, dim=1)
    torch.addcmul(gates_new, reset, state_new, out=new).sigmoid_()
    torch.lerp(torch.sub(one, new, alpha=2, out=new), output, update, out=output)


class LayerStates(NamedTuple):
    """Recurrent layers on their way, with their weights; see recurrent.Stepping. All that is no weight is overwritten at each step.

    No tensor or function in here holds these states: a circle would keep all rooms until Python looks for circles.
    """

    is_lstm: bool
    outputs: list[Tensor]  # float32 [B, H] of each layer
    cells: list[Tensor]  # the same, of an LSTM
    gates: Tensor  # float32 [B, G] of the first layer: what the input adds to them has to stand there before a step
    seen: list[Tensor]  # what `from_state` multiplies, in its precision
    from_state: list[Laid]  # of each layer; in an LSTM above the first together with what comes from below
    from_below: list[Laid]  # of each layer above the first, of a GRU
    copies: list[list[Tensor]]  # where each layer's output goes besides
    rooms: list[Tensor]  # to work in: of an LSTM [B, H]; of a GRU [B, 2H], [B, H] and two of [B, G]
    number: Tensor  # [], what the cells want as a tensor


def take_step(states: LayerStates) -> Tensor:
    """One step of all layers: the states become those of this step. -> output [B, H], which the next step overwrites"""
    for layer in range(len(states.outputs)):
        output = states.outputs[layer]
        if states.is_lstm:  # one room for the gates of all layers stays in the cache
            sums = multiply_into(states.seen[layer], states.from_state[layer], states.gates, layer == 0).sigmoid_()
            lstm_cell(sums.chunk(4, dim=1), states.cells[layer], states.rooms[0], output, states.number)
        else:
            gates = states.gates
            if layer > 0:
                gates = multiply_into(states.seen[layer - 1], states.from_below[layer - 1], states.rooms[3], False)
            from_state = multiply_into(states.seen[layer], states.from_state[layer], states.rooms[2], False)
            gru_cell(gates, from_state, states.rooms[0], states.rooms[1], output, states.number)
        for copy in states.copies[layer]:
            copy.copy_(output)
    return states.outputs[-1]


# ---------------------------------------------------------------- a flat decoder


class Walk(NamedTuple):
    """A flat decoder on its way, with its weights; see models.StepByStep."""

    states: LayerStates
    tables: list[Tensor]  # see heads.StepEmbedding.gate_tables
    from_z: Tensor  # [B, G], what z adds to the gates
    from_place: list[Tensor]  # [G] of each step of the whole, what its place adds to them; none, if places are not shown
    plan: list[Tensor]  # [B, C] of each step
    w_plan: Tensor | None  # [C, G]
    output: Laid


def write_gates(gates: Tensor, before: Tensor, tables: list[Tensor], more: Tensor) -> None:
    """What the step before adds to the gates.

    Args:
        gates: [B, G], overwritten.
        before: tokens, int64 [B] or [B, parts], or groove vectors, float32 [B, 27].
        tables: see heads.StepEmbedding.gate_tables.
        more: [B, G], added.
    """
    if before.is_floating_point():
        torch.add(F.linear(before, tables[0], tables[1]), more, out=gates)
        return
    parts = _parts(before, len(tables))
    first = tables[0].index_select(0, parts[0])
    for i in range(1, len(tables)):
        first.add_(tables[i].index_select(0, parts[i]))
    torch.add(first, more, out=gates)


def _parts(steps: Tensor, count: int) -> list[Tensor]:
    return list(steps.unbind(dim=-1)) if count > 1 else [steps]


def logits_at(walk: Walk, t: int, place: int, before: Tensor) -> Tensor:
    """The logits of a step.

    Args:
        t: which step of this decoder, from 0.
        place: which step of the whole.
        before: [B] and more, the step before it.

    Returns:
        [B, V]
    """
    gates, w_plan = walk.states.gates, walk.w_plan
    write_gates(gates, before, walk.tables, walk.from_z)
    if len(walk.from_place) > 0:
        gates.add_(walk.from_place[place])
    if w_plan is not None:
        gates.addmm_(walk.plan[t], w_plan)
    return multiply(take_step(walk.states), walk.output)


# ---------------------------------------------------------------- draws


class Chances(NamedTuple):
    """What a token is drawn from, given its logits; see probabilities."""

    temperature: float = 1.0  # 0, or large enough to divide by
    top_k: int = 0
    top_p: float = 1.0
    rest: int = 0  # the token that is made less likely
    rest_penalty: float = 0.0


def probabilities(logits: Tensor, allowed: Tensor | None, chances: Chances) -> Tensor:
    """As sampling.token_probabilities. logits [B, V], allowed bool [B, V] or None for all -> [B, V]"""
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -math.inf)
    if chances.rest_penalty != 0:
        logits = logits.clone()
        logits[:, chances.rest].sub_(chances.rest_penalty)
    if chances.temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    if 0 < chances.top_k < logits.shape[-1]:
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.topk(chances.top_k, dim=-1)[1], True)
        logits = logits.masked_fill(~kept, -math.inf)
    if chances.temperature != 1:
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / chances.temperature
    found = logits.softmax(dim=-1)
    if chances.top_p < 1:
        ordered, order = found.sort(dim=-1, descending=True, stable=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= chances.top_p
        beyond[:, 0].fill_(False)  # the likeliest token always stays
        found = torch.zeros_like(found).scatter_(1, order, ordered.masked_fill(beyond, 0.0))
        found = found / found.sum(dim=-1, keepdim=True)
    return found


def drawn_at(chances: Tensor, heights: Tensor) -> Tensor:
    """Draw from categorical distributions by inverting what they add up to.

    Args:
        chances: [B, V], each row summing to 1 up to rounding.
        heights: float64 [B, 1] in 0..1 (1 excluded), uniform; see heads.draw_heights.

    Returns:
        int64 [B], never a token of probability 0.
    """
    cumulative = chances.cumsum(dim=-1, dtype=torch.float64)
    target = heights * cumulative[:, -1:]  # rounding may leave the sum off 1
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


class TokenDraws(NamedTuple):
    """What the tokens of a step are drawn from, part by part."""

    sizes: list[int]  # V of each part
    banned: list[Tensor | None]  # of each part, what is added to its logits, by the token before; see sampling.banned_tokens
    chances: Chances


def draw_tokens(logits: Tensor, before: Tensor, heights: list[Tensor], draws: TokenDraws) -> Tensor:
    """A step. logits: [B, V]; before: the step before it; heights: of each part, see drawn_at -> int64 [B] or [B, parts]"""
    count = len(draws.sizes)
    by_part = list(logits.split(draws.sizes, dim=-1)) if count > 1 else [logits]
    last, drawn = _parts(before, count), torch.jit.annotate(list[Tensor], [])
    for i in range(count):
        part, banned = by_part[i], draws.banned[i]
        if banned is not None:
            part = part + banned.index_select(0, last[i])
        drawn.append(drawn_at(probabilities(part, None, draws.chances), heights[i]))
    return torch.stack(drawn, dim=-1) if count > 1 else drawn[0]


# ---------------------------------------------------------------- loops


def where_steps(condition: Tensor, steps: Tensor, others: Tensor) -> Tensor:
    """torch.where for steps of any representation. condition: bool [B] or [B, T]; steps and others: one or two dimensions more at most"""
    return torch.where(condition.reshape(list(condition.shape) + [1] * (steps.dim() - condition.dim())), steps, others)


def write_tokens(walk: Walk, draws: TokenDraws, before: Tensor, shown: Tensor, heights: list[Tensor], first: int) -> list[Tensor]:
    """Steps, each fed back.

    Args:
        before: the step before the first.
        shown: what the decoder sees of it.
        heights: float64 [B, 1] of each step, and part of it; see drawn_at.
        first: which step of the whole is the first.

    Returns:
        int64 [B] or [B, parts] of each step.
    """
    count, made = len(draws.sizes), torch.jit.annotate(list[Tensor], [])
    for t in range(len(heights) // count):
        before = shown = draw_tokens(logits_at(walk, t, first + t, shown), before, heights[t * count : (t + 1) * count], draws)
        made.append(before)
    return made


def write_legal(
    walk: Walk,
    chances: Chances,
    shown: Tensor,
    heights: list[Tensor],
    first: int,
    allowed: list[Tensor],
    following: list[Tensor],
    state: Tensor,
    weight: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """As write_tokens, lines that obey an automaton of rules.

    Args:
        allowed: of each step, which tokens may come, by state: bool [states, V].
        following: of each step, the state after, by state and token: int64 [states * V].
        state: int64 [B], of the automaton.
        weight: [B], to which is added how much of the probability (at temperature 1) the rules leave, as a logarithm in nats.

    Returns:
        int64 [B] of each step, and the state after the last.
    """
    made = torch.jit.annotate(list[Tensor], [])
    for t in range(len(heights)):
        logits, legal = logits_at(walk, t, first + t, shown), allowed[t].index_select(0, state)
        shown = drawn_at(probabilities(logits, legal, chances), heights[t])
        state = following[t].index_select(0, torch.add(shown, state, alpha=logits.shape[1]))
        if weight is not None:
            weight += logits.masked_fill(~legal, -math.inf).logsumexp(dim=-1) - logits.logsumexp(dim=-1)
        made.append(shown)
    return made, state


def write_among(
    walk: Walk,
    draws: TokenDraws,
    shown: Tensor,
    heights: list[Tensor],
    first: int,
    known: list[Tensor],
    from_model: list[Tensor],
    keep: list[Tensor],
    hidden: Tensor,
) -> list[Tensor]:
    """As write_tokens, among steps that are known (scheduled sampling).

    Args:
        known: of each step, int64 [B] or [B, parts].
        from_model: bool [B] of each step, whether it is drawn instead.
        keep: bool [B] of each step, whether the one before it is shown; none: all are.
        hidden: what is shown instead.
    """
    count, made = len(draws.sizes), torch.jit.annotate(list[Tensor], [])
    for t in range(len(known)):
        if len(keep) > 0:
            shown = where_steps(keep[t], shown, hidden)
        drawn = draw_tokens(logits_at(walk, t, first + t, shown), shown, heights[t * count : (t + 1) * count], draws)
        shown = where_steps(from_model[t], drawn, known[t])
        made.append(shown)
    return made


# ---------------------------------------------------------------- TorchScript


Loop = TypeVar("Loop", bound=Callable[..., object])
_SCRIPTING = threading.Lock()


def looped(function: Loop, device: torch.device) -> Loop:
    """A loop from above, as it runs best on a device: on a CPU as TorchScript.

    It is run operation by operation, as it is written (nothing is profiled, fused or reordered), so it computes the same to the bit.
    PyTorch calls TorchScript deprecated, and has none for Python 3.14 on; there the functions run as they are.
    """
    scripts = sys.version_info < (3, 14) and torch.backends.mkldnn.is_available()
    return _scripted(function) if device.type == "cpu" and scripts else function


def _scripted(function: Loop) -> Loop:
    with _SCRIPTING:
        return _compiled(function)


@functools.cache
def _compiled(function: Loop) -> Loop:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(function)

    @functools.wraps(function)
    def run(*args: object) -> object:
        with torch.jit.optimized_execution(False):
            return script(*args)

    return run  # type: ignore[return-value]
