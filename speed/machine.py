"""What this machine can do at best, and what a piece of work needs of it: the floor under a measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from products import Product

SIDE = 1024  # of the matrices that are multiplied to see how quick that is
CACHED, UNCACHED = 4 << 20, 256 << 20  # bytes: what the caches of a processor hold, and what they do not


@dataclass(frozen=True)
class Machine:
    """Best rates, measured: multiply-adds a second by precision, bytes read a second by whether they fit into the caches."""

    multiply_adds: dict[torch.dtype, float]
    cached: float
    uncached: float

    def floor(self, work: Work) -> float:
        """Seconds that a piece of work takes at least: its products, or reading its weights, whichever is longer."""
        bandwidth = self.cached if work.bytes_read / work.steps <= CACHED else self.uncached
        return max(work.multiply_adds / self.multiply_adds[work.precision], work.bytes_read / bandwidth)

    def facts(self) -> dict[str, float]:
        """For the record."""
        rates = {f"{name}_multiply_adds_per_second": self.multiply_adds[getattr(torch, name)] for name in ("float32", "bfloat16")}
        return {**rates, "cached_bytes_per_second": self.cached, "uncached_bytes_per_second": self.uncached}


@dataclass(frozen=True)
class Work:
    """What a piece of work needs: products, and weights that are read over and over."""

    multiply_adds: int
    precision: torch.dtype = torch.float32
    rows: int = 0  # that share each weight; 0 leaves reading weights out
    steps: int = 1  # that read all weights again

    @property
    def bytes_read(self) -> float:
        """Of weights: each is read for one multiply-add of each row."""
        return self.multiply_adds / self.rows * self.precision.itemsize if self.rows else 0


def best_seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of some runs, after one that does not count: nothing else got in its way."""
    work()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@torch.inference_mode()
def measure_machine() -> Machine:
    """Measure with the threads that are set."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    quick, half, half_a = Product(b, None), Product(b, None, torch.bfloat16), a.bfloat16()
    seconds = {
        torch.float32: min(best_seconds(lambda: a @ b), best_seconds(lambda: quick(a))),
        torch.bfloat16: best_seconds(lambda: half(half_a)),
    }
    read = {}
    for size in (CACHED, UNCACHED):
        read[size] = size / best_seconds(torch.ones(size // 4).sum, 15)
    return Machine({precision: SIDE**3 / value for precision, value in seconds.items()}, read[CACHED], read[UNCACHED])


@torch.inference_mode()
def measure_device(device: torch.device, wait: Callable[[], object], side: int = 8 * SIDE) -> Machine:
    """Measure a GPU, with larger matrices. wait: until it has done what it was told to do"""

    def seconds(work: Callable[[], object]) -> float:
        return best_seconds(lambda: (work(), wait()))

    rates = {}
    for precision in (torch.float32, torch.bfloat16):
        a = torch.randn(side, side, device=device).to(precision)
        rates[precision] = side**3 / seconds(lambda a=a: a @ a)
    cached, uncached = (size / seconds(torch.ones(size // 4, device=device).sum) for size in (CACHED, 4 * UNCACHED))
    return Machine(rates, cached, uncached)


# ---------------------------------------------------------------- counting


def _lstm(x: Sequence[int], weight_ih: Sequence[int], weight_hh: Sequence[int], *_: Any, **__: Any) -> int:
    """Floating point operations of one oneDNN LSTM layer in one direction. x: [T, B, I]; weights: [G, I] and [G, H]"""
    return 2 * prod(x[:-1]) * (prod(weight_ih) + prod(weight_hh))


def multiply_adds(work: Callable[[], object]) -> int:
    """How many a piece of work computes in matrix products, oneDNN's layers and what the gradients take included."""
    ops = torch.ops.aten
    formulas = {
        ops.mkldnn_rnn_layer: _lstm,
        ops.mkldnn_rnn_layer_backward: lambda *args, **more: 2 * _lstm(*args, **more),
        ops.mv: lambda weight, *_, **__: 2 * prod(weight),
        ops.addmv: lambda _, weight, *__, **___: 2 * prod(weight),
        torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, out_shape, **__: 2 * prod(x) * out_shape[-1],
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do would not be seen
    try:
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            work()
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops() // 2


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
