"""The language model: what it learns, how it is trained and resumed, what it draws; and the n-grams it is set beside."""

from __future__ import annotations

import itertools
import json
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Here, assert_one_line, bytes_below, small_songs

import graphs
import train_lm
import training
from checkpoints import LM_KIND, load_language_model, read_checkpoint
from config import LM_FILE, EventConfig, LMConfig, SampleConfig, TokenizerConfig, UserError
from events import BOS, EOS, NOTE_OFF, NOTE_ON, PAD, TIME_SHIFT, notes_to_events
from language_model import LanguageModel
from lm_sampling import continue_sequences, event_grammar, sample_events, sample_riffs_by_lm
from lm_stepwise import lm_logits_at, take_event
from measures.baselines import NGram, discounts
from measures.model_figures import evaluate_pieces
from measures.novelty import TrainingPieces
from measures.piece_evaluation import compare_pieces, piece_facts
from midi_utils import read_midi
from pieces import IGNORED, event_vocabulary
from steering.rules import Demands, RiffRules

torch.set_num_threads(1)

CPU = torch.device("cpu")
EVENTS = EventConfig()
VOCABULARY = event_vocabulary(EVENTS)
FLAGS = ["--preset", "events_lstm_tiny", "--threads", "1", "--device", "cpu", "--batch-size", "4", "--seq-len", "40", "--holdout", "0.3"]


def small_model(seed: int = 0, size: int = VOCABULARY.size, layers: int = 2, copy_size: int = 0, **copying: int) -> LanguageModel:
    torch.manual_seed(seed)
    sizes = {"copy_window": 7, "copy_lag": 3, "position_buckets": 2 * (copy_size > 0), **copying}
    config = LMConfig(embed_size=8, hidden_size=16, layers=layers, copy_size=copy_size, **sizes)
    return LanguageModel(config, size).eval()


either = pytest.mark.parametrize("copy_size", [0, 4], ids=["plain", "copying"])


@pytest.fixture
def tunes(write: Callable[..., Path], tmp_path: Path) -> Path:
    """Eight little tunes that go up and down a scale, so that there is something to learn."""
    for number in range(8):
        scale = [55 + number + step for step in (0, 2, 4, 5, 7, 5, 4, 2)] * (3 + number)
        write(f"tunes/tune_{number}.mid", [(i / 2, 0.5, pitch) for i, pitch in enumerate(scale)], tempos=((0, 120),))
    return tmp_path / "tunes"


def train(tunes: Path, run: Path, *flags: str) -> int:
    return train_lm.main([*FLAGS, "--data", str(tunes), "--run-dir", str(run), *flags])


# ---------------------------------------------------------------- the model


@either
@pytest.mark.parametrize("given", [1, 4, 11])
def test_one_step_at_a_time_is_the_whole_sequence(copy_size: int, given: int) -> None:
    """Guards against a stepper with gates in another order, a state that is not carried, and a memory that loses or keeps too much."""
    model = small_model(copy_size=copy_size)
    tokens = torch.randint(0, VOCABULARY.size, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if model.position is not None:
            model.position.weight.normal_()
        whole, _ = model(tokens)
        _, state = model(tokens[:, :given])
        walk = model.begin(state)
        for t in range(given, 50):
            torch.testing.assert_close(lm_logits_at(walk, t, tokens[:, t]), whole[:, t], atol=1e-4, rtol=1e-4)
        assert walk.copying is None or walk.copying.keys.shape[1] == 7  # it grows no more


@either
@pytest.mark.parametrize("first", [1, 5, 19])
def test_parts_of_a_sequence_are_the_whole(copy_size: int, first: int) -> None:
    """With a window of 7 tokens: what stands in the memory is seen from the next part just as far back."""
    model = small_model(copy_size=copy_size)
    tokens = torch.randint(0, VOCABULARY.size, (2, 30), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        whole, _ = model(tokens)
        state, found = None, []
        for part in tokens.split([first, 3, 27 - first], dim=1):
            logits, state = model(part, state)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lag", [1, 3])
def test_copying_reaches_back_from_its_lag_to_its_window(lag: int) -> None:
    """One place trusts nothing but its memory, and its keys are all equal: it gives each token of the window its share."""
    model = small_model(size=50, copy_size=4, copy_lag=lag)
    assert model.copy is not None
    with torch.no_grad():
        model.copy.trust.weight.zero_()
        model.copy.trust.bias.fill_(-1e4)
        model.copy.key.weight.zero_()
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        shares = model(tokens)[0].exp()[0]  # [T, V]
    for t in range(lag, 20):
        expected = torch.zeros(50)
        far, near = max(1, t - 6), t - lag + 1  # with lag 1 the token just read can come again; BOS never followed anything
        expected[far : near + 1] = 1 / (near + 1 - far)
        torch.testing.assert_close(shares[t], expected, atol=1e-5, rtol=0)


def test_a_phrase_never_heard_before_is_repeated_by_copying() -> None:
    """Guards against attention to the wrong place: off by one, it would copy a neighbour. An LSTM alone learns no such thing."""
    rng = torch.Generator().manual_seed(0)

    def phrases(count: int) -> torch.Tensor:
        phrase = torch.randint(2, 30, (count, 10), generator=rng)
        return torch.cat([torch.ones(count, 1, dtype=torch.int64), phrase, phrase], dim=1)

    losses = {}
    for copy_size in (0, 16):
        torch.manual_seed(0)
        model = LanguageModel(LMConfig(embed_size=16, hidden_size=32, layers=1, copy_size=copy_size), 30)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(300):
            batch = phrases(32)
            loss = torch.nn.functional.cross_entropy(model(batch[:, :-1])[0].flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            new = phrases(200)
            repeated = model(new[:, :-1])[0][:, 12:]
        losses[copy_size] = torch.nn.functional.cross_entropy(repeated.flatten(0, 1), new[:, 13:].flatten()).item()
    assert losses[16] < 0.5 < 2 < losses[0], losses


@either
def test_no_token_sees_what_comes_after(copy_size: int) -> None:
    model, tokens = small_model(copy_size=copy_size), torch.randint(0, VOCABULARY.size, (2, 10), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 6:] = 5
    with torch.inference_mode():
        assert torch.equal(model(tokens)[0][:, :6], model(changed)[0][:, :6])
        assert not torch.equal(model(tokens)[0][:, 6:], model(changed)[0][:, 6:])


@either
def test_evaluation_is_that_of_each_piece_alone(copy_size: int) -> None:
    """Guards against padding that counts, states that leak between pieces, and parts that forget the state."""
    rng = np.random.default_rng(0)
    pieces = [np.concatenate([[BOS], rng.integers(3, VOCABULARY.size, size=size), [EOS]]) for size in (5, 700, 30, 1, 513, 200)]
    model = small_model(copy_size=copy_size, copy_window=40)
    nats, right = 0.0, 0
    with torch.inference_mode():
        for piece in pieces:
            x = torch.from_numpy(piece)[None]
            logits = model(x[:, :-1])[0][0]
            nats += float(torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum"))
            right += int((logits.argmax(dim=-1) == x[0, 1:]).sum())
    found, count = evaluate_pieces(model, pieces, CPU), sum(len(piece) - 1 for piece in pieces)
    assert found["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(nats / count), rel=1e-5)
    assert found["accuracy"] == pytest.approx(right / count)
    assert found["nats_per_piece"] == pytest.approx(nats / len(pieces), rel=1e-5)


def test_loss_counts_no_padding_and_shares_add_up() -> None:
    """The mean of two processes' losses is the loss of one, whatever the padding in their shares."""
    inputs = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(2))
    targets = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(3))
    targets[1, 3:] = targets[3, 1:] = IGNORED
    model, first = small_model(), torch.zeros(4, dtype=torch.int64)
    alone, parts = train_lm.training_loss(model, (inputs, targets, first), None, training.Processes(), CPU)
    shares = [train_lm.training_loss(model, (inputs, targets, first), None, training.Processes(rank, 2), CPU) for rank in range(2)]
    assert alone.item() == pytest.approx(sum(loss.item() for loss, _ in shares) / 2, rel=1e-5)
    torch.testing.assert_close(parts, shares[0][1] + shares[1][1], rtol=1e-5, atol=0)
    assert parts[2] == (targets != IGNORED).sum() == 22


def test_it_is_told_where_it_is() -> None:
    """Guards against sequences from inside a piece that are taken for its beginning, and buckets past the last."""
    model = small_model(copy_size=4)
    assert model.position is not None
    tokens = torch.randint(3, 50, (2, 10), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        begin, _ = model(tokens)
        torch.testing.assert_close(model(tokens, first=torch.tensor([0, 40]))[0], begin)  # an untrained embedding of place says nothing
        model.position.weight[1] += 1.0
        there, _ = model(tokens, first=torch.tensor([0, 40]))
        assert torch.equal(there[0], begin[0]) and not torch.allclose(there[1], begin[1])
        assert torch.equal(model(tokens, first=torch.tensor([0, 10_000]))[0][1], there[1])  # the last bucket is for all that follows


def test_dropout_is_a_function_of_seed_and_step() -> None:
    model = small_model()
    masks = train_lm.dropout_masks(model, 4, 500, 0.2, step=3, seed=7)
    assert masks is not None and [mask.shape for mask in masks] == [(4, 500, 16)] * 2
    assert set(torch.cat(masks).unique().tolist()) == {0.0, 1.25} and abs(float(torch.cat(masks).mean()) - 1) < 0.02
    again = train_lm.dropout_masks(model, 4, 500, 0.2, step=3, seed=7)
    assert again is not None and all(torch.equal(a, b) for a, b in zip(masks, again, strict=True)) and not torch.equal(*masks)
    assert train_lm.dropout_masks(model, 4, 500, 0.0, step=3, seed=7) is None


# ---------------------------------------------------------------- training


def test_one_piece_can_be_learnt_by_heart(write: Callable[..., Path], tmp_path: Path) -> None:
    """Guards against targets that are out of step with inputs: below 0.05 nats a token on a piece of random notes."""
    rng = np.random.default_rng(0)
    write("one/piece.mid", [(i / 2, 0.5, int(pitch)) for i, pitch in enumerate(rng.integers(50, 70, size=30))])
    flags = ["--steps", "400", "--dropout", "0", "--batch-size", "1", "--seq-len", "256", "--lr", "0.01", "--eval-interval", "400"]
    assert train(tmp_path / "one", tmp_path / "run", *flags) == 0
    model, content = load_language_model(tmp_path / "run" / LM_FILE, "events")
    piece = content["known"]["tokens"][0].numpy().astype(np.int64)
    assert evaluate_pieces(model, [piece], CPU)["loss"] < 0.05
    drawn = sample_events(model, VOCABULARY, [0], SampleConfig(temperature=0.0), 1000)[0]
    assert np.array_equal(drawn, piece)


def test_cut_and_resumed_equals_never_cut(tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact resume: weights and optimizer, bit for bit."""
    assert train(tunes, tmp_path / "whole", "--steps", "12", "--eval-interval", "5") == 0
    real, calls = train_lm.training_loss, itertools.count(1)

    def stop_at_five(*args):
        if next(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train_lm, "training_loss", stop_at_five)
        assert train(tunes, tmp_path / "parts", "--steps", "12", "--eval-interval", "5") == 130
    assert read_checkpoint(tmp_path / "parts" / train_lm.LAST_FILE, LM_KIND)["step"] == 5
    assert train(tunes, tmp_path / "parts", "--steps", "12", "--eval-interval", "5") == 0
    a, b = (read_checkpoint(tmp_path / name / train_lm.LAST_FILE, LM_KIND) for name in ("whole", "parts"))
    assert all(torch.equal(a["weights"][key], b["weights"][key]) for key in a["weights"])
    assert (a["step"], a["best"]) == (b["step"], b["best"])
    flat = [value for state in (a, b) for entry in state["optimizer"]["state"].values() for value in entry.values()]
    half = len(flat) // 2
    assert all(torch.equal(x, y) for x, y in zip(flat[:half], flat[half:], strict=True))


def test_the_best_is_kept_and_the_log_says_why(tunes: Path, tmp_path: Path) -> None:
    assert train(tunes, tmp_path, "--steps", "30", "--eval-interval", "10", "--log-interval", "10") == 0
    log = training.read_log(tmp_path / "train_lm.jsonl")
    held = {line["step"]: line["loss"] for line in log if line["split"] == "held out"}
    best = min(held, key=lambda step: held[step])
    _, content = load_language_model(tmp_path / LM_FILE, "events")
    assert content["step"] == best and list(held) == [10, 20, 30]
    assert all(line["perplexity"] == pytest.approx(np.exp(line["loss"]), rel=1e-4) for line in log)
    assert all(line["tokens_per_second"] > 0 for line in log if line["split"] == "train")
    assert held[30] < np.log(VOCABULARY.size) - 1  # it has learnt something
    assert (tmp_path / "data_table.csv").read_text().count("\n") == 9
    assert content["data"]["pieces"] == len(content["known"]["names"])


def test_what_changed_is_refused(tunes: Path, tmp_path: Path, here: Here, write: Callable[..., Path]) -> None:
    assert train(tunes, tmp_path / "run", "--steps", "2") == 0
    common = [*FLAGS, "--run-dir", str(tmp_path / "run"), "--data", str(tunes), "--steps", "3"]
    assert_one_line(here("train_lm", *common, "--hidden-size", "32"), "train_lm", "hidden_size 64 -> 32")
    assert_one_line(here("train_lm", *common, "--time-step-ms", "25"), "train_lm", "the tokens changed", "time_step_ms 50 -> 25")
    assert_one_line(here("train_lm", *common, "--split-seed", "3"), "train_lm", "the pieces in", "split_seed 0 -> 3")
    assert_one_line(here("train_vae", "--preset", "events_lstm"), "train_vae", "train_lm.py")
    assert_one_line(here("train_lm", "--preset", "riff_2bar"), "train_lm", "train_vae.py")


def test_starting_from_other_weights(tunes: Path, tmp_path: Path, here: Here) -> None:
    """Copies are then looked for among the pieces of both."""
    assert train(tunes, tmp_path / "a", "--steps", "20") == 0
    start = ["--init-from", str(tmp_path / "a" / LM_FILE), "--restart"]
    assert train(tunes, tmp_path / "b", "--steps", "1", "--lr", "1e-9", *start) == 0
    a, b = (read_checkpoint(tmp_path / name / LM_FILE, LM_KIND) for name in "ab")
    assert all(torch.allclose(a["weights"][key], b["weights"][key], atol=1e-6) for key in a["weights"])
    assert b["known"]["names"][len(a["known"]["names"])] == "base model: " + a["known"]["names"][0]
    for option, said in (("--max-shift", "max_shift 100 -> 20"), ("--time-step-ms", "time_step_ms 50 -> 20")):
        other = ["train_lm", *FLAGS, "--data", str(tunes), "--run-dir", str(tmp_path / "c"), option, "20", *start]
        assert_one_line(here(*other), "train_lm", "other tokens", said)
    assert training.read_log(tmp_path / "b" / "train_lm.jsonl")[0]["step"] == 0  # the weights it starts from are judged too


# ---------------------------------------------------------------- drawing


@either
def test_a_seed_gives_the_same_piece_in_any_company(copy_size: int) -> None:
    model, sample = small_model(1, copy_size=copy_size), SampleConfig(temperature=1.0, top_k=50)
    many = sample_events(model, VOCABULARY, range(20), sample, 120)
    alone = [sample_events(model, VOCABULARY, [seed], sample, 120)[0] for seed in (0, 7, 19)]
    assert all(np.array_equal(piece, many[seed]) for piece, seed in zip(alone, (0, 7, 19), strict=True))
    assert len({piece.tobytes() for piece in many}) == 20
    assert not np.array_equal(sample_events(model, VOCABULARY, [7], sample, 120, attempt=1)[0], many[7])


@pytest.mark.skipif(not graphs.SCRIPTS, reason="no TorchScript here")
@either
def test_drawing_without_python_is_the_same_to_the_bit(copy_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against what TorchScript reads otherwise than Python, and against machines without it that write something else."""
    model, riff_model = small_model(1, copy_size=copy_size), small_model(2, TokenizerConfig().vocab_size + 1, copy_size=copy_size)
    prime = notes_to_events(np.array([0, 5]), np.array([5, 10]), np.array([60, 62]), EVENTS)[:-2]
    found = []
    for scripts in (True, False):
        monkeypatch.setattr(graphs, "SCRIPTS", scripts)
        made = []
        for options in ({}, {"temperature": 0.0}, {"top_k": 9, "top_p": 0.8}, {"grammar": False}, {"precision": "bfloat16"}):
            sample = SampleConfig(**{"temperature": 1.0, **options})  # type: ignore[arg-type]
            made += [piece for chunk in (1, 6) for piece in sample_events(model, VOCABULARY, range(6), sample, 150, prime, chunk=chunk)]
            made.append(sample_riffs_by_lm(riff_model, TokenizerConfig(), range(9), sample, RiffRules(TokenizerConfig(), Demands(40, 60))))
        found.append(made)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@either
def test_half_precision_is_a_rounding_away(copy_size: int) -> None:
    """Guards against weights that are laid out otherwise for it."""
    model, tokens = small_model(copy_size=copy_size), torch.randint(0, VOCABULARY.size, (3, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(tokens)[0]
        walks = [model.begin(model(tokens[:, :4])[1], precision) for precision in (torch.float32, torch.bfloat16)]
        for t in range(4, 30):
            exact, near = (lm_logits_at(walk, t, tokens[:, t]) for walk in walks)
            torch.testing.assert_close(near, whole[:, t], atol=0.02, rtol=0.02)
            assert not torch.equal(exact, near)


def test_a_model_goes_on_with_the_weights_it_has() -> None:
    """Guards against weights from before that are multiplied by, and against pieces that change a model or each other."""
    model, sample = small_model(1, copy_size=4), SampleConfig(temperature=1.0)
    first = sample_events(model, VOCABULARY, range(3), sample, 60)
    assert all(np.array_equal(*pair) for pair in zip(first, sample_events(model, VOCABULARY, range(3), sample, 60), strict=True))
    other = small_model(2, copy_size=4)
    model.load_state_dict(other.state_dict())
    fresh = sample_events(other, VOCABULARY, range(3), sample, 60)
    assert all(np.array_equal(*pair) for pair in zip(fresh, sample_events(model, VOCABULARY, range(3), sample, 60), strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, fresh, strict=True))


def test_pieces_begin_with_bos_and_end_with_eos_or_at_the_length() -> None:
    pieces = sample_events(small_model(), VOCABULARY, range(40), SampleConfig(temperature=1.0), 300)
    for piece in pieces:
        assert piece[0] == BOS and not np.isin(piece[1:], [PAD, BOS]).any()
        assert (piece == EOS).sum() == (piece[-1] == EOS) and (piece[-1] == EOS or len(piece) == 300)
    assert {piece[-1] == EOS for piece in pieces} == {True, False}


@pytest.mark.parametrize("grammar", [True, False])
def test_the_grammar_forbids_what_no_keyboard_can_play(grammar: bool) -> None:
    """And without it, an untrained model does just that."""
    pieces = sample_events(small_model(3), VOCABULARY, range(30), SampleConfig(temperature=1.0, grammar=grammar), 300)
    wrong = 0
    for piece in pieces:
        sounding: set[int] = set()
        fresh: set[int] = set()
        begun = False
        for token in piece.tolist():
            if NOTE_ON <= token < NOTE_OFF:
                wrong += token - NOTE_ON in sounding
                begun = True
                sounding.add(token - NOTE_ON)
                fresh.add(token - NOTE_ON)
            elif NOTE_OFF <= token <= TIME_SHIFT:
                wrong += token - NOTE_OFF not in sounding or token - NOTE_OFF in fresh
                sounding.discard(token - NOTE_OFF)
            elif token > TIME_SHIFT:
                fresh.clear()
                wrong += not begun
            elif token == EOS:
                wrong += not begun
    assert (wrong == 0) == grammar


def test_every_note_of_a_real_piece_is_allowed() -> None:
    """Guards against a grammar that forbids what our own writer says."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 200, size=80)
    piece = notes_to_events(start, start + rng.integers(1, 40, size=80), rng.integers(40, 60, size=80), EVENTS)
    grammar = event_grammar(1, VOCABULARY, strict=True)
    for token in piece[1:].tolist():
        assert grammar.legal[0, token]
        take_event(grammar, torch.tensor([token]))
    assert not grammar.sounding.any()


def test_what_is_given_stays_and_is_taken_in() -> None:
    """A model that goes on from a beginning knows it: the same draws after another beginning differ."""
    model, sample = small_model(5), SampleConfig(temperature=1.0)
    prime = notes_to_events(np.array([0, 5]), np.array([5, 10]), np.array([60, 62]), EVENTS)[:-2]  # 62 is sounding
    pieces = sample_events(model, VOCABULARY, range(20), sample, 60, prime)
    assert all(np.array_equal(piece[: len(prime)], prime) for piece in pieces)
    others = sample_events(model, VOCABULARY, range(20), sample, 60 - len(prime) + 1)
    assert any(not np.array_equal(a[len(prime) :], b[1:]) for a, b in zip(pieces, others, strict=True))
    for piece in pieces:  # the grammar knows what sounds
        assert (NOTE_ON + 62) not in piece[len(prime) :][: next(iter(np.flatnonzero(piece[len(prime) :] == NOTE_OFF + 62)), 10**6)]


@either
def test_memory_does_not_grow_with_the_length(copy_size: int) -> None:
    """4000 tokens take little more memory than 400: a few bytes a token, no graph and no list of states."""
    model = small_model(layers=1, copy_size=copy_size)

    def peak(length: int) -> int:
        uniform = torch.rand(2, length)
        tracemalloc.start()
        continue_sequences(model, torch.full((2, 1), BOS), event_grammar(2, VOCABULARY, True), uniform, SampleConfig(temperature=1.0), None)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(4000) < peak(400) + 50_000


def test_generate_writes_pieces_that_read_back(tunes: Path, tmp_path: Path, here: Here) -> None:
    assert train(tunes, tmp_path / "run", "--steps", "120") == 0
    flags = ["--preset", "events_lstm_tiny", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--device", "cpu", "--length", "200"]
    result = here("generate", *flags, "--num-outputs", "4", "--max-copy", "1")
    assert (result.code, result.err) == (0, "")
    files = sorted((tmp_path / "run" / "pieces").glob("*.mid"))
    assert [file.name for file in files] == [f"piece_seed{seed:06d}.mid" for seed in range(4)]
    known = TrainingPieces(*read_checkpoint(tmp_path / "run" / LM_FILE, LM_KIND)["known"].values())
    for file in files:
        record = json.loads(file.with_suffix(".json").read_text())
        tokens = np.array(record["piece"].pop("tokens"))
        facts = piece_facts(tokens, EVENTS)
        assert record["piece"]["notes"] == facts["notes"] == len(read_midi(file).tracks[0].pitch)
        assert record["piece"]["pitch_class_entropy"] == pytest.approx(facts["pitch_class_entropy"], abs=1e-4)
        share, length, name = known.shared(tokens)
        assert record["settings"].keys() == {"temperature", "top_k", "top_p", "grammar", "precision", "max_copy", "length"}
        assert record["nearest"] == {"piece": name, "copied": round(share, 4), "passage": length}
        line = next(line for line in result.out.splitlines() if line.split()[:1] == [str(record["seed"])])
        assert f"{facts['note_density']:.3f}" in line and f"{facts['ngram_repetition']:.3f}" in line
    before = bytes_below(tmp_path / "run" / "pieces")
    assert here("generate", *flags, "--seeds", "2", "--max-copy", "1").out.count("3 pieces of earlier calls") == 1
    assert bytes_below(tmp_path / "run" / "pieces") == before  # the same seed, the same bytes
    files[0].write_bytes(b"mine")
    assert_one_line(here("generate", *flags, "--max-copy", "1"), "generate", "piece_seed000000.mid", "--output-dir")


def test_what_was_given_is_not_copied(tunes: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a prime from a training piece that is called the model's copy, and against files named that were not written."""
    assert train(tunes, tmp_path / "run", "--steps", "2") == 0
    known = read_checkpoint(tmp_path / "run" / LM_FILE, LM_KIND)["known"]["names"]
    flags = ["--preset", "events_lstm_tiny", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--num-outputs", "1"]
    prime = ["--prime", str(tunes / known[0]), "--prime-tokens", "40", "--length", "80"]
    assert here("generate", *flags, *prime, "--max-copy", "0.5").code == 0
    record = json.loads((tmp_path / "run" / "pieces" / "piece_seed000000.json").read_text())
    assert record["nearest"]["passage"] < 30
    monkeypatch.setattr("output.piece_output.MAX_ATTEMPTS", 1)
    result = here("generate", *flags, "--max-copy", "0", "--output-dir", str(tmp_path / "none"))
    assert result.code == 1 and "no piece for seed 0" in result.err and "one file for each" not in result.out


def test_generate_goes_on_from_a_file_and_refuses_a_bad_one(tunes: Path, tmp_path: Path, here: Here) -> None:
    assert train(tunes, tmp_path / "run", "--steps", "30") == 0
    flags = ["--preset", "events_lstm_tiny", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--device", "cpu", "--max-copy", "1"]
    prime = ["--prime", str(tunes / "tune_0.mid"), "--prime-tokens", "12"]
    result = here("generate", *flags, *prime, "--num-outputs", "2", "--length", "60", "--output-dir", str(tmp_path / "out"))
    assert result.code == 0
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "pieces").glob("*.json"))]
    up, length = [NOTE_ON + 55, TIME_SHIFT + 5, NOTE_OFF + 55, NOTE_ON + 57, TIME_SHIFT + 5, NOTE_OFF + 57], 13
    for record in records:
        assert record["prime"] == {"file": "tune_0.mid", "tokens": 12}
        assert record["piece"]["tokens"][:7] == [BOS, *up] and len(record["piece"]["tokens"]) > length
    (tmp_path / "empty.mid").write_bytes(b"")
    assert_one_line(here("generate", *flags, "--prime", str(tmp_path / "empty.mid")), "generate", "the file is empty")
    assert_one_line(here("generate", *flags, *prime, "--length", "13"), "generate", "give 14 or more, or fewer --prime-tokens")
    assert_one_line(
        here("generate", *flags, "--prime-tokens", "5"), "generate", "--prime-tokens: has no effect on new pieces without --prime"
    )
    assert_one_line(here("generate", *flags, "--prime", "none.mid"), "generate", "--prime none.mid: there is no such file")
    assert_one_line(here("generate", *flags, "--length", "1"), "generate", "--length 1: give 2 to 200000")
    out = str(tmp_path / "short")
    assert here("generate", *flags, "--num-outputs", "1", "--length", "2", "--output-dir", out).code == 0


@pytest.mark.parametrize(
    ("preset", "option"),
    [
        ("riff_2bar", ["--prime", "x.mid"]),
        ("riff_2bar", ["--length", "100"]),
        ("riff_2bar_lstm", ["--prior", "normal"]),
        ("events_lstm", ["--bpm", "100"]),
        ("events_lstm", ["--tuning", "DADGBE"]),
        ("events_lstm", ["--wav"]),
        ("events_lstm", ["--rest-penalty", "1"]),
        ("events_lstm", ["--eta", "1"]),
    ],
)
def test_options_without_effect_are_refused(preset: str, option: list[str], here: Here) -> None:
    assert_one_line(here("generate", "--preset", preset, *option), "generate", option[0], "no effect", preset)


def test_sequences_too_short_to_copy_in_are_refused(here: Here) -> None:
    assert_one_line(here("train_lm", "--preset", "events_lstm_copy", "--seq-len", "48"), "train_lm", "--seq-len 48", "--copy-lag 48")


def test_temperature_0_is_for_one_piece(here: Here) -> None:
    assert_one_line(here("generate", "--preset", "events_lstm", "--temperature", "0"), "generate", "--num-outputs 1")


def test_riffs_by_a_language_model(tmp_path: Path, here: Here) -> None:
    """The same riffs, the same way out, and evaluate.py with and without a VAE beside it."""
    songs = small_songs(tmp_path / "songs", songs=8, phrases=4)
    small = ["--hidden-size", "16", "--embed-size", "8", "--layers", "1", "--steps", "40", "--batch-size", "8"]
    flags = ["--preset", "riff_2bar_lstm", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--device", "cpu"]
    assert here("train_lm", *flags, "--data", str(songs), "--holdout", "0.25", *small).code == 0
    assert here("generate", *flags, "--num-outputs", "5").code == 0
    assert len(list((tmp_path / "run" / "riffs").glob("*.mid"))) == 5 and (tmp_path / "run" / "generated_riff_long.mid").exists()
    model, content = load_language_model(tmp_path / "run" / LM_FILE, "riff")
    with pytest.raises(UserError, match="is a model of riff, one of events is needed"):
        load_language_model(tmp_path / "run" / LM_FILE, "events")
    assert_one_line(here("generate", "--preset", "events_lstm", "--run-dir", str(tmp_path / "run")), "generate", "a model of riff")
    assert_one_line(here("generate", "--run-dir", str(tmp_path / "run")), "generate", "language_model.pth", "--preset")
    rules = RiffRules(TokenizerConfig(), Demands(40, 60))
    riffs = sample_riffs_by_lm(model, TokenizerConfig(), range(200), SampleConfig(temperature=1.0), rules)
    assert np.array_equal(riffs[7:8], sample_riffs_by_lm(model, TokenizerConfig(), [7], SampleConfig(temperature=1.0), rules))
    notes = riffs[(riffs > 0) & (riffs < 128)]
    assert notes.min() >= 40 and notes.max() <= 60 and riffs.max() <= 128
    before = np.concatenate([np.zeros((200, 1), dtype=np.int64), riffs[:, :-1]], axis=1)
    assert not ((riffs == 128) & (before == 0)).any()
    result = here("evaluate", *flags, "--num-outputs", "30", "--no-pictures")
    assert result.code == 0 and "nats per riff" in result.out and "5-grams: perplexity" in result.out
    assert content["known"]["names"][0].endswith("bar 1")


# ---------------------------------------------------------------- n-grams


def test_a_bigram_by_hand() -> None:
    """BOS a b, BOS a c, BOS a b: interpolated with how many different tokens each was seen after."""
    grams = NGram([np.array([0, 1, 2]), np.array([0, 1, 3]), np.array([0, 1, 2])], size=4, order=2)
    uniform = 1 / 4  # lowest counts are 1 for each of 1, 2, 3: too little to tell, a discount of 0.5
    lowest = {1: 0.5 / 3 + 0.5 * uniform, 2: 0.5 / 3 + 0.5 * uniform, 3: 0.5 / 3 + 0.5 * uniform, 0: 0.5 * uniform}
    one, two, more = 1 / 3, 1, 3  # of the pairs, whose counts are 3, 2 and 1: y = 1 / (1 + 2 * 1)
    assert grams.probability([0], 1) == pytest.approx((3 - more) / 3 + more / 3 * lowest[1])
    assert grams.probability([1], 2) == pytest.approx((2 - two) / 3 + (one + two) / 3 * lowest[2])
    assert grams.probability([1], 3) == pytest.approx((1 - one) / 3 + (one + two) / 3 * lowest[3])
    assert grams.probability([3], 2) == pytest.approx(lowest[2])  # never seen before: the next shorter context
    assert grams.nats(np.array([0, 1, 3])) == pytest.approx(-np.log(grams.probability([0], 1) * grams.probability([1], 3)))


@pytest.mark.parametrize("order", [1, 2, 5])
def test_n_gram_probabilities_sum_to_one_and_draws_follow_them(order: int) -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(-1, 2, size=(60, 50)), axis=1) % 6 + 2
    grams = NGram([np.concatenate([[0], row, [1]]) for row in steps], size=8, order=order)
    for context in itertools.islice(itertools.product(range(8), repeat=order - 1), 0, 4000, 97):
        assert sum(grams.probability(context, token) for token in range(8)) == pytest.approx(1)
    context = [0, 2, 3, 4][: order - 1] if order > 1 else []
    drawn = np.bincount([grams._draw([7] * (order - 1 - len(context)) + context, rng) for _ in range(4000)], minlength=8) / 4000
    wanted = np.array([grams.probability([7] * (order - 1 - len(context)) + context, token) for token in range(8)])
    assert np.abs(drawn - wanted).max() < 0.04


def test_higher_orders_predict_what_only_they_can_see() -> None:
    """a b a c a b a c ...: after a, only the token before it tells what comes."""
    pieces = [np.array([0, *([2, 3, 2, 4] * 20), 1])] * 5
    nats = [NGram(pieces, 6, order).nats(pieces[0]) for order in (1, 2, 3)]
    assert nats[0] > nats[1] > 3 * nats[2]


def test_discounts_stay_in_order() -> None:
    """Guards against a discount of 0, after which an unseen token has probability 0: music that repeats has few odd counts."""
    assert discounts(np.array([1] * 100 + [2] * 300 + [3] * 5 + [4] * 200)) == pytest.approx(
        (100 / 700, 2 - 3 / 7 * 5 / 300, 2 - 3 / 7 * 5 / 300)
    )
    assert discounts(np.array([5, 6])) == (0.5, 1.0, 1.5)
    one, two, more = discounts(np.array([1] * 1000 + [2] * 400 + [3] * 200 + [4] * 100))
    assert 0 < one < two < more < 3


# ---------------------------------------------------------------- what is measured on pieces


def test_facts_of_a_piece_by_hand() -> None:
    """Two notes of half a second, one after the other, then both together for half a second."""
    piece = notes_to_events(np.array([0, 10, 20, 20]), np.array([10, 20, 30, 30]), np.array([60, 67, 60, 67]), EVENTS)
    facts = piece_facts(piece, EVENTS)
    assert facts["notes"] == 4 and facts["seconds"] == 1.5 and facts["ended"] == 1
    assert facts["note_density"] == pytest.approx(4 / 1.5) and facts["pitch_class_entropy"] == pytest.approx(1)
    assert facts["polyphony"] == pytest.approx(40 / 30) and facts["pitch_range"] == 7
    assert facts["ngram_repetition"] == 0
    silent = piece_facts(np.array([BOS, EOS]), EVENTS)
    assert silent["notes"] == 0 and np.isnan(silent["note_density"]) and np.isnan(silent["pitch_class_entropy"])


def test_the_longest_passage_is_found_with_its_owner() -> None:
    a, b = np.array([BOS, 10, 11, 12, 13, 14, EOS]), np.array([BOS, 20, 21, 22, 23, EOS])
    known = TrainingPieces([a, b], ["a", "b"])
    assert known.shared(np.array([BOS, 99, 21, 22, 23, 10, EOS])) == (3 / 5, 3, "b")
    assert known.shared(a) == (1.0, 5, "a")
    assert known.shared(np.array([BOS, 14, 20, EOS]))[1] == 1  # no passage crosses pieces
    assert known.shared(np.array([BOS, 99, EOS])) == (0.0, 0, "")


def test_copies_fail_and_real_pieces_pass() -> None:
    """Other real pieces lie in the bands; the training pieces themselves are caught by what they copy; noise by most."""
    rng = np.random.default_rng(0)

    def piece() -> np.ndarray:
        steps = np.cumsum(rng.integers(1, 6, size=40))
        return notes_to_events(steps, steps + 3, 60 + rng.integers(0, 7, size=40) * 2, EVENTS)

    train_pieces, held = [piece() for _ in range(80)], [piece() for _ in range(60)]
    noise = [np.concatenate([[BOS], rng.integers(3, 359, size=120), [EOS]]) for _ in range(60)]
    rows = {"model": [piece() for _ in range(60)], "copied": train_pieces[:60], "noise": noise}
    results = compare_pieces(held, rows, TrainingPieces(train_pieces, [str(i) for i in range(80)]), EVENTS)
    failed = {name: [key for key, metric in results.items() if metric["rows"][name]["passes"] is False] for name in rows}
    assert failed["copied"] and "copied" in failed["copied"] and len(failed["noise"]) >= 5
    assert len(failed["model"]) <= 2


def test_evaluate_judges_pieces(tunes: Path, tmp_path: Path, here: Here) -> None:
    assert train(tunes, tmp_path / "run", "--steps", "60") == 0
    flags = ["--preset", "events_lstm_tiny", "--run-dir", str(tmp_path / "run"), "--threads", "1", "--device", "cpu"]
    result = here("evaluate", *flags, "--num-outputs", "12", "--no-pictures")
    assert (result.code, result.err) == (0, "")
    record = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    rows = record["metrics"]["note_density"]["rows"]
    assert set(rows) == {"held-out riffs", "model", "5-gram", "unigram", "training riffs copied"}
    assert record["metrics"]["copied"]["rows"]["training riffs copied"]["value"] == 1
    figures = record["models"][0]["language_model"]["held out"]
    assert figures["perplexity"] == pytest.approx(np.exp(figures["loss"]), rel=1e-4) and figures["n-gram perplexity"] > 1
    assert "12 new pieces" in result.out and "So few pieces" in result.out
