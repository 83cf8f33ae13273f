"""What this process may use of the machine, and work spread over it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
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
) -> Generator[Result, None, None]:
    """Run a function on all items in local processes; yield the results as they come.

    An interrupt, an error or the death of a process ends all of them at once, in the middle of what
    they do: so the function gives a file its name when it is whole. They end with this process too,
    however it ends.

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
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    is_done = False
    try:
        yield from run_on(pool, function, items)
        is_done = True
    except BrokenExecutor:
        raise BuildError(
            f"a worker process died (out of memory, or killed)\n  {kept} Run the same again, with"
            " smaller workers=N if memory was short."
        ) from None
    finally:
        if not is_done:
            _kill_workers(pool)
        pool.shutdown(wait=True, cancel_futures=True)


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    if hasattr(pool, "kill_workers"):  # since Python 3.14
        pool.kill_workers()
        return
    for process in list((pool._processes or {}).values()):
        process.kill()


def _end_with_parent() -> None:
    """Start the watch that ends a worker with its parent, whose pipes alone would not tell it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block; processes started meanwhile never see it.

    It must not leave a pool half started; and a terminal sends it to all processes, each of which
    would print a traceback of its own.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    received: list[int] = []
    # The mask is what children inherit; threads of libraries have none and may catch it for us.
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)


def run_on(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """Run a function on all items; yield the results as they come, cancel the rest on an error."""
    with _interrupts_deferred():
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
