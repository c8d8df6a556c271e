"""What every riff must obey, as an automaton that decoding walks through: legal tokens, and whatever a player demands.

At each step the automaton says which tokens may come next. A token that would lead where the demands can no longer be met is
not allowed, so decoding never comes to a dead end and every riff meets them all, whatever the model and the seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config import HOLD, MAX_PITCH, REST, TokenizerConfig, UserError
from midi_utils import pitch_name

RESTS, ONSETS, HOLDS = 0, 1, 2  # what a step may hold: columns of Demands.kinds
FREE = -1  # in Demands.fixed
NO_NOTE, OPEN, CLOSED = 0, 1, 2  # no note yet; the last note may not end the riff; it may
NAMES = {  # of the demands that can be given up
    "first": "--start-note",
    "last": "--end-note",
    "kinds": "the rhythm asked for",
    "order": "the kept pitches",
    "fixed": "the kept steps",
    "classes": "--key",
}


class Impossible(Exception):
    """No riff meets some demands."""


@dataclass(frozen=True, eq=False)
class Demands:
    """What is demanded of a riff. The defaults demand nothing."""

    low: int = 1  # lowest MIDI pitch
    high: int = MAX_PITCH  # highest MIDI pitch
    classes: frozenset[int] | None = None  # pitch classes of the scale, 0..11, C is 0
    first: frozenset[int] | None = None  # MIDI pitches that the first note may have, from the step `opens` on
    opens: int = 0  # notes before this step do not count as the first one
    last: frozenset[int] | None = None  # MIDI pitches that the last note may have
    order: tuple[int, ...] | None = None  # MIDI pitches of all notes, in order
    kinds: np.ndarray | None = None  # bool [T, 3]: whether a step may be a rest, an onset, a hold
    fixed: np.ndarray | None = None  # int64 [T]: the token of a step, FREE where it is free; exempt from low, high and classes

    @property
    def pitches(self) -> np.ndarray:
        """bool [128]: which pitches the free notes may have."""
        pitch = np.arange(MAX_PITCH + 1)
        allowed = (pitch >= max(1, self.low)) & (pitch <= self.high)
        if self.classes is not None:
            allowed &= np.isin(pitch % 12, list(self.classes))
        return allowed

    @property
    def demanding(self) -> bool:
        """Whether anything beyond a range of pitches is demanded."""
        return any(getattr(self, f.name) is not None for f in dataclasses.fields(self) if f.name not in ("low", "high", "opens"))


class RiffRules:
    """The automaton of some demands.

    Attributes:
        following: int16 [T, states, V], the state after a token, -1 where it is not allowed; in every state that can be reached some
            token is.
    """

    def __init__(self, tokenizer: TokenizerConfig, demands: Demands | None = None) -> None:
        """
        Raises:
            Impossible: no riff meets the demands.
            UserError: demands on onsets, and tokens that do not tell them.
        """
        self.tokenizer, self.demands = tokenizer, demands or Demands()
        d = self.demands
        if not tokenizer.hold_token and (d.kinds is not None or d.order is not None):
            raise UserError("a model without hold tokens does not tell where notes start: neither rhythm nor order of pitches can be kept")
        self.following = self._transitions()
        self._close_dead_ends()
        if self.following[0, self.start].max() < 0:
            raise Impossible

    # States: (notes struck, phase, whether a note sounds); notes are counted only where their order is demanded.
    start = 0

    def _state(self, count: int | np.ndarray, phase: int | np.ndarray, sounding: int) -> int | np.ndarray:
        return (count * 3 + phase) * 2 + sounding

    @property
    def states(self) -> int:
        return 6 * (1 if self.demands.order is None else len(self.demands.order) + 1)

    def _transitions(self) -> np.ndarray:
        d, tokenizer = self.demands, self.tokenizer
        following = np.full((tokenizer.steps, self.states, tokenizer.vocab_size), -1, dtype=np.int16)
        may, pitch = self._allowed_at(), np.arange(1, MAX_PITCH + 1)
        early = (np.arange(tokenizer.steps) < d.opens)[:, None]
        first = np.ones(MAX_PITCH, dtype=bool) if d.first is None else np.isin(pitch, list(d.first))
        last = np.isin(pitch, list(d.last)) if d.last is not None else np.ones(MAX_PITCH, dtype=bool)
        for state in range(self.states):
            count, phase, sounding = state // 6, state // 2 % 3, state % 2
            row = np.full(tokenizer.vocab_size, -1)
            row[REST] = self._state(count, phase, 0)
            if tokenizer.hold_token and sounding:
                row[HOLD] = self._state(count, phase, 1)
            struck = first if phase == NO_NOTE else np.ones(MAX_PITCH, dtype=bool)
            unheeded = np.ones(MAX_PITCH, dtype=bool)
            if d.order is not None:
                unheeded = pitch == (d.order[count] if count < len(d.order) else -1)
                struck = struck & unheeded
                count += 1
            row[1 : MAX_PITCH + 1] = np.where(struck, self._state(count, np.where(last, CLOSED, OPEN), 1), -1)
            before = row.copy()  # the same on a step before `opens`: a note is struck, and the first one is still to come
            before[1 : MAX_PITCH + 1] = np.where(unheeded, self._state(count, NO_NOTE, 1), -1)
            following[:, state] = np.where(may, np.where(early, before, row), -1)
        return following

    def _allowed_at(self) -> np.ndarray:
        """Which tokens each step may hold, whatever came before. bool [T, V]"""
        d, tokenizer = self.demands, self.tokenizer
        may = np.ones((tokenizer.steps, tokenizer.vocab_size), dtype=bool)
        may[:, 1 : MAX_PITCH + 1] = d.pitches[1:]
        if d.kinds is not None:
            may[:, REST] &= d.kinds[:, RESTS]
            may[:, 1 : MAX_PITCH + 1] &= d.kinds[:, [ONSETS]]
            if tokenizer.hold_token:
                may[:, HOLD] &= d.kinds[:, HOLDS]
        if d.fixed is not None:
            kept = d.fixed != FREE
            may[kept] = np.arange(tokenizer.vocab_size) == d.fixed[kept, None]
        return may

    def _close_dead_ends(self) -> None:
        """Forbid what leads where the demands can no longer be met, from the last step back."""
        d = self.demands
        good = np.zeros(self.states, dtype=bool)
        for state in range(self.states):
            count, phase = state // 6, state // 2 % 3
            ends_well = phase == CLOSED if d.last is not None else phase != NO_NOTE or d.first is None
            good[state] = ends_well and (d.order is None or count == len(d.order))
        for step in reversed(range(self.tokenizer.steps)):
            rows = self.following[step]
            rows[(rows >= 0) & ~good[rows]] = -1
            good = rows.max(axis=1) >= 0

    def obeys(self, tokens: np.ndarray) -> bool:
        """Whether a riff meets the demands. tokens: int [T]"""
        state = self.start
        for step, token in enumerate(tokens):
            state = int(self.following[step, state, token])
            if state < 0:
                return False
        return True


def riff_rules(tokenizer: TokenizerConfig, demands: Demands) -> RiffRules:
    """The automaton of some demands.

    Raises:
        UserError: no riff meets them, or silent ones alone; says which of them is one too many.
    """
    if not demands.pitches.any():
        raise UserError("the range has no pitch of the key; widen --low and --high or --tuning, or give another --key")
    try:
        return RiffRules(tokenizer, demands)
    except Impossible:
        raise UserError(_why_not(tokenizer, demands)) from None


def _why_not(tokenizer: TokenizerConfig, demands: Demands) -> str:
    def possible(**changes: Any) -> bool:
        try:
            RiffRules(tokenizer, dataclasses.replace(demands, **changes))
        except Impossible:
            return False
        return True

    helps = [name for field, name in NAMES.items() if getattr(demands, field) is not None and possible(**{field: None})]
    if (demands.low, demands.high) != (1, MAX_PITCH) and possible(low=1, high=MAX_PITCH):
        helps.append(f"the range of pitches ({pitch_name(max(1, demands.low))} to {pitch_name(demands.high)})")
    if helps:
        return f"no riff meets all that is asked; it would do without {', or without '.join(helps)}"
    return "no riff meets all that is asked, even with one of the demands left out; ask for less"


def kept_rhythm(tokens: np.ndarray) -> np.ndarray:
    """Demands.kinds that keep a riff's onsets, holds and rests. tokens: int [T], with hold tokens -> bool [T, 3]"""
    kind = np.where(tokens == REST, RESTS, np.where(tokens == HOLD, HOLDS, ONSETS))
    return np.eye(3, dtype=bool)[kind]


def given_onsets(steps: Sequence[bool]) -> np.ndarray:
    """Demands.kinds where notes start at the given steps and nowhere else; how long they last is free. -> bool [T, 3]"""
    onsets = np.asarray(steps, dtype=bool)
    return np.stack([~onsets, onsets, ~onsets], axis=1)
