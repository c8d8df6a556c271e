"""Loops of many small operations, without Python between them.

Started from Python, operations of a few microseconds wait for it: on a CPU a sixth of a decoder's step at 64 rows, a fifth at one; and
threads that work side by side wait for each other's Python. So on a GPU loops are recorded once and replayed (CUDA graphs, see `replayed`),
on a CPU they run as TorchScript (see `looped`), and elsewhere as they are.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from products import layouts, prepared

Work = Callable[..., Tensor]
DEVICE = "cuda"
WARM_UP = 2  # runs before a recording, in which libraries choose their algorithms and take their memory
MOST = 8  # recordings of a model that are kept; each has memory of its own
Loop = TypeVar("Loop", bound=Callable[..., object])
SCRIPTS = sys.version_info < (3, 14) and torch.backends.mkldnn.is_available()  # products name oneDNN's operations
_SCRIPTING = threading.Lock()


# ---------------------------------------------------------------- GPUs


class Recording:
    """A function of tensors, as a CUDA graph, which does what it did when it was recorded, with what stands where it stood then.

    Args:
        work: of tensors on one GPU; waits for nothing, and takes nothing from the CPU.
        read: all that it reads besides its inputs; kept, for a graph holds addresses, not tensors.
        inputs: of the shapes that will be given.
    """

    def __init__(self, work: Work, read: object, *inputs: Tensor) -> None:
        self.read, self.inputs = read, [x.clone() for x in inputs]
        with torch.cuda.device(inputs[0].device):
            aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    work(*self.inputs)
            now.wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = work(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        with torch.cuda.device(inputs[0].device):
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given)
            self.graph.replay()
            return self.output.clone()


@dataclass
class Recordings:
    """What was recorded with a model's weights as they are."""

    made: dict[Hashable, Recording] = field(default_factory=dict)
    seen: set[Hashable] = field(default_factory=set)  # asked for once
    impossible: bool = False


def replayed(model: nn.Module, name: Hashable, make: Callable[[], tuple[Work, object]], precision: torch.dtype, *inputs: Tensor) -> Tensor:
    """What a function makes of its inputs: from the second call with the same name and shapes on, by replaying a recording.

    Args:
        model: when its weights change, or it is asked in another precision, recordings are thrown away; with it they go.
        name: of the function and of all that it hangs on besides its inputs.
        make: makes the function, and what it reads besides the model's weights. Neither may be kept by what it reads.
        precision: of the model's products.
        inputs: on a GPU, for anything to be recorded.
    """
    if inputs[0].device.type != DEVICE:
        return make()[0](*inputs)
    kept = prepared(model, lambda *_: Recordings(), precision)
    key = name, tuple((x.shape, x.dtype) for x in inputs)
    if key in kept.made:
        return kept.made[key](*inputs)
    work, read = make()
    if kept.impossible or key not in kept.seen:
        kept.seen.add(key)
        return work(*inputs)
    try:
        work(*inputs)  # lays out what is not yet
        recording = Recording(work, [read, layouts(model)], *inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # a driver or an operation that does not record
        kept.impossible = True
        print(f"decoding goes on without CUDA graphs: {str(error).splitlines()[0]}", file=sys.stderr)
        return work(*inputs)
    while len(kept.made) >= MOST:
        kept.made.pop(next(iter(kept.made)))
    kept.made[key] = recording
    return recording(*inputs)


# ---------------------------------------------------------------- CPUs


def looped(function: Loop, device: torch.device) -> Loop:
    """A function that TorchScript takes too, as it runs best on a device. Its arguments are given by place.

    It is run operation by operation, as it is written (nothing is profiled, fused or reordered), so it computes the same to the bit.
    PyTorch calls TorchScript deprecated, and has none for Python 3.14 on; there the functions run as they are.
    """
    return _scripted(function) if device.type == "cpu" and SCRIPTS else function


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
