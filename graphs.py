"""Loops of small kernels on a GPU, recorded once and replayed (CUDA graphs): some thousand of them are then started with one call.

On other devices nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from products import layouts, prepared

Work = Callable[..., Tensor]
DEVICE = "cuda"
WARM_UP = 2  # runs before a recording, in which libraries choose their algorithms and take their memory


class Recording:
    """A function of tensors, as a CUDA graph, which does what it did when it was recorded, with what stands where it stood then.

    Args:
        model: whose laid out weights it reads.
        work: of tensors on one GPU; waits for nothing, and takes nothing from the CPU.
        inputs: of the shapes that will be given.
    """

    def __init__(self, model: nn.Module, work: Work, *inputs: Tensor) -> None:
        self.inputs = [x.clone() for x in inputs]
        aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work(*self.inputs)
        now.wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = work(*self.inputs)
        self.read = work, layouts(model)  # kept: a graph holds addresses, not tensors

    def __call__(self, *inputs: Tensor) -> Tensor:
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


def replayed(model: nn.Module, name: Hashable, make: Callable[[], Work], precision: torch.dtype, *inputs: Tensor) -> Tensor:
    """What a function makes of its inputs: from the second call with the same name and shapes on, by replaying a recording.

    Args:
        model: when its weights change, recordings are thrown away.
        name: of the function and of all that it hangs on besides its inputs.
        make: makes the function, with what it reads.
        precision: of the model's products.
        inputs: on a GPU, for anything to be recorded.
    """
    if inputs[0].device.type != DEVICE:
        return make()(*inputs)
    kept = prepared(model, lambda *_: Recordings(), precision)
    key = name, tuple((x.shape, x.dtype) for x in inputs)
    if key in kept.made:
        return kept.made[key](*inputs)
    if kept.impossible or key not in kept.seen:
        kept.seen.add(key)
        return make()(*inputs)
    try:
        kept.made[key] = Recording(model, make(), *inputs)
    except RuntimeError:  # a driver or an operation that does not record: what follows goes without
        kept.impossible = True
        return make()(*inputs)
    return kept.made[key](*inputs)
