"""What this process may use of the machine, and work spread over it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from shard_builder.checks import is_integer
from shard_builder.errors import BuildError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
UNLIMITED = 1e6
"""Cores that a control group without a quota grants."""


def num_usable_cores() -> int:
    """Return the number of cores that this process may use, not the machine's.

    These are the cores of its affinity, or fewer where a control group (a container's ``--cpus``, a
    cluster's job) grants less time than they have; a begun core counts.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min(num_cores, math.ceil(_cores_granted())))


def _cores_granted(process: Path = Path("/proc/self")) -> float:
    """Return the cores' worth of time that the control groups of a process grant at most.

    Args:
        process: Its folder in ``/proc``.

    Returns:
        The least quota of its group and of those above, of both versions, or ``UNLIMITED``.
    """
    paths, granted = {}, [UNLIMITED]
    with suppress(OSError):
        for line in (process / "cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                paths["cgroup" if controllers else "cgroup2"] = path.strip("/")
        for line in (process / "mounts").read_text(errors="replace").splitlines():
            _, place, kind, options, *_ = line.split()
            if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
                continue
            # Seen from inside a container its own path may be missing: its group is the root then.
            for folder in (group := Path(place, paths[kind]), *group.parents):
                granted.append(_quota_of(folder))
                if folder == Path(place):
                    break
    return min(granted)


def _quota_of(group: Path) -> float:
    """Return the quota of one control group in cores."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        if int(quota) > 0:
            return int(quota) / int(period)
    return UNLIMITED


def num_available_bytes() -> int:
    """Return how much memory is free or easily freed; where Linux does not say, half of all."""
    path = Path("/proc/meminfo")
    for line in path.read_text(encoding="ascii").splitlines() if path.is_file() else ():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def num_workers(workers: int) -> int:
    """Return how many workers are asked for; 0 asks for one per usable core.

    Raises:
        InputError: If it is no integer, or negative.
    """
    if not is_integer(workers) or workers < 0:
        raise InputError(f"workers={workers!r}, expected 0 (all cores) or more")
    return workers or num_usable_cores()


def run_in_processes(
    function: Callable[[Item], Result], items: list[Item], *, workers: int, kept: str
) -> Generator[Result, None, None]:
    """Run a function on all items in local processes; yield the results as they come.

    An interrupt, an error or the death of a process ends all of them at once, in the middle of what
    they do: so the function gives a file its name when it is whole. They end with this process too,
    however it ends. The standard library's pools wait for what runs, and share queues whose locks a
    killed process may hold; here each process has a pipe of its own.

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
    left = iter(items)
    processes: list[BaseProcess] = []
    pipes: dict[Connection, None] = {}
    try:
        with _interrupts_deferred():
            for _ in range(workers):
                own, others = context.Pipe()
                processes.append(context.Process(target=_serve, args=(others, function)))
                processes[-1].start()
                others.close()  # so that the end of the process ends the pipe
                pipes[own] = None
        for pipe, item in zip(list(pipes), left, strict=False):
            pipe.send(item)
        while pipes:
            for pipe in pipes.keys() & set(wait(list(pipes))):
                result, error, place = pipe.recv()
                if error is not None:
                    raise _WorkError(error, place)
                for item in islice(left, 1):
                    pipe.send(item)
                    break
                else:
                    del pipes[pipe]
                yield result
    except _WorkError as work_error:
        error, place = work_error.args
        raise error from RuntimeError(place)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise BuildError(
            f"a worker process died (out of memory, or killed)\n  {kept} Run the same again, with"
            " smaller workers=N if memory was short."
        ) from None
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


class _WorkError(Exception):
    """An error in a worker's work, as against one of its pipe: the error, its traceback."""


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Run the function on what comes through the pipe, until it ends; a worker's main function."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:  # in the middle of its work it would not notice that nobody waits
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    with suppress(EOFError):
        while True:
            item = pipe.recv()
            result, raised = None, None
            try:
                result = function(item)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the parent
                raised, place = error, traceback.format_exc()
            if raised is None:
                pipe.send((result, None, ""))
                continue
            try:
                pipe.send((None, raised, place))
            except Exception:  # noqa: BLE001 - an error that cannot be pickled still has a name
                pipe.send((None, RuntimeError(f"{type(raised).__name__}: {raised}"), place))


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
    futures = [executor.submit(function, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


class Stoppable(Protocol):
    """What makes threads wait for answers that may never come."""

    def stop(self) -> None:
        """Let everyone who waits get an error."""


_stoppable: WeakSet[Stoppable] = WeakSet()


def stop_at_interrupt(thing: Stoppable) -> None:
    """Let :func:`stop_waiting` stop a thing, as long as it lives."""
    _stoppable.add(thing)


def stop_waiting() -> None:
    """End every wait for what lies elsewhere, for good: this process is asked to end.

    A signal's handler may call it: what it interrupts may hold the locks that are needed here, so
    a thread does it.
    """
    for thing in list(_stoppable):
        threading.Thread(target=thing.stop, daemon=True).start()


@contextmanager
def own_thread(
    name: str, *, at_end: Callable[[], None] | None = None
) -> Iterator[ThreadPoolExecutor]:
    """Give a thread to work ahead in, and end it; in a forked copy there is no such thread.

    Args:
        name: The thread's.
        at_end: Called when the thread has ended; without it nothing waits for that.
    """
    process, pool = os.getpid(), ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield pool
    finally:
        if os.getpid() == process:
            pool.shutdown(wait=at_end is not None, cancel_futures=True)
            if at_end is not None:
                at_end()


def has_failed(work: Future[Any]) -> bool:
    """Tell whether a thread's work has ended without a result."""
    return work.done() and (work.cancelled() or work.exception() is not None)


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
