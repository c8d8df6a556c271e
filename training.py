"""What the train scripts share: seeds, processes, threads, schedules, averaged weights, the log, and stopping.

The loops themselves stand in the scripts. Everything random is a function of (seed, purpose, step), so a run that
resumes needs no saved generator state, and a process of a group can make exactly its share of the numbers.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from config import MOST_THREADS, RunConfig, UserError
from files import write_file

Result = TypeVar("Result")

# ---------------------------------------------------------------- randomness

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
EVALUATION_SEED = 12345  # evaluation draws its own numbers: looking must not change the training


def numpy_seed(seed: int, *purpose: int) -> int:
    """A seed for one purpose of a run, e.g. numpy_seed(seed, NOISE, step). The last 1 is there because zeros at the end do not count."""
    return int(np.random.SeedSequence([seed, *purpose, 1]).generate_state(1, np.uint64)[0]) & 0x7FFF_FFFF_FFFF_FFFF


def generator(seed: int, *purpose: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose of a run. What CPUs draw is the same on all; each kind of GPU draws numbers of its own."""
    return torch.Generator(device).manual_seed(numpy_seed(seed, *purpose))


# ---------------------------------------------------------------- processes, device, threads

TRIED_THREADS = 16  # at most
WORTH_IT = 0.85  # of the time that half the threads take


@dataclasses.dataclass(frozen=True)
class Processes:
    """The group of processes that torchrun started, or this one alone."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process' rows of a global batch."""
        return batch[self.rank :: self.world]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world == 1:
            return flag
        together = torch.tensor([float(flag)])
        dist.all_reduce(together)
        return bool(together.item() > 0)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor of equal shape in each."""
        if self.world > 1:
            values = values.detach().cpu().clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def first(self, work: Callable[[], Result]) -> Result:
        """Do something in the main process first, then in the others: what it leaves in files is made once.

        Raises:
            UserError: as the work, in the main process; the others leave with it, without a word.
        """
        done, refusal = None, None
        if self.is_main:
            try:
                done = work()
            except UserError as error:
                refusal = error
        if self.from_main(refusal is not None):
            self.close()
            raise refusal or SystemExit(2)
        return work() if done is None else done

    def from_main(self, value: Any) -> Any:
        """The main process' value, in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def close(self) -> None:
        """Leave the group, all together and after the last DistributedDataParallel is gone: else gloo's threads may abort the process."""
        if self.world > 1:
            gc.collect()
            dist.barrier()
            dist.destroy_process_group()


def join_processes(batch_size: int) -> Processes:
    """Join the group if torchrun started this process (gloo on CPU; gradients are averaged by DistributedDataParallel).

    Raises:
        UserError: the global batch cannot be shared evenly.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    if batch_size % world:
        raise UserError(f"--batch-size {batch_size}: does not divide among {world} processes; give a multiple of {world}")
    dist.init_process_group("gloo", timeout=timedelta(days=1))  # the others wait while the first one cuts songs
    return Processes(dist.get_rank(), world)


def choose_device(name: str) -> torch.device:
    """The device asked for, or the best there is for `auto`.

    Raises:
        UserError: the machine does not have it.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and count:
        return torch.device(f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}")
    if name == "auto":
        return torch.device("cpu")
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:
        raise UserError(f"--device {name}: this machine has {count or 'no'} such device{'s' * (count != 1)}; use --device auto")
    return torch.device(name)


def choose_threads(asked: int, processes: Processes | None = None, units: int = 160) -> str:
    """Set the number of CPU threads: as asked; or one for each of several processes; or as OMP_NUM_THREADS says; or as many as are measured
    to be worth it right now.

    With the other cores busy, two threads can be thirty times slower than one, because they wait for each other at every
    product. Results may differ by rounding; --threads fixes them.

    Args:
        units: of the recurrent layers that there is to do; the smaller they are, the fewer threads they keep busy.

    Returns:
        what was chosen and why, for the log.
    """
    if asked:
        chosen, why = asked, ", as asked"
    elif processes and processes.world > 1:
        chosen, why = 1, ""
    elif given := threads_given():
        chosen, why = given, ", as OMP_NUM_THREADS says"
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        chosen, why = worthwhile_threads(min(cores, TRIED_THREADS), partial(_seconds_with, units))
    torch.set_num_threads(chosen)
    return f"{chosen} thread{'s' * (chosen > 1)}{why}"


def threads_given() -> int:
    """What OMP_NUM_THREADS asks for: its first number, for outermost loops; 0 where that is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first), MOST_THREADS) if first.isdecimal() else 0


def worthwhile_threads(most: int, seconds: Callable[[int], float]) -> tuple[int, str]:
    """Double the threads for as long as that is worth it.

    Args:
        seconds: that some work takes with so many threads.

    Returns:
        their number; and what was measured, for the log.
    """
    chosen, took = 1, {1: seconds(1)} if most > 1 else {}
    while 2 * chosen <= most:
        took[2 * chosen] = seconds(2 * chosen)
        if took[2 * chosen] > WORTH_IT * took[chosen]:
            break
        chosen *= 2
    speeds = ", ".join(f"{threads} are {took[1] / some:.1f}" for threads, some in took.items() if threads > 1)
    return chosen, f" (measured: {speeds} times as quick as one)" if speeds else ""


def _seconds_with(units: int, threads: int) -> float:
    """How long a GRU of so many units takes right now."""
    torch.set_num_threads(threads)
    gru, x = nn.GRU(96, units), torch.zeros(max(2, round(32 * min(1, (160 / units) ** 2))), 64, 96)
    with torch.no_grad():
        gru(x)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            gru(x)
            times.append(time.perf_counter() - begin)
    return sorted(times)[1]


# ---------------------------------------------------------------- schedules and averages


def choose_precision(asked: str, device: torch.device) -> torch.dtype:
    """What recurrent layers are computed in while training; weights, losses and evaluation are float32 all the same.

    Args:
        asked: float32, bfloat16, or auto for bfloat16 where the device multiplies in it (1.5 to 1.8 times as quick on a CPU).
    """
    if asked != "auto":
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    there = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if there else torch.float32


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to keep memory that tensors gave back: else the kernel maps and clears it anew for every large tensor of
    every step, which took 30 % of a step of 256-step sequences. Elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cosine_lr(step: int, steps: int, peak: float, final: float, warmup: int) -> float:
    """Learning rate of a step (from 0): linear warmup, then half a cosine from the peak to its share `final`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def exponential_lr(step: int, peak: float, final: float, decay: float, warmup: int) -> float:
    """Learning rate of the next step: a linear rise over `warmup` steps, times decay ** step, down to peak * final."""
    return peak * min(1.0, (step + 1) / max(1, warmup)) * max(final, decay**step)


def inverse_sigmoid(step: int, rate: float) -> float:
    """1 - k / (k + exp(step / k)), k = rate: the schedule of scheduled sampling (Bengio et al. 2015, section 2.4). 0..1"""
    return 1 - rate / (rate + math.exp(min(700.0, step / rate)))


def linear_rise(step: int, over: int) -> float:
    """0 at step 0, 1 from step `over` on."""
    return min(1.0, step / over) if over else 1.0


def out_of_patience(step: int, eval_interval: int, since: int | None, patience: int) -> bool:
    """Whether the last look at the held-out music came too long after the best one.

    Args:
        since: step of the best look, or the later one from which on looks count; None before any.
        patience: steps; 0 never runs out.
    """
    return bool(patience) and since is not None and step - step % eval_interval - since >= patience


class EMA:
    """Exponential moving average of a model's parameters; early steps count fully (decay (1 + n) / (10 + n) at first).

    Args:
        model: its parameters may change, but not be replaced.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._values = model.state_dict()  # the tensors themselves; gathering them takes as long as averaging them
        self.average = {name: value.detach().clone() for name, value in self._values.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are now. step: from 0"""
        decay = min(self.decay, (1 + step) / (10 + step))
        floats = [name for name, value in self._values.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floats], [self._values[name] for name in floats], 1 - decay)
        for name in self._values.keys() - floats:
            self.average[name].copy_(self._values[name])


def make_optimizer(model: nn.Module, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW in one pass over each weight, where PyTorch's default on a CPU takes a dozen: four to eight times as quick."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)


def clip_and_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, grad_clip: float) -> float:
    """Backward pass, gradient clipping and one optimizer step.

    Returns:
        the gradient norm before clipping; if it or the loss is not finite, the step is not taken.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip))
    if math.isfinite(norm) and math.isfinite(float(loss.detach())):
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        torch.autograd.graph.increment_version(model.parameters())  # a fused optimizer does not; see products.prepared
    return norm


def require_finite(loss: float, grad_norm: float, step: int, last_path: Path) -> None:
    """Stop a run that has gone wrong instead of hiding it.

    Raises:
        UserError: names the step and the last good checkpoint.
    """
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        saved = f"the last good state is in {last_path}" if last_path.exists() else "nothing was saved yet"
        raise UserError(f"step {step}: loss {loss}, gradient norm {grad_norm}: training diverged; {saved}; try a lower --lr")


# ---------------------------------------------------------------- log and stopping


class MetricLog:
    """One console line and one JSON line, with the same numbers, per report. Only the main process writes."""

    def __init__(self, path: Path, processes: Processes, resumed_at: int | None) -> None:
        self.path, self.main = path, processes.is_main
        if not self.main:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(path) if line["step"] <= resumed_at] if resumed_at is not None else []
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, step: int, values: Mapping[str, float], head: str = "train") -> None:
        if not self.main:
            return
        line = {"step": step, "split": head, **{name: _short(value) for name, value in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        try:
            print(f"step {step:6d}  {head:8s} " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()), flush=True)
        except BrokenPipeError:  # the reader (head, less) went away: the training goes on, its log is in the file
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut off is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if isinstance(line, dict) and {"step", "split"} <= set(line):
                lines.append(line)
    return lines


class StopRequest:
    """Turns the first Ctrl-C or termination signal into a flag that the loop reads; a second one stops at once.

    Of several processes each hears Ctrl-C twice, from the terminal and from torchrun: for a while, more of the same is no second wish.
    """

    GRACE = 10.0  # seconds

    def __init__(self) -> None:
        self.asked = False
        self._deaf_until = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread, as in some notebooks: then Ctrl-C is as it always is
                break
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            if time.monotonic() < self._deaf_until:
                return
            raise KeyboardInterrupt
        self.asked = True
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._deaf_until = time.monotonic() + self.GRACE
        print("\nstopping after this step; press Ctrl-C again to stop at once", file=sys.stderr)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def announce(run: RunConfig, device: torch.device, threads: str, processes: Processes, precision: torch.dtype = torch.float32) -> None:
    if processes.is_main:
        threads += ", bfloat16" * (precision == torch.bfloat16)
        group = f", {processes.world} processes" if processes.world > 1 else ""
        print(f"run: {run.run_dir}  device: {device}, {threads}{group}  seed: {run.seed}")
