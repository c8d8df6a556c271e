"""What this machine can do at best, and what a piece of work needs of it: the floor under a measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from products import Product

CPU = torch.device("cpu")
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

    def with_rate(self, precision: torch.dtype, rate: float) -> Machine:
        """The same with another rate of products."""
        return replace(self, multiply_adds={**self.multiply_adds, precision: rate})

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


def at_once() -> None:
    """What a CPU was told to do is done."""


def seconds(work: Callable[[], object], wait: Callable[[], object] = at_once) -> float:
    """How long a function takes. wait: waits until a device has done what it was told to do"""
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin


def best_seconds(work: Callable[[], object], wait: Callable[[], object] = at_once, repeats: int = 7) -> float:
    """The shortest of some runs, after one that does not count: nothing else got in its way. wait: see seconds"""
    work()
    return min(seconds(work, wait) for _ in range(repeats))


@torch.inference_mode()
def product_rate(precision: torch.dtype, device: torch.device = CPU, wait: Callable[[], object] = at_once) -> float:
    """Multiply-adds a second of a product of large matrices, as quick as it can be had here and now.

    Args:
        wait: see seconds.
    """
    side = SIDE if device.type == "cpu" else 8 * SIDE
    a, b = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    quick = Product(b, None, precision)
    return side**3 / min(best_seconds(lambda: a @ b, wait), best_seconds(lambda: quick(a), wait))


@torch.inference_mode()
def measure_machine(device: torch.device = CPU, wait: Callable[[], object] = at_once) -> Machine:
    """Measure, on a CPU with the threads that are set. wait: see seconds"""
    rates = {precision: product_rate(precision, device, wait) for precision in (torch.float32, torch.bfloat16)}
    read = {}
    for size in (CACHED, UNCACHED):
        read[size] = size / best_seconds(torch.ones(size // 4, device=device).sum, wait, 15)
    quick = read[CACHED] if device.type == "cpu" else read[UNCACHED]  # so little is read quicker than a GPU is told to
    return Machine(rates, quick, read[UNCACHED])


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
        ops.addmm_: lambda _, x, weight, *__, **___: 2 * prod(x) * weight[-1],
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
