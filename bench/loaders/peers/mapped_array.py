"""torch DataLoader over one memory-mapped array of all windows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader

from bench.loaders.windows import BATCH_SIZE, SHAPE, RandomCut, Windows, worker_loader
from pipelines.streams import UInt8


@dataclass
class MappedWindows:
    """Windows of an array (n, 10, 256, 340); each worker maps it for itself."""

    path: Path
    length: int
    cut: RandomCut

    @cached_property
    def _windows(self) -> UInt8:
        return np.load(self.path, mmap_mode="r")  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.cut(self._windows[index])


def epochs(windows: Windows, _codec: str) -> AbstractContextManager[Any]:
    """Deliver windows of one .npy file."""
    path = windows.folder / "windows.npy"
    stored = open_memmap(path, mode="w+", dtype=np.uint8, shape=(windows.num_samples, *SHAPE))
    for number, window in enumerate(windows):
        stored[number] = window
    dataset = MappedWindows(path, windows.num_samples, windows.cut)
    return worker_loader(DataLoader, dataset, windows, batch_size=BATCH_SIZE, shuffle=True)
