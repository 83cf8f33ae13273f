"""MosaicML Streaming: windows as arrays or as tall JPEGs in local MDS shards, read by worker
processes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

from bench.loaders.windows import (
    BATCH_SIZE,
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
from pipelines.throughput.turns import Contender


class StreamedWindows(StreamingDataset):  # type: ignore[misc]
    """Samples (224, 224, 10), as they lie in memory, so that batching copies and does not
    transpose.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(local=folder, shuffle=True, batch_size=BATCH_SIZE)
        self._cut = RandomCut()

    def __getitem__(self, index: int) -> torch.Tensor:
        stored = super().__getitem__(index)["window"]
        window = decode_tall(stored) if isinstance(stored, bytes) else stored
        return self._cut(window)


@contextmanager
def streaming_dataset(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows of shards of 64 MiB, not compressed further, in the library's default
    shuffle.
    """
    folder = str(folders.scratch / f"streaming-{codec}")
    column = "bytes" if codec == "jpg" else f"ndarray:uint8:{NUM_PLANES},{HEIGHT},{WIDTH}"
    shutil.rmtree(folder, ignore_errors=True)
    with MDSWriter(out=folder, columns={"window": column}) as writer:
        for window in iter_windows(folders):
            writer.write({"window": encode_tall(window, ".jpg") if codec == "jpg" else window})
    loader: DataLoader[torch.Tensor] = DataLoader(
        StreamedWindows(folder),
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    try:
        yield Contender(
            name=f"MosaicML Streaming, {codec}",
            engine="streaming",
            codec=codec,
            dtype="uint8",
            run_epoch=lambda epoch: sum(len(batch.permute(0, 3, 1, 2)) for batch in loader),
        )
    finally:
        loader._iterator = None  # ends the workers
