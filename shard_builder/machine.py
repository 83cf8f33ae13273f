"""What this process may use of the machine, and work spread over it."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from shard_builder.errors import InputError


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


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes."""
    # Not forked: a child would inherit OpenCV's threads and locks in whatever state they are in.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


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
