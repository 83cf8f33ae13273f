"""MosaicML Streaming: windows as arrays or tall JPEGs in MDS shards, read by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

from bench.loaders.windows import BATCH_SIZE, SHAPE, RandomCut, Windows, worker_loader


class StreamedWindows(StreamingDataset):  # type: ignore[misc]
    """Samples (224, 224, 10)."""

    cut: RandomCut

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.cut(super().__getitem__(index)["window"])


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver windows of shards that are not compressed further, in the default shuffle."""
    name = f"streaming-{codec}"
    column = f"ndarray:uint8:{','.join(map(str, SHAPE))}" if codec == "raw" else "bytes"
    if folder := windows.new_folder(name):
        limit = {"size_limit": windows.shard_bytes(codec)}
        with MDSWriter(out=str(folder), columns={"window": column}, **limit) as writer:
            for stored in windows.encoded(codec):
                writer.write({"window": stored})
    places = {"local": str(windows.folder / name)}
    if windows.remote:
        remote = f"{windows.remote.bucket}/{name}"
        places = {"remote": remote, "local": str(windows.remote.cache)}
    dataset = StreamedWindows(**places, shuffle=True, batch_size=BATCH_SIZE)
    dataset.cut = windows.cut
    with worker_loader(DataLoader, dataset, windows, batch_size=BATCH_SIZE) as start_epoch:

        def start() -> Any:
            loader, shards = start_epoch(), Path(places["local"]).glob("*.mds")
            if loader._iterator is not None and not list(shards):  # else the workers know them
                for number in range(dataset.num_shards):
                    dataset.evict_shard(number)
            return loader

        yield start
