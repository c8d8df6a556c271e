"""The automaton of demands: it allows exactly the riffs that meet them, and never leads into a dead end."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import HOLD, REST, TokenizerConfig, UserError
from midi_utils import is_legal
from steering.rules import FREE, HOLDS, ONSETS, RESTS, Demands, Impossible, RiffRules, given_onsets, kept_rhythm, riff_rules

BEATS = TokenizerConfig(bars=1, steps_per_beat=1)  # four steps: few enough to try all riffs
LOW, HIGH = 40, 41
ALL = [np.array(riff) for riff in itertools.product((REST, LOW, HIGH, HOLD), repeat=4)]
PLAIN = TokenizerConfig(bars=1, steps_per_beat=1, hold_token=False)

pitch_sets = st.none() | st.sets(st.sampled_from([LOW, HIGH, 50]), min_size=1).map(frozenset)
kinds = st.none() | st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=4, max_size=4).map(np.array)
fixed = st.none() | st.lists(st.sampled_from([FREE, FREE, REST, LOW, HIGH, HOLD]), min_size=4, max_size=4).map(np.array)
demands = st.builds(
    Demands,
    low=st.sampled_from([LOW, HIGH]),
    high=st.sampled_from([LOW, HIGH]),
    classes=st.none() | st.sets(st.sampled_from([4, 5, 7])).map(frozenset),
    first=pitch_sets,
    opens=st.integers(0, 3),
    last=pitch_sets,
    order=st.none() | st.lists(st.sampled_from([LOW, HIGH]), max_size=4).map(tuple),
    kinds=kinds,
    fixed=fixed,
)


def meets(riff: np.ndarray, d: Demands) -> bool:
    """The demands said again, about a whole riff and not step by step."""
    if not is_legal(riff, BEATS):
        return False
    onsets = [step for step in range(4) if riff[step] not in (REST, HOLD)]
    pitches = [int(riff[step]) for step in onsets]
    for step, token in enumerate(riff):
        if d.fixed is not None and d.fixed[step] != FREE:
            if token != d.fixed[step]:
                return False
            continue
        kind = {REST: RESTS, HOLD: HOLDS}.get(int(token), ONSETS)
        if d.kinds is not None and not d.kinds[step][kind]:
            return False
        if kind == ONSETS and not (d.low <= token <= d.high and (d.classes is None or token % 12 in d.classes)):
            return False
    counted = [pitch for step, pitch in zip(onsets, pitches, strict=True) if step >= d.opens]
    if d.first is not None and (not counted or counted[0] not in d.first):
        return False
    if d.last is not None and (not counted or counted[-1] not in d.last):
        return False
    return d.order is None or tuple(pitches) == d.order


@given(d=demands)
@settings(max_examples=400, deadline=None)
def test_exactly_the_riffs_that_meet_the_demands_are_allowed(d: Demands) -> None:
    """Against trying all 256 riffs: guards against a demand that is forgotten in some state, and against one that forbids too much."""
    expected = [tuple(riff) for riff in ALL if meets(riff, d)]
    try:
        rules = RiffRules(BEATS, d)
    except Impossible:
        assert not expected
        return
    assert [tuple(riff) for riff in ALL if rules.obeys(riff)] == expected


@given(d=demands, seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_any_walk_ends_in_a_riff_that_meets_the_demands(d: Demands, seed: int) -> None:
    """Guards against dead ends: in every state that is reached some token is allowed."""
    try:
        rules = RiffRules(BEATS, d)
    except Impossible:
        return
    rng, state, riff = np.random.default_rng(seed), rules.start, []
    for step in range(4):
        allowed = np.flatnonzero(rules.following[step, state] >= 0)
        assert len(allowed)
        riff.append(int(rng.choice(allowed)))
        state = rules.following[step, state, riff[-1]]
    assert rules.obeys(np.array(riff))


def test_without_demands_every_legal_riff_is_allowed() -> None:
    assert [RiffRules(BEATS).obeys(riff) for riff in ALL] == [is_legal(riff, BEATS) for riff in ALL]
    assert not Demands(40, 60).demanding and Demands(kinds=np.ones((4, 3), dtype=bool)).demanding


def test_tokens_without_hold_know_no_onsets() -> None:
    assert RiffRules(PLAIN, Demands(first=frozenset({40}), last=frozenset({40}))).obeys(np.array([0, 40, 40, 0]))
    for d in (Demands(order=(40,)), Demands(kinds=given_onsets([True] * 4))):
        with pytest.raises(UserError, match="without hold tokens"):
            RiffRules(PLAIN, d)


def test_kept_rhythm_and_given_onsets() -> None:
    riff = np.array([40, HOLD, REST, 41])
    rhythm = RiffRules(BEATS, Demands(kinds=kept_rhythm(riff)))
    assert rhythm.obeys(np.array([60, HOLD, REST, 60])) and not rhythm.obeys(np.array([60, REST, REST, 60]))
    onsets = RiffRules(BEATS, Demands(kinds=given_onsets([True, False, False, True])))
    assert onsets.obeys(np.array([60, HOLD, REST, 60])) and onsets.obeys(np.array([60, REST, REST, 60]))
    assert not onsets.obeys(np.array([60, HOLD, 60, 60])) and not onsets.obeys(np.array([REST, REST, REST, 60]))


@pytest.mark.parametrize(
    ("d", "text"),
    [
        (Demands(low=40, high=40, classes=frozenset({1})), "the range has no pitch of the key"),
        (Demands(first=frozenset({40}), fixed=np.array([41, FREE, FREE, FREE])), "without --start-note, or without the kept steps"),
        (Demands(order=(40,) * 5), "without the kept pitches"),
        (Demands(low=50, order=(40,)), "without the kept pitches, or without the range of pitches"),
        (Demands(last=frozenset({40}), kinds=given_onsets([False] * 4)), "without --end-note, or without the rhythm asked for"),
        (Demands(order=(40,) * 5, first=frozenset({41}), fixed=np.array([40, FREE, FREE, FREE])), "even with one of the demands left out"),
    ],
)
def test_what_is_impossible_is_refused_with_the_reason(d: Demands, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(text)) as error:
        riff_rules(BEATS, d)
    assert "\n" not in str(error.value)
