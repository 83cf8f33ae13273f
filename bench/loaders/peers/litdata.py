"""LitData: windows as tensors or as tall JPEGs in chunks, read by worker processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader
from litdata.streaming.resolver import Dir
from litdata.streaming.writer import BinaryWriter

from bench.loaders.windows import BATCH_SIZE, Windows, worker_loader


class ServedDataset(StreamingDataset):  # type: ignore[misc]
    """The same, of this module: then workers import it, and read plain http as well."""


downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


def epochs(windows: Windows, codec: str) -> AbstractContextManager[Any]:
    """Deliver windows of chunks that are not compressed further, in the library's own shuffle."""
    name = f"litdata-{codec}"
    if folder := windows.new_folder(name):
        # optimize() of the library would leave threads behind
        writer = BinaryWriter(str(folder), chunk_bytes=windows.shard_bytes(codec))
        for number, stored in enumerate(windows.encoded(codec)):
            writer[number] = stored if isinstance(stored, bytes) else torch.tensor(stored)
        writer.done()
        writer.merge()
    place = Dir(path=str(windows.folder / name))
    if windows.remote:
        place = Dir(path=str(windows.remote.cache), url=f"{windows.remote.bucket}/{name}")
    dataset = ServedDataset(place, shuffle=True, transform=windows.cut, batch_decode=0)
    return worker_loader(StreamingDataLoader, dataset, windows, batch_size=BATCH_SIZE)
