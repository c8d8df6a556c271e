"""Taking measurements: several runs of each, beside what the machine could do at best, and beside an earlier record."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from config import UserError
from speed.machine import Machine, Work, at_once, seconds, spread

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2  # calls before a rate is measured: in the second a GPU's work may be recorded


class Bench:
    """What was measured so far, by name: median, least and most in a unit; of products, the share of the machine's best that was reached.

    Args:
        repeats: measurements of each figure, after one that does not count.
        only: names must hold one of these words; none takes all.
        wait: waits until a device has done what it was told to do.
        now: how many multiply-adds a second the machine does at this moment, by precision: measured beside each measurement, for shared
            machines are at times twice as quick as at others. None takes the machine's.
    """

    def __init__(
        self,
        machine: Machine,
        repeats: int,
        only: Sequence[str] = (),
        wait: Callable[[], object] = at_once,
        now: Callable[[torch.dtype], float] | None = None,
    ) -> None:
        self.machine, self.repeats, self.only, self.wait, self.now = machine, repeats, only, wait, now
        self.results: dict[str, dict[str, Any]] = {}

    def wants(self, name: str) -> bool:
        return not self.only or any(word in name for word in self.only)

    def take(self, name: str, unit: str, work: Callable[[], float], repeats: int = 0) -> None:
        """Measure what a function returns."""
        if self.wants(name):
            work()
            self._note(name, unit, [work() for _ in range(repeats or self.repeats)])

    def rate(self, name: str, noun: str, count: int, work: Callable[[], object], needs: Callable[[], Work] | None = None) -> None:
        """Measure how many of something a function does in a second. needs: what one call takes"""
        if not self.wants(name):
            return
        for _ in range(WARM_UP):
            work()
        need, rates, shares = needs() if needs else None, [], []
        for _ in range(self.repeats):
            machine = self.machine
            if need is not None and self.now is not None:
                machine = machine.with_rate(need.precision, self.now(need.precision))
            rates.append(count / self._seconds(work))
            if need is not None:
                shares.append(rates[-1] * machine.floor(need) / count)
        self._note(name, f"{noun}/s", rates, shares)

    def milliseconds(self, name: str, count: int, work: Callable[[], object]) -> None:
        """Measure milliseconds of each of so many that a function does."""
        if self.wants(name):
            work()
            self._note(name, "ms", [1000 * self._seconds(work) / count for _ in range(self.repeats)])

    def _seconds(self, work: Callable[[], object]) -> float:
        return seconds(work, self.wait)

    def times(self, name: str, count: int, ours: Callable[[], Callable[[], object]], theirs: Callable[[], float]) -> None:
        """Measure how many times as quick as a rival we are, by turns: a ratio from each turn.

        Args:
            count: of something that our function does in a call.
            ours: makes our function.
            theirs: measures how many of the same the rival does in a second.
        """
        if not self.wants(name):
            return
        work = ours()
        work()
        theirs()
        self._note(name, "times", [sustained(work, count) / theirs() for _ in range(self.repeats)])

    def _note(self, name: str, unit: str, values: Sequence[float], shares: Sequence[float] = ()) -> None:
        found: dict[str, Any] = {key: float(f"{value:.5g}") for key, value in spread(values).items()}
        text = f"{name:62s} {found['median']:10.4g} {unit} ({found['min']:.4g} to {found['max']:.4g})"
        if shares:
            found |= {f"share_{key}" if key != "median" else "share": round(value, 3) for key, value in spread(shares).items()}
            text += f"  {found['share']:.0%} of the machine's best ({found['share_min']:.0%} to {found['share_max']:.0%})"
        self.results[name] = {**found, "unit": unit}
        print(text, flush=True)


def sustained(work: Callable[[], object], count: int, least: float = 1.5) -> float:
    """How many of something a function does in a second, over calls of so many seconds at least. count: in a call"""
    calls, begin = 0, time.perf_counter()
    while not calls or time.perf_counter() - begin < least:
        work()
        calls += 1
    return calls * count / (time.perf_counter() - begin)


def run_measured(command: Sequence[str], **environment: str) -> tuple[float, float]:
    """Run a command, with more in its environment. -> wall seconds, peak memory of its largest process in MB

    Raises:
        UserError: it fails.
    """
    probe = (
        "import resource,subprocess,sys;r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(r)"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", probe, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)}: ended with status {done.returncode}")
    return time.perf_counter() - begin, int(done.stdout.split()[-1]) / _memory_unit()


def peak_megabytes() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _memory_unit()


def _memory_unit() -> int:
    return 1024 if platform.system() == "Linux" else 1024 * 1024


class Listing(Bench):
    """Takes no measurements, but notes which would be taken.

    Attributes:
        names: of the figures, in their order.
    """

    def __init__(self, only: Sequence[str] = ()) -> None:
        super().__init__(Machine({}, cached=0.0, uncached=0.0), 0, only)
        self.names: list[str] = []

    def wants(self, name: str) -> bool:
        if super().wants(name):
            self.names.append(name)
        return False


def compared(new: dict[str, dict[str, Any]], old: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each figure in both records: how many times as good the new one is, and whether their spreads touch."""
    lines = []
    for name, now in new.items():
        before = old.get(name)
        if before is None or before.get("unit") != now["unit"] or not now["median"] or not before["median"]:
            continue
        ratio = now["median"] / before["median"]
        better = ratio if now["unit"].endswith(("/s", "times")) else 1 / ratio
        touch = now["min"] <= before["max"] and before["min"] <= now["max"]
        values = f"{before['median']:10.4g} -> {now['median']:10.4g} {now['unit']}"
        lines.append(f"{better:6.2f} x  {name:62s} {values}" + "  (within the spread)" * touch)
    return lines
