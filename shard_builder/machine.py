"""What this process may use of the machine, and work spread over it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from typing import TypeVar

from shard_builder.errors import BuildError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_usable_cores() -> int:
    """Return the number of cores that this process may use: those of its affinity, not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_workers(workers: int) -> int:
    """Return how many workers are asked for; 0 asks for one per usable core.

    Raises:
        InputError: If the number is negative.
    """
    if workers < 0:
        raise InputError(f"workers={workers}, expected 0 (all cores) or more")
    return workers or num_usable_cores()


def run_in_processes(
    function: Callable[[Item], Result], items: list[Item], *, workers: int, kept: str
) -> Iterator[Result]:
    """Run a function on all items in local processes; yield the results as they come.

    Args:
        function: What to run; it and the items must be picklable.
        items: What to run it on.
        workers: Processes; one item or one worker is run here instead.
        kept: A sentence about what stays if a process dies.

    Raises:
        BuildError: If a process dies.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    # Not forked: a child would inherit OpenCV's threads and locks in whatever state they are in.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from run_on(pool, function, items)
    except BrokenExecutor:
        raise BuildError(
            f"a worker process died (out of memory, or killed)\n  {kept} Run the same again, with"
            " smaller workers=N if memory was short."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_on(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Run a function on all items; yield the results as they come, cancel the rest on an error."""
    futures = [executor.submit(function, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def check_process(maker: int) -> None:
    """Make sure that this process is the one that started a loader's threads.

    Raises:
        RuntimeError: If it is another: a forked copy would wait for its threads for ever.
    """
    if os.getpid() != maker:
        raise RuntimeError(
            f"the loader was made in process {maker}, this is process {os.getpid()}: its threads"
            " are not here\n  Make a loader in each process; a dataset may be shared or pickled."
        )
