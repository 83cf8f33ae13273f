"""SPDL: windows of one mapped file, as arrays or tall JPEGs, a batch a thread, no processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from spdl.pipeline import PipelineBuilder

from bench.loaders.windows import BATCH_SIZE, CUT_SHAPE, Windows, start_worker


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver batches of as many threads as the other peers have worker processes."""
    start_worker(0)
    path, ends = windows.folder / f"spdl-{codec}.bin", [0]
    with path.open("wb") as file:
        for stored in windows.encoded(codec):
            ends.append(ends[-1] + file.write(stored))
    data, is_wanted = np.memmap(path, np.uint8, mode="r"), SimpleQueue[bool]()
    starts = range(0, windows.num_samples, BATCH_SIZE)

    def iter_orders() -> Iterator[list[int]]:
        """Yield window numbers in random order, a batch at a time; an epoch waits until it is
        wanted, or the library would work ahead while others are measured.
        """
        while is_wanted.get():
            order = random.sample(range(windows.num_samples), windows.num_samples)
            yield from (order[start : start + BATCH_SIZE] for start in starts)

    def cut_batch(numbers: list[int]) -> torch.Tensor:
        """Read, decode and cut the windows of a batch into (B, 224, 224, 10)."""
        levels = np.empty((len(numbers), *CUT_SHAPE), np.uint8)
        for row, number in enumerate(numbers):
            windows.cut.cut_into(data[ends[number] : ends[number + 1]], levels[row])
        return torch.from_numpy(levels)

    builder = PipelineBuilder().add_source(iter_orders())
    builder = builder.pipe(cut_batch, concurrency=windows.num_workers).add_sink()
    pipeline = builder.build(num_threads=windows.num_workers)

    def start_epoch() -> Any:
        is_wanted.put(True)
        return islice(batches, len(starts))

    try:
        with pipeline.auto_stop():
            batches = iter(pipeline)
            yield start_epoch
    finally:
        is_wanted.put(False)  # lets the waiting thread end
