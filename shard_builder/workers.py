"""Work spread over the processes or threads of this machine."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from shard_builder.errors import InputError


def num_workers(workers: int) -> int:
    """Return how many workers are asked for; 0 asks for one per core.

    Raises:
        InputError: If the number is negative.
    """
    if workers < 0:
        raise InputError(f"workers={workers}, expected 0 (all cores) or more")
    return workers or os.cpu_count() or 1


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes."""
    # Not forked: a child would inherit OpenCV's threads and locks in whatever state they are in.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
