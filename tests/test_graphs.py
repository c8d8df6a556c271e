"""Recordings of a GPU's work, with a stand-in for CUDA that notes what is done and does it again, on tensors that stay where they are."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from test_family import KINDS, SIZES, make, randn
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import graphs
import sampling
from config import SampleConfig
from graphs import Recording, Recordings, replayed
from products import prepared


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


class Noting(TorchDispatchMode):
    """Notes each operation with its arguments and results."""

    def __init__(self, notes: list[tuple]) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        self.notes.append((function, args, kwargs or {}, result))
        return result


class Graph:
    """As torch.cuda.CUDAGraph: replaying writes new values to the very tensors of the recording."""

    def __init__(self) -> None:
        self.notes: list[tuple] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, result in self.notes:
            again = function(*args, **kwargs)
            for old, new in zip(torch.utils._pytree.tree_leaves(result), torch.utils._pytree.tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextlib.contextmanager
def recording(graph: Graph) -> Iterator[None]:
    with Noting(graph.notes):
        yield


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU as a GPU."""
    for name, stand_in in {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "graph": recording}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    monkeypatch.setattr(graphs, "DEVICE", "cpu")
    monkeypatch.setattr(graphs, "SCRIPTS", False)  # on a GPU, loops are plain functions


def known(model: nn.Module) -> Recordings:
    return prepared(model, lambda *_: 1 / 0, torch.float32)  # type: ignore[arg-type,return-value]


def scaled(model: nn.Linear, calls: list[int]) -> Callable[[], tuple[Callable[..., Tensor], object]]:
    def make() -> tuple[Callable[..., Tensor], object]:
        calls.append(1)
        return lambda x: (2 * x + 1) @ model.weight.t(), None

    return make


@torch.no_grad()
def test_the_second_call_records_and_the_third_replays() -> None:
    model, calls = nn.Linear(3, 4), []
    for i in range(5):
        x = randn(2, 3, seed=i)
        torch.testing.assert_close(replayed(model, "twice", scaled(model, calls), torch.float32, x), (2 * x + 1) @ model.weight.t())
    assert len(calls) == 2 and len(known(model).made) == 1  # once without, once to record
    assert next(iter(known(model).made.values())).graph.replays == 4
    other = randn(5, 3)  # another shape is another recording
    replayed(model, "twice", scaled(model, calls), torch.float32, other)
    assert len(calls) == 3 and len(known(model).made) == 1


@torch.no_grad()
def test_results_stay_and_inputs_are_left_alone() -> None:
    graph = Recording(lambda x: x.mul_(2), None, randn(2, 3))
    first, second = randn(2, 3, seed=1), randn(2, 3, seed=2)
    results = graph(first), graph(second)
    torch.testing.assert_close(results[0], 2 * randn(2, 3, seed=1))
    torch.testing.assert_close(results[1], 2 * randn(2, 3, seed=2))
    assert torch.equal(first, randn(2, 3, seed=1))


@torch.no_grad()
def test_new_weights_are_recorded_anew() -> None:
    """Guards against music of a model as it was before the last training step."""
    model, calls, x = nn.Linear(3, 4), [], randn(2, 3)
    for _ in range(3):
        replayed(model, "twice", scaled(model, calls), torch.float32, x)
    model.weight.mul_(3)
    torch.testing.assert_close(replayed(model, "twice", scaled(model, calls), torch.float32, x), (2 * x + 1) @ model.weight.t())
    assert len(calls) == 3 and not known(model).made


@torch.no_grad()
def test_what_cannot_be_recorded_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> Graph:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    model, calls, x = nn.Linear(3, 4), [], randn(2, 3)
    for _ in range(4):
        torch.testing.assert_close(replayed(model, "twice", scaled(model, calls), torch.float32, x), (2 * x + 1) @ model.weight.t())
    assert known(model).impossible
    assert capsys.readouterr().err == "decoding goes on without CUDA graphs: operation not permitted when stream is capturing\n"


@torch.no_grad()
def test_few_recordings_are_kept_and_none_without_its_model() -> None:
    """Guards against a GPU's memory that fills up, shape by shape and model by model."""
    model, calls = nn.Linear(3, 4), []
    for rows in range(2, 2 + graphs.MOST + 3):
        for _ in range(2):
            replayed(model, "twice", scaled(model, calls), torch.float32, randn(rows, 3))
    assert len(known(model).made) == graphs.MOST
    vae = make(KINDS["mono"], {})
    for _ in range(3):
        sampling.decode_steps(vae, randn(3, SIZES.z_size), torch.rand(3, vae.tokenizer.steps, 1), SampleConfig())
    recordings, gone = known(vae), weakref.ref(vae)
    recording = weakref.ref(next(iter(recordings.made.values())))
    del vae, recordings
    gc.collect()
    assert gone() is None and recording() is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder", [{}, {"level_lengths": "4,4", "segment_feedback": True}], ids=["flat", "hierarchical"])
def test_a_recorded_decoder_writes_what_it_writes(kind: str, decoder: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against anything in the decoding loop that is computed on the CPU, or once, and so would be as it was for other latents."""
    vae, sample = make(KINDS[kind], decoder), SampleConfig(temperature=1.0, top_p=0.95)
    drawn = [(randn(3, SIZES.z_size, seed=i), torch.rand(3, vae.tokenizer.steps, vae.embedding.draws)) for i in range(5)]
    found = [sampling.decode_steps(vae, z, uniform, sample) for z, uniform in drawn]
    assert len(known(vae).made) == 1
    monkeypatch.setattr(graphs, "DEVICE", "cuda")
    for (z, uniform), steps in zip(drawn, found, strict=True):
        torch.testing.assert_close(sampling.decode_steps(vae, z, uniform, sample), steps)
