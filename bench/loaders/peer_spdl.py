"""SPDL: windows of one memory-mapped array or as tall JPEGs of one file, a batch a thread, without
worker processes.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch
from spdl.pipeline import Pipeline, PipelineBuilder

from bench.loaders.windows import (
    BATCH_SIZE,
    EPOCH_SAMPLES,
    HEIGHT,
    NUM_PLANES,
    NUM_WORKERS,
    WIDTH,
    RandomCut,
    WindowFolders,
    decode_tall,
    encode_tall,
    iter_windows,
    start_worker,
)
from pipelines.streams import UInt8
from pipelines.throughput.turns import Contender


class CutBatches:
    """Reads, decodes and cuts the windows of a batch into one tensor; any thread may call it."""

    def __init__(self, path: Path, ends: list[int]) -> None:
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self._ends, self._own = ends, threading.local()

    def __call__(self, indices: list[int]) -> torch.Tensor:
        """Give (B, 10, 224, 224), channels last in memory."""
        if not hasattr(self._own, "cut"):
            self._own.cut = RandomCut()
        levels = np.empty((len(indices), 224, 224, NUM_PLANES), np.uint8)
        for row, index in enumerate(indices):
            self._own.cut.cut_into(self._window(index), levels[row])
        return torch.from_numpy(levels).permute(0, 3, 1, 2)

    def _window(self, index: int) -> UInt8:
        stored = np.asarray(self._bytes[self._ends[index] : self._ends[index + 1]])
        is_raw = len(stored) == NUM_PLANES * HEIGHT * WIDTH
        return stored.reshape(NUM_PLANES, HEIGHT, WIDTH) if is_raw else decode_tall(stored)


def write_windows(folders: WindowFolders, codec: str) -> tuple[Path, list[int]]:
    """Write the windows one after the other; return the file and 0, the end of each, in bytes."""
    path = folders.scratch / f"spdl-{codec}.bin"
    with path.open("wb") as file:
        stored = (
            encode_tall(w, ".jpg") if codec == "jpg" else w.tobytes() for w in iter_windows(folders)
        )
        return path, list(itertools.accumulate(map(file.write, stored), initial=0))


class Epochs:
    """Window numbers in random order, a batch at a time; waits for each epoch to be wanted.

    The library's way to keep a pipeline for many epochs would else work ahead while others are
    measured.
    """

    def __init__(self) -> None:
        self.is_wanted: SimpleQueue[bool] = SimpleQueue()

    def __iter__(self) -> Iterator[list[int]]:
        order = random.sample(range(EPOCH_SAMPLES), EPOCH_SAMPLES) if self.is_wanted.get() else []
        for start in range(0, len(order), BATCH_SIZE):
            yield order[start : start + BATCH_SIZE]


@contextmanager
def thread_pipeline(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver batches of as many threads as the other peers have worker processes."""
    start_worker(0)
    epochs, cut_batch = Epochs(), CutBatches(*write_windows(folders, codec))
    builder = (
        PipelineBuilder()
        .add_source(epochs, continuous=True)
        .pipe(cut_batch, concurrency=NUM_WORKERS)
        .add_sink()
    )
    built: Pipeline[torch.Tensor] = builder.build(num_threads=NUM_WORKERS)

    def run_epoch(epoch: int) -> int:
        epochs.is_wanted.put(True)
        return sum(len(batch) for batch in built)

    try:
        with built.auto_stop():
            yield Contender(
                name=f"SPDL, {codec}",
                engine="spdl",
                codec=codec,
                dtype="uint8",
                run_epoch=run_epoch,
            )
    finally:
        epochs.is_wanted.put(False)  # lets the waiting thread end
