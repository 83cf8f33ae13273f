"""torch DataLoader over ``ckshard prepare``'s tree: ten PNG files of 640x490 a window, as the
original reads them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch.utils.data import DataLoader

from bench.loaders.windows import BATCH_SIZE, HEIGHT, STACK_LENGTH, WIDTH, Windows, worker_loader
from pipelines.streams import FLOW
from pipelines.throughput.png_tree import PngTree

MAX_SAMPLES = 256
"""Slow as it is, a longer epoch would hide no cost of starting one."""


def epochs(windows: Windows, _codec: str) -> AbstractContextManager[Any]:
    """Deliver windows that are decoded, resized and cut file by file."""
    samples = [
        [file for pair in zip(xs, ys, strict=True) for file in pair]
        for sequence in sorted((windows.folder / "tree" / "flow").glob("*/*"))
        if len(xs := sorted((sequence / "x_flow").iterdir())) == STACK_LENGTH
        and (ys := sorted((sequence / "y_flow").iterdir()))
    ]
    length = min(windows.num_samples, MAX_SAMPLES)
    tree = PngTree(samples, FLOW, size=(WIDTH, HEIGHT), length=length)
    return worker_loader(DataLoader, tree, windows, batch_size=BATCH_SIZE, shuffle=True)
