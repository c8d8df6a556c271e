"""How much of a riff is copied, against slow and plain computations of the same."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import HOLD, REST, TokenizerConfig
from measures import novelty
from measures.distances import riff_features
from measures.evaluation import Row, per_riff_values
from measures.metrics import framewise_overlap
from measures.novelty import Nearest, TrainingRiffs, human_distance
from midi_utils import tokens_to_notes

TOKENIZER, PLAIN = TokenizerConfig(), TokenizerConfig(hold_token=False)


def legal_riffs(count: int, seed: int, tokenizer: TokenizerConfig = TOKENIZER, pitches: int = 4) -> np.ndarray:
    """Riffs of few pitches, so that they have much in common; all lengths, a silent one and one of a single note among them."""
    rng = np.random.default_rng(seed)
    riffs = rng.integers(50, 50 + pitches, size=(count, tokenizer.steps))
    riffs[rng.random(riffs.shape) < rng.uniform(0, 0.9, size=(count, 1))] = REST
    if tokenizer.hold_token:
        for t in range(1, tokenizer.steps):
            riffs[:, t] = np.where((riffs[:, t - 1] != REST) & (rng.random(count) < 0.3), HOLD, riffs[:, t])
    riffs[0], riffs[1, 1:] = REST, REST
    riffs[1, 0] = 50
    return riffs


def transposed(riffs: np.ndarray, shift: int) -> np.ndarray:
    return np.where((riffs != REST) & (riffs != HOLD), riffs + shift, riffs)


def known(riffs: np.ndarray, tokenizer: TokenizerConfig = TOKENIZER, song: np.ndarray | None = None) -> TrainingRiffs:
    return TrainingRiffs(riffs, [f"riff {i}" for i in range(len(riffs))], tokenizer, song)


# ---------------------------------------------------------------- slow and plain


def plain_events(riff: np.ndarray, tokenizer: TokenizerConfig) -> list[tuple[int, int]]:
    start, _, pitch = tokens_to_notes(riff, tokenizer)
    return [(int(s), int(p - pitch[max(0, i - 1)])) for i, (s, p) in enumerate(zip(start, pitch, strict=True))]


def plain_levenshtein(a: list, b: list) -> int:
    """Wagner and Fischer's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row, above = [i], row
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def plain_distance(a: np.ndarray, b: np.ndarray, tokenizer: TokenizerConfig) -> float:
    one, other = plain_events(a, tokenizer), plain_events(b, tokenizer)
    return plain_levenshtein(one, other) / max(len(one), len(other), 1)


def plain_run(a: np.ndarray, riffs: np.ndarray, tokenizer: TokenizerConfig) -> int:
    """The longest passage of two notes or more whose times and pitches differ by one shift each."""
    longest = 0
    for b in riffs:
        (s, _, p), (t, _, q) = tokens_to_notes(a, tokenizer), tokens_to_notes(b, tokenizer)
        for i in range(len(s)):
            for j in range(len(t)):
                n = 0
                while i + n < len(s) and j + n < len(t) and (s[i + n] - t[j + n], p[i + n] - q[j + n]) == (s[i] - t[j], p[i] - q[j]):
                    n += 1
                longest = max(longest, n)
    return longest if longest >= 2 else 0


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PLAIN], ids=["hold", "plain"])
def test_distance_and_run_are_those_of_plain_loops(tokenizer: TokenizerConfig) -> None:
    train, asked = legal_riffs(14, 0, tokenizer), legal_riffs(12, 1, tokenizer)
    nearest = known(train, tokenizer).nearest(asked)
    table = np.array([[plain_distance(a, b, tokenizer) for b in train] for a in asked])
    np.testing.assert_allclose(nearest.distance, table.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(table[np.arange(len(asked)), nearest.index], table.min(axis=1), atol=1e-6)
    assert nearest.shared_run.tolist() == [plain_run(a, train, tokenizer) for a in asked]
    assert len(set(nearest.shared_run.tolist())) > 3 and len(np.unique(nearest.distance)) > 5  # the case is not an easy one


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    train, asked = legal_riffs(10, 0), legal_riffs(9, 1)
    song = np.arange(10) % 3
    whole = known(train, song=song).nearest(asked, np.arange(9) % 3)
    monkeypatch.setattr(novelty, "CHUNK", 2)
    parts = known(train, song=song).nearest(asked, np.arange(9) % 3)
    for field in ("index", "distance", "shared_run", "copy"):
        np.testing.assert_array_equal(getattr(parts, field), getattr(whole, field))


# ---------------------------------------------------------------- what counts as the same


@given(shift=st.integers(-40, 60), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_the_key_makes_no_difference(shift: int, seed: int) -> None:
    """Guards against a copy that hides in another key, wherever the copy is transposed to."""
    train, asked = legal_riffs(6, seed), legal_riffs(5, seed + 100)
    one, other = known(train).nearest(asked), known(train).nearest(transposed(asked, shift))
    back = known(transposed(train, shift)).nearest(asked)
    for field in ("index", "distance", "shared_run", "copy"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        np.testing.assert_array_equal(getattr(one, field), getattr(back, field))


def test_exact_and_transposed_copies_are_found_and_named() -> None:
    train = legal_riffs(8, 3)[2:]
    for shift in (0, 7, -12):
        nearest = known(train).nearest(transposed(train[3:4], shift))
        assert (nearest.index[0], nearest.distance[0], nearest.copied[0], nearest.copy[0]) == (3, 0, 1, True)
        assert nearest.shared_run[0] == len(tokens_to_notes(train[3], TOKENIZER)[0])
        assert known(train).describe(nearest, 0) | {"shared_run": 0} == {
            "riff": "riff 3", "distance": 0.0, "copied": 1.0, "shared_run": 0, "copy": True,
        }  # fmt: skip


def test_a_moved_note_is_no_copy_and_costs_what_it_should() -> None:
    """A note with another pitch changes two intervals, a note at another time one event, another length none."""
    riff = np.array([50, REST, 52, REST, 53, REST, 55, REST] * 4)
    one = known(riff[None])
    pitch, time, last = riff.copy(), riff.copy(), riff.copy()
    pitch[10] += 1
    time[10], time[11] = REST, riff[10]
    last[-2] += 1
    length = riff.copy()
    length[11] = HOLD
    nearest = one.nearest(np.stack([riff, pitch, time, last, length]))
    np.testing.assert_allclose(nearest.distance * 16, [0, 2, 1, 1, 0], atol=1e-5)
    assert nearest.copy.tolist() == [True, False, False, False, False]
    assert nearest.shared_run.tolist() == [16, 10, 10, 15, 16]


def test_a_passage_is_found_at_another_place() -> None:
    """Guards against a shared run that has to start on the same step; the distance is one of place too."""
    passage = [50, REST, 53, 55, REST, REST, 52, HOLD, 57]
    riff = np.array([*passage, *[REST] * 23])
    late = np.array([*[REST] * 11, *transposed(np.array(passage), 3), *[REST] * 12])
    nearest = known(riff[None]).nearest(late[None])
    assert (nearest.shared_run[0], nearest.distance[0], nearest.copy[0]) == (5, 1.0, False)


def test_riffs_that_share_nothing_lie_1_apart() -> None:
    low = np.array([50, 50, 50, *[REST] * 29])
    late = np.array([*[REST] * 20, 50, REST, 57, *[REST] * 9])
    nearest = known(low[None]).nearest(late[None])
    assert (nearest.distance[0], nearest.copied[0], nearest.shared_run[0]) == (1.0, 0.0, 0)


@pytest.mark.filterwarnings("error")
def test_silent_riffs_and_single_notes_are_riffs_like_others() -> None:
    silent, single, late = np.zeros(32, dtype=int), np.array([50, *[REST] * 31]), np.array([REST, 50, *[REST] * 30])
    full = np.arange(40, 72)
    nearest = known(np.stack([full, single])).nearest(np.stack([silent, single, late, full]))
    np.testing.assert_allclose(nearest.distance, [1, 0, 1, 0])
    assert nearest.shared_run.tolist() == [0, 0, 0, 32]
    assert nearest.copy.tolist() == [False, True, False, True]
    assert known(silent[None]).nearest(silent[None]).copy.tolist() == [True]
    assert known(silent[None]).nearest(full[None]).distance.tolist() == [1.0]
    assert len(known(full[None]).nearest(np.empty((0, 32), dtype=int)).distance) == 0


def legal(tokenizer: TokenizerConfig) -> st.SearchStrategy[np.ndarray]:
    """Any legal riff: drawn freely, then holds with no note before them become rests."""

    def mend(tokens: list[int]) -> np.ndarray:
        for t, token in enumerate(tokens):
            if token == HOLD and (t == 0 or tokens[t - 1] == REST):
                tokens[t] = REST
        return np.array(tokens)

    common = [REST, 1, 40, 127] + [HOLD] * tokenizer.hold_token
    token = st.one_of(st.sampled_from(common), st.integers(0, tokenizer.vocab_size - 1))
    return st.lists(token, min_size=tokenizer.steps, max_size=tokenizer.steps).map(mend)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PLAIN, TokenizerConfig(bars=1)], ids=["hold", "plain", "one bar"])
def test_any_legal_riffs_go_through_everything(tokenizer: TokenizerConfig) -> None:
    """Guards against a division by no notes: no metric, feature or comparison fails or warns; shares stay shares."""

    @given(st.lists(legal(tokenizer), min_size=1, max_size=4), st.lists(legal(tokenizer), min_size=1, max_size=3))
    @settings(max_examples=60, deadline=None)
    def check(riffs: list[np.ndarray], train: list[np.ndarray]) -> None:
        tokens = np.stack(riffs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = per_riff_values(Row(tokens, np.full(len(tokens), 100.0)), tokenizer)
            half = tokenizer.steps_per_bar // 2
            values["pitch"], values["length"] = framewise_overlap(tokens, tokenizer, half, half)
            features = riff_features(tokens, tokenizer)
            nearest = known(np.stack(train), tokenizer).nearest(tokens)
        for name, value in values.items():
            assert value.shape == (len(tokens),), name
            if name not in ("notes_per_bar", "note_density", "pitch_range", "pitch_class_entropy"):
                assert np.nanmin([0, *value]) >= -1e-9 and np.nanmax([0, *value]) <= 1 + 1e-9, name
        assert np.isfinite(features).all() and features.shape[0] == len(tokens)
        assert ((nearest.distance >= 0) & (nearest.distance <= 1)).all()

    check()


# ---------------------------------------------------------------- other songs only


def test_a_riffs_own_song_is_passed_over() -> None:
    """Guards against a band of what people do that is made of phrases of one song, which repeat each other on purpose."""
    riffs = legal_riffs(9, 5)[2:]
    song = np.array([0, 0, 1, 1, 1, 2, 2])
    riffs[1] = transposed(riffs[0], 2)  # a copy inside song 0
    riffs[6] = riffs[2]  # and one between songs 2 and 1
    nearest = known(riffs, song=song).nearest(riffs, song)
    assert (song[nearest.index] != song).all()
    for i in range(len(riffs)):
        others = riffs[song != song[i]]
        assert nearest.distance[i] == pytest.approx(min(plain_distance(riffs[i], b, TOKENIZER) for b in others), abs=1e-6)
        assert nearest.shared_run[i] == plain_run(riffs[i], others, TOKENIZER)
    assert nearest.copy.tolist() == [False, False, True, False, False, False, True]
    assert (known(riffs, song=song).nearest(riffs).distance == 0).all()  # without songs, each is its own nearest
    assert known(riffs).nearest(riffs, song).shared_run.min() > 0  # songs are not known: nothing is passed over


def test_human_distance_is_the_median_over_other_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    riffs, song = legal_riffs(13, 6)[2:], np.arange(11) % 4
    expected = [min(plain_distance(a, b, TOKENIZER) for b in riffs[song != own]) for a, own in zip(riffs, song, strict=True)]
    assert human_distance(riffs, song, TOKENIZER) == pytest.approx(np.median(expected), abs=1e-6)
    assert np.isnan(human_distance(riffs, np.zeros(11, dtype=int), TOKENIZER))
    monkeypatch.setattr(novelty, "MOST_ASKED", 5)  # of a large folder a fixed choice
    assert human_distance(riffs, song, TOKENIZER) == human_distance(riffs, song, TOKENIZER)
    assert min(expected) <= human_distance(riffs, song, TOKENIZER) <= max(expected)


# ---------------------------------------------------------------- too close


def test_too_close_by_hand() -> None:
    """A copy is too close at any limit below 1, also where its length alone made it differ; at 1 everything may pass."""
    nearest = Nearest(np.arange(4), np.array([0.0, 0.2, 0.5, 1.0]), np.zeros(4, dtype=int), np.array([True, False, False, True]))
    assert nearest.too_close(1.0).tolist() == [False] * 4
    assert nearest.too_close(0.99).tolist() == [True, False, False, True]
    assert nearest.too_close(0.7).tolist() == [True, True, False, True]
    assert nearest.too_close(0.0).tolist() == [True, True, True, True]
    some = nearest.take(np.array([2, 1]))
    assert (some.index.tolist(), some.copied.tolist(), some.copy.tolist()) == ([2, 1], [0.5, 0.8], [False, False])


def test_names_and_riffs_have_to_match() -> None:
    with pytest.raises(ValueError, match="8 riffs and 1 names"):
        TrainingRiffs(legal_riffs(8, 0), ["one"], TOKENIZER)
