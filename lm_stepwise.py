"""What language models do at each token, without gradients, and the loop over tokens, as functions that TorchScript takes too.

See graphs.looped. No `from __future__ import annotations` in here: TorchScript reads annotations as they stand. Dimensions: B batch,
H hidden, G gates (of all units of a layer), K key, W window, N remembered tokens, V vocabulary, P pitches.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from products import Laid, multiply
from stepwise import Automaton, Chances, LayerStates, drawn_at, legal_at, probabilities, take_step, take_token

# ---------------------------------------------------------------- a language model


class Copying(NamedTuple):
    """Copying on its way: what a language model remembers, overwritten at each token; see language_model.CopyAttention."""

    reading: Laid  # [2K + 1, H]: the key of a place, what it looks for (over the root of K), and how far it trusts the vocabulary
    keys: Tensor  # [B, W, K], entry i at i % W
    tokens: Tensor  # int64 [B, W]
    newest_key: Tensor  # [B, K], of the newest place, whose token is not known yet
    lag: int


class LMWalk(NamedTuple):
    """A language model on its way, with its weights; see language_model.LanguageModel.begin."""

    states: LayerStates
    table: Tensor  # [V, G], what a token adds to the gates of the first layer
    from_place: list[Tensor]  # [G] of each bucket, what its place in the piece adds to them; none, if it is not told
    bucket: int  # tokens
    output: Laid
    copying: Copying | None


def mixed(logits: Tensor, own: Tensor, copied: Tensor, least: float = torch.finfo(torch.float32).tiny) -> Tensor:
    """Logits of a mixture.

    Args:
        logits: [..., V], of the vocabulary.
        own: [..., 1], its weight.
        copied: [..., V], the rest.
        least: probability.

    Returns:
        [..., V]
    """
    return (own * logits.softmax(dim=-1) + copied).clamp(min=least).log()


def copied_at(copying: Copying, count: int, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What a place would copy, as language_model.CopyAttention.forward.

    Args:
        count: entries so far; this token becomes one more.
        x: [B, H], the layers' output there.
        tokens: int64 [B], read there.

    Returns:
        the weight of the vocabulary [B, 1] and of each token by copying, [B, N] at most W of them: those of copying.tokens.
    """
    size, window = copying.keys.shape[2], copying.keys.shape[1]
    copying.keys.select(1, count % window).copy_(copying.newest_key)
    copying.tokens.select(1, count % window).copy_(tokens)
    key, query, trust = multiply(x, copying.reading).split([size, size, 1], dim=1)
    copying.newest_key.copy_(key)
    used, count = min(count + 1, window), count + 1
    scores = torch.bmm(copying.keys.narrow(1, 0, used), query.unsqueeze(2)).squeeze(2)  # [B, N]
    hidden = min(copying.lag - 1, used)  # the newest ones, in a ring: at most two stretches
    first = (count - hidden) % window
    before_the_end = min(hidden, window - first)
    scores.narrow(1, first, before_the_end).fill_(-math.inf)
    scores.narrow(1, 0, hidden - before_the_end).fill_(-math.inf)
    own, weights = torch.cat([trust, scores], dim=1).softmax(dim=1).split([1, used], dim=1)
    return own, weights


def lm_logits_at(walk: LMWalk, place: int, tokens: Tensor) -> Tensor:
    """The logits of the next token.

    Args:
        place: how many tokens stand before this one in the piece.
        tokens: int64 [B], this one.

    Returns:
        [B, V]
    """
    gates = walk.states.gates
    torch.index_select(walk.table, 0, tokens, out=gates)
    if len(walk.from_place) > 0:
        gates.add_(walk.from_place[min(place // walk.bucket, len(walk.from_place) - 1)])
    x = take_step(walk.states)
    logits, copying = multiply(x, walk.output), walk.copying
    if copying is not None:  # the first token of a piece follows nothing, and is no entry
        own, weights = copied_at(copying, place - 1, x, tokens)
        copied = torch.zeros_like(logits).scatter_add_(1, copying.tokens.narrow(1, 0, weights.shape[1]), weights)
        logits = mixed(logits, own, copied)
    return logits


# ---------------------------------------------------------------- which events may come


class EventGrammar(NamedTuple):
    """Which event may come next, for some sequences at once; overwritten at each. See lm_sampling.event_grammar."""

    strict: bool
    legal: Tensor  # bool [B, V]
    legal_on: Tensor  # [B, P], a view of it: NOTE_ON
    legal_off: Tensor  # [B, P], likewise NOTE_OFF
    after_a_note: list[Tensor]  # likewise what only comes once a note was struck
    sounding: Tensor  # bool [B, P]
    fresh: Tensor  # bool [B, P], struck since the last TIME_SHIFT
    begun: Tensor  # bool [B, 1], a note was struck
    strikes: Tensor  # bool [V, P], the pitch that a token strikes
    releases: Tensor  # bool [V, P], likewise
    shifts: Tensor  # bool [V, 1], whether it is a TIME_SHIFT


def take_event(grammar: EventGrammar, tokens: Tensor) -> None:
    """Take in the next token of each sequence. tokens: int64 [B]"""
    if not grammar.strict:
        return
    sounding, fresh, on = grammar.sounding, grammar.fresh, grammar.strikes.index_select(0, tokens)
    sounding.logical_or_(on).logical_and_(grammar.releases.index_select(0, tokens).logical_not_())
    fresh.logical_or_(on).logical_and_(grammar.shifts.index_select(0, tokens).logical_not_())
    grammar.begun.logical_or_(on.any(dim=1, keepdim=True))
    torch.logical_not(sounding, out=grammar.legal_on)
    torch.logical_not(fresh, out=grammar.legal_off).logical_and_(sounding)
    for legal in grammar.after_a_note:
        legal.copy_(grammar.begun)


# ---------------------------------------------------------------- the loop


def write_tokens(
    walk: LMWalk,
    chances: Chances,
    before: Tensor,
    logits: Tensor | None,
    place: int,
    uniform: Tensor,
    grammar: EventGrammar | None,
    rules: Automaton | None,
    ended: Tensor,
    pad: int,
    eos: int | None,
) -> Tensor:
    """Tokens, each fed back: events that obey a grammar, or riffs that obey rules.

    Args:
        before: int64 [B], the token before the first.
        logits: [B, V], of the first token, if they are known: the walk, and the grammar or the rules, have taken `before` in.
        place: how many tokens stand before the first in the piece; a riff has BOS before its first step.
        uniform: [B, T] in 0..1 (1 excluded), for the draws.
        grammar, rules: one of them.
        ended: bool [B], which sequences have; overwritten.
        pad: stands behind the end of a sequence.
        eos: ends a sequence; None never does.

    Returns:
        int64 [B, at most T], fewer where all have ended.
    """
    made = torch.full(uniform.shape, pad, dtype=torch.int64, device=uniform.device)
    for t in range(uniform.shape[1]):
        if logits is None:
            if grammar is not None:
                take_event(grammar, before)
            if rules is not None:
                take_token(rules, place + t - 2, before)
            logits = lm_logits_at(walk, place + t - 1, before)
        if rules is not None:
            legal = legal_at(rules, place + t - 1)
        else:
            assert grammar is not None
            legal = grammar.legal
        before = drawn_at(probabilities(logits, legal, chances), uniform.narrow(1, t, 1).double())
        logits = None
        made.select(1, t).copy_(before.masked_fill(ended, pad))
        if eos is not None:
            ended.logical_or_(before == eos)
            if bool(ended.all()):
                return made.narrow(1, 0, t + 1)
    return made
