"""torch DataLoader: over the original's tree of PNG files, and over one memory-mapped array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader, Dataset

from bench.loaders.windows import (
    BATCH_SIZE,
    EPOCH_SAMPLES,
    HEIGHT,
    NUM_PLANES,
    NUM_WORKERS,
    STACK_LENGTH,
    WIDTH,
    RandomCut,
    WindowFolders,
    iter_windows,
    start_worker,
)
from pipelines.streams import FLOW, UInt8
from pipelines.throughput.png_tree import PngTree
from pipelines.throughput.turns import Contender

PNG_TREE_SAMPLES = 256
"""Samples of the PNG tree's epoch: it is slow, and has no cost of starting an epoch that a longer
one would hide."""


class MappedWindows(Dataset[torch.Tensor]):
    """Windows of one memory-mapped array (n, 10, 256, 340); each worker maps it for itself."""

    def __init__(self, path: Path) -> None:
        self._path, self._cut = path, RandomCut()
        self._windows: UInt8 | None = None

    def __len__(self) -> int:
        return EPOCH_SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._windows is None:
            self._windows = np.load(self._path, mmap_mode="r")
        return self._cut(np.asarray(self._windows[index]))


@contextmanager
def mapped_array(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows of one .npy file through worker processes."""
    path = folders.scratch / "windows.npy"
    shape = (EPOCH_SAMPLES, NUM_PLANES, HEIGHT, WIDTH)
    windows = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for number, window in enumerate(iter_windows(folders)):
        windows[number] = window
    windows.flush()
    yield from _contender(
        "DataLoader, mapped array", "torch", codec, MappedWindows(path), (0, 3, 1, 2)
    )


@contextmanager
def png_tree(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows of ``ckshard prepare``'s tree, ten files of 640x490 a sample, as the original
    reads them.
    """
    samples = [
        [file for pair in zip(xs, ys, strict=True) for file in pair]
        for sequence in sorted((folders.png_tree / "flow").glob("*/*"))
        if len(xs := sorted((sequence / "x_flow").iterdir())) == STACK_LENGTH
        and (ys := sorted((sequence / "y_flow").iterdir()))
    ]
    tree = PngTree(samples, FLOW, size=(WIDTH, HEIGHT), length=PNG_TREE_SAMPLES)
    yield from _contender(
        "DataLoader, PNG tree (the original)", "png-tree", codec, tree, (0, 1, 2, 3)
    )


def _contender(
    name: str, engine: str, codec: str, dataset: Dataset[torch.Tensor], axes: tuple[int, ...]
) -> Iterator[Contender]:
    loader: DataLoader[torch.Tensor] = DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        shuffle=True,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    yield Contender(
        name=name,
        engine=engine,
        codec=codec,
        dtype="uint8",
        run_epoch=lambda epoch: sum(len(batch.permute(axes)) for batch in loader),
    )
