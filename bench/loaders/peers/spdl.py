"""SPDL: windows of one mapped file, as arrays or tall JPEGs, a batch a thread, no processes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from spdl.pipeline import PipelineBuilder

from bench.loaders.windows import BATCH_SIZE, CUT_SHAPE, Windows, start_worker


class CutBatches:
    """Reads, decodes and cuts the windows of a batch into one tensor; any thread may call it."""

    def __init__(self, path: Path, ends: list[int], windows: Windows) -> None:
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self._ends, self._new_cut, self._own = ends, windows.new_cut, threading.local()

    def __call__(self, indices: list[int]) -> torch.Tensor:
        """Give (B, 224, 224, 10)."""
        if not hasattr(self._own, "cut"):
            self._own.cut = self._new_cut()
        levels = np.empty((len(indices), *CUT_SHAPE), np.uint8)
        for row, index in enumerate(indices):
            stored = self._bytes[self._ends[index] : self._ends[index + 1]]
            self._own.cut.cut_into(stored, levels[row])
        return torch.from_numpy(levels)


class Order:
    """Window numbers in random order, a batch at a time; waits for each epoch to be wanted.

    The library's way to keep a pipeline for many epochs would else work ahead while others are
    measured.
    """

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        self.is_wanted: SimpleQueue[bool] = SimpleQueue()

    def __iter__(self) -> Iterator[list[int]]:
        if self.is_wanted.get():
            order = random.sample(range(self._num_samples), self._num_samples)
            for start in range(0, len(order), BATCH_SIZE):
                yield order[start : start + BATCH_SIZE]


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver batches of as many threads as the other peers have worker processes."""
    start_worker(0)
    path, ends = windows.folder / f"spdl-{codec}.bin", [0]
    with path.open("wb") as file:
        for stored in windows.encoded(codec):
            ends.append(ends[-1] + file.write(stored))
    order, threads = Order(windows.num_samples), windows.num_workers
    builder = PipelineBuilder().add_source(order, continuous=True)
    builder = builder.pipe(CutBatches(path, ends, windows), concurrency=threads).add_sink()
    pipeline = builder.build(num_threads=threads)

    def start_epoch() -> Any:
        order.is_wanted.put(True)
        return pipeline

    try:
        with pipeline.auto_stop():
            yield start_epoch
    finally:
        order.is_wanted.put(False)  # lets the waiting thread end
