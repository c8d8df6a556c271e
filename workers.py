"""Work on many files at once: in processes here, or on the machines of a Dask scheduler; and a limit on the time one file may take."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from config import UserError
from midi_utils import MidiError

AHEAD = 256  # chunks that are handed out before the first of them is asked for its result
Item = TypeVar("Item")
Result = TypeVar("Result")


class _TimeUpError(BaseException):
    """No Exception: what reads a file may pass over errors of its parts, but not over this one."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Refuse a file that takes too long, where the system can tell (not on Windows, not outside the main thread).

    Raises:
        MidiError: it took longer.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeUpError

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except ValueError:  # a thread of a Dask worker
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeUpError:
        raise MidiError("unreadable", f"reading it took more than {seconds} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_chunks(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], chunk: int, workers: int, scheduler: str
) -> Iterator[Result]:
    """Every item's result in the order given, whoever works it out.

    Args:
        work: results of some items, in order; it and the items travel to other processes.
        chunk: items handed over at a time.
        workers: processes; 0 is as many as cores.
        scheduler: address of a Dask scheduler, or "".

    Raises:
        UserError: no Dask here, or no scheduler there.
    """
    chunks = [items[at : at + chunk] for at in range(0, len(items), chunk)]
    with executor(workers, scheduler, len(chunks)) as pool:
        if pool is None:
            for some in chunks:
                yield from work(some)
            return
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for some in chunks:
                waiting.append(pool.submit(work, some))
                if len(waiting) > AHEAD:  # no more than so many results pile up behind a slow chunk
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def executor(workers: int, scheduler: str, chunks: int) -> Iterator[Executor | None]:
    """A Dask scheduler's, a process pool's, or none where one process is enough.

    Raises:
        UserError: no Dask here, or no scheduler there.
    """
    if scheduler:
        try:
            from dask.distributed import Client  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError("--scheduler: Dask is not installed; pip install distributed, here and on the workers") from None
        try:
            client = Client(scheduler, timeout=20)
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {scheduler}: no answer ({type(error).__name__}); start one with `dask scheduler`") from None
        with client:
            yield client.get_executor()
        return
    workers = min(workers or os.cpu_count() or 1, chunks)
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers) as pool:
        yield pool
