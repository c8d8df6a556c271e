"""What decoders do at each step, without gradients, and the loops over steps, as functions that TorchScript takes too; see graphs.looped.

No `from __future__ import annotations` in here: TorchScript reads annotations as they stand. Dimensions: B batch, H hidden, G gates (of all
units of a layer), V logits (of all parts), C plan.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from products import Laid, multiply, multiply_into

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
    gates: Tensor  # float32 [B, G]: what the input adds to those of the first layer has to stand there before a step
    kinds: list[Tensor]  # of an LSTM, [B, H] each: the same by kind
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
            torch.sigmoid(multiply_into(states.seen[layer], states.from_state[layer], states.gates, layer == 0), out=states.gates)
            lstm_cell(states.kinds, states.cells[layer], states.rooms[0], output, states.number)
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
    plan: list[Tensor]  # [B, C] of each step; none, if there is no plan
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


def drawn_at(mass: Tensor, heights: Tensor) -> Tensor:
    """Draw from categorical distributions by inverting what they add up to.

    Args:
        mass: [B, V], each row summing to 1 up to rounding.
        heights: float64 [B, 1] in 0..1 (1 excluded), uniform; see heads.TokenEmbedding.step_numbers.

    Returns:
        int64 [B], never a token of probability 0.
    """
    cumulative = mass.cumsum(dim=-1, dtype=torch.float64)
    target = heights * cumulative[:, -1:]  # rounding may leave the sum off 1
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


def play_groove(logits: Tensor, hits: Tensor, uniform: Tensor | None, temperature: float, spread: Tensor | None) -> Tensor:
    """Groove vectors with these hits, as loud and as late as the logits say; nothing where nothing is struck.

    Args:
        logits: [..., 27]
        hits: bool [..., 9]
        uniform: [..., 29] in 0..1, for drawing loudness and timing where their spread is known; None takes what is predicted.
        temperature: of those draws, from 0 up.
        spread: [2, 10], standard deviations of velocities and of offsets: of each class, and what those of a step share.

    Returns:
        [..., 27]
    """
    drums = logits.shape[-1] // 3
    _, loud, late = logits.split(drums, dim=-1)
    velocities, offsets = loud.sigmoid(), late.tanh()
    if uniform is not None and spread is not None:
        normal = torch.special.ndtri(uniform[..., drums:].clamp(1e-4, 1 - 1e-4)).unflatten(-1, [2, drums + 1])
        own, shared = (temperature * normal * spread).split([drums, 1], dim=-1)
        louder, later = (own + shared).unbind(dim=-2)
        velocities, offsets = (velocities + louder).clamp(1 / 127, 1), (offsets + later).clamp(-1, 1)  # a hit is heard
    struck = hits.to(logits.dtype)
    return torch.cat([struck, struck * velocities, struck * offsets], dim=-1)


def draw_groove(logits: Tensor, uniform: Tensor, temperature: float, spread: Tensor | None) -> Tensor:
    """Groove vectors, hits drawn too. As play_groove; uniform: [..., 9 or 29]; temperature 0 takes what is likeliest"""
    hit_logits = logits[..., : logits.shape[-1] // 3]
    if temperature == 0:
        return play_groove(logits, hit_logits > 0, None, 0.0, None)
    hits = uniform[..., : hit_logits.shape[-1]] < (hit_logits / max(temperature, 1e-6)).sigmoid()
    return play_groove(logits, hits, uniform, temperature, spread)


class StepDraws(NamedTuple):
    """What steps are drawn from; see heads.StepEmbedding.step_draws."""

    sizes: list[int]  # of tokens: V of each part; none: groove vectors
    banned: list[Tensor | None]  # of each part, what is added to its logits, by the token before; see sampling.banned_tokens
    chances: Chances
    spread: Tensor | None  # of groove vectors, see play_groove


def draw_step(logits: Tensor, before: Tensor, numbers: list[Tensor], hits: Tensor | None, draws: StepDraws) -> Tensor:
    """A step.

    Args:
        logits: [B, V]
        before: [B] and more, the step before it.
        numbers: what it is drawn with, see heads.StepEmbedding.step_numbers.
        hits: bool [B, 9] of groove vectors, if they are given.

    Returns:
        [B] and more.
    """
    count, temperature = len(draws.sizes), draws.chances.temperature
    if count == 0:
        if hits is None:
            return draw_groove(logits, numbers[0], temperature, draws.spread)
        return play_groove(logits, hits, numbers[0] if temperature > 0 else None, temperature, draws.spread)
    by_part = list(logits.split(draws.sizes, dim=-1)) if count > 1 else [logits]
    last, drawn = _parts(before, count), torch.jit.annotate(list[Tensor], [])
    for i in range(count):
        part, banned = by_part[i], draws.banned[i]
        if banned is not None:
            part = part + banned.index_select(0, last[i])
        drawn.append(drawn_at(probabilities(part, None, draws.chances), numbers[i]))
    return torch.stack(drawn, dim=-1) if count > 1 else drawn[0]


# ---------------------------------------------------------------- rules


class Automaton(NamedTuple):
    """Rules on their way, for some riffs at once; see sampling.automaton."""

    allowed: list[Tensor]  # bool [states, V] of each step, which tokens may come
    following: list[Tensor]  # int64 [states * V] of each step, the state after, by state and token
    state: Tensor  # int64 [B], overwritten at each step


def legal_at(rules: Automaton, place: int) -> Tensor:
    """Which tokens may come at a step. bool [B, V], at least one True in each row"""
    return rules.allowed[place].index_select(0, rules.state)


def take_token(rules: Automaton, place: int, tokens: Tensor) -> None:
    """Take in each riff's token of a step. tokens: int64 [B]"""
    chosen = torch.add(tokens, rules.state, alpha=rules.allowed[place].shape[1])
    torch.index_select(rules.following[place], 0, chosen, out=rules.state)


# ---------------------------------------------------------------- loops


def where_steps(condition: Tensor, steps: Tensor, others: Tensor) -> Tensor:
    """torch.where for steps of any representation. condition: bool [B] or [B, T]; steps and others: one or two dimensions more at most"""
    return torch.where(condition.reshape(list(condition.shape) + [1] * (steps.dim() - condition.dim())), steps, others)


def write_steps(
    walk: Walk, draws: StepDraws, before: Tensor, shown: Tensor, numbers: list[list[Tensor]], first: int, hits: list[Tensor]
) -> list[Tensor]:  # fmt: skip
    """Steps, each fed back.

    Args:
        before: the step before the first.
        shown: what the decoder sees of it.
        numbers: what each step is drawn with, see draw_step.
        first: which step of the whole is the first.
        hits: bool [B, 9] of each step, if they are given; else none.

    Returns:
        [B] and more, of each step.
    """
    made = torch.jit.annotate(list[Tensor], [])
    for t in range(len(numbers)):
        given = hits[t] if len(hits) > 0 else None
        before = shown = draw_step(logits_at(walk, t, first + t, shown), before, numbers[t], given, draws)
        made.append(before)
    return made


def write_legal(
    walk: Walk,
    chances: Chances,
    shown: Tensor,
    numbers: list[list[Tensor]],
    first: int,
    rules: Automaton,
    weight: Tensor | None,
) -> list[Tensor]:
    """As write_steps, lines that obey rules.

    Args:
        rules: of the whole.
        weight: [B], to which is added how much of the probability (at temperature 1) the rules leave, as a logarithm in nats.

    Returns:
        int64 [B] of each step.
    """
    made = torch.jit.annotate(list[Tensor], [])
    for t in range(len(numbers)):
        logits, legal = logits_at(walk, t, first + t, shown), legal_at(rules, first + t)
        shown = drawn_at(probabilities(logits, legal, chances), numbers[t][0])
        take_token(rules, first + t, shown)
        if weight is not None:
            weight += logits.masked_fill(~legal, -math.inf).logsumexp(dim=-1) - logits.logsumexp(dim=-1)
        made.append(shown)
    return made


def write_among(
    walk: Walk,
    draws: StepDraws,
    before: Tensor,
    shown: Tensor,
    numbers: list[list[Tensor]],
    first: int,
    known: list[Tensor],
    from_model: list[Tensor],
    keep: list[Tensor],
    hidden: Tensor,
) -> list[Tensor]:
    """As write_steps, among steps that are known (scheduled sampling).

    Args:
        known: [B] and more, of each step.
        from_model: bool [B] of each step, whether it is drawn instead.
        keep: bool [B] of each step, whether the one before it is shown; none: all are.
        hidden: what is shown instead.
    """
    made = torch.jit.annotate(list[Tensor], [])
    for t in range(len(known)):
        if len(keep) > 0:
            shown = where_steps(keep[t], shown, hidden)
        drawn = draw_step(logits_at(walk, t, first + t, shown), before, numbers[t], None, draws)
        before = shown = where_steps(from_model[t], drawn, known[t])
        made.append(before)
    return made
