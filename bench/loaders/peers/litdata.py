"""LitData: windows as tensors or as tall JPEGs in local chunks, read by worker processes."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter

from bench.loaders.windows import BATCH_SIZE, Windows, worker_loader


def epochs(windows: Windows, codec: str) -> AbstractContextManager[Any]:
    """Deliver windows of chunks of 64 MB, not compressed further, in the library's own shuffle."""
    folder = windows.folder / f"litdata-{codec}"
    shutil.rmtree(folder, ignore_errors=True)
    # optimize() of the library would leave threads behind
    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, stored in enumerate(windows.encoded(codec)):
        writer[number] = stored if isinstance(stored, bytes) else torch.tensor(stored)
    writer.done()
    writer.merge()
    dataset = StreamingDataset(
        str(folder), shuffle=True, transform=windows.new_cut(), batch_decode=0
    )
    return worker_loader(StreamingDataLoader, dataset, windows, batch_size=BATCH_SIZE)
