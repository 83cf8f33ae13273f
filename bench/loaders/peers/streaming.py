"""MosaicML Streaming: windows as arrays or tall JPEGs in local MDS shards, read by workers."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

from bench.loaders.windows import BATCH_SIZE, SHAPE, RandomCut, Windows, worker_loader


class StreamedWindows(StreamingDataset):  # type: ignore[misc]
    """Samples (224, 224, 10)."""

    def __init__(self, folder: str, cut: RandomCut) -> None:
        super().__init__(local=folder, shuffle=True, batch_size=BATCH_SIZE)
        self._cut = cut

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._cut(super().__getitem__(index)["window"])


def epochs(windows: Windows, codec: str) -> AbstractContextManager[Any]:
    """Deliver windows of shards of 64 MiB, not compressed further, in the default shuffle."""
    folder = str(windows.folder / f"streaming-{codec}")
    shutil.rmtree(folder, ignore_errors=True)
    column = f"ndarray:uint8:{','.join(map(str, SHAPE))}" if codec == "raw" else "bytes"
    with MDSWriter(out=folder, columns={"window": column}) as writer:
        for stored in windows.encoded(codec):
            writer.write({"window": stored})
    dataset = StreamedWindows(folder, windows.new_cut())
    return worker_loader(DataLoader, dataset, windows, batch_size=BATCH_SIZE)
