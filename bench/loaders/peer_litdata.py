"""LitData: windows as tensors or as tall JPEGs in local chunks, read by worker processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter

from bench.loaders.windows import (
    BATCH_SIZE,
    NUM_WORKERS,
    RandomCut,
    WindowFolders,
    decode_tall,
    encode_tall,
    iter_windows,
    start_worker,
)
from pipelines.throughput.turns import Contender


class CutStored:
    """Decodes and cuts what the chunks hold; pickled to the workers."""

    def __init__(self) -> None:
        self._cut = RandomCut()

    def __call__(self, stored: torch.Tensor | bytes) -> torch.Tensor:
        """Give (224, 224, 10), as it lies in memory, so that batching copies and does not
        transpose.
        """
        window = stored.numpy() if isinstance(stored, torch.Tensor) else decode_tall(stored)
        return self._cut(window)


@contextmanager
def streaming_dataset(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows of chunks of 64 MB, not compressed further, in the library's own shuffle."""
    folder = str(folders.scratch / f"litdata-{codec}")
    shutil.rmtree(folder, ignore_errors=True)
    # optimize() of the library would leave threads behind.
    writer = BinaryWriter(folder, chunk_bytes="64MB")
    for number, window in enumerate(iter_windows(folders)):
        writer[number] = encode_tall(window, ".jpg") if codec == "jpg" else torch.from_numpy(window)
    writer.done()
    writer.merge()
    loader = StreamingDataLoader(
        StreamingDataset(folder, shuffle=True, transform=CutStored(), batch_decode=0),
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    try:
        yield Contender(
            name=f"LitData, {codec}",
            engine="litdata",
            codec=codec,
            dtype="uint8",
            run_epoch=lambda epoch: sum(len(batch.permute(0, 3, 1, 2)) for batch in loader),
        )
    finally:
        loader._iterator = None  # ends the workers
