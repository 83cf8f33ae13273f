"""webdataset and WebLoader: one member a window: a tall gray PNG or JPEG of its
ten planes, or an npy array.
"""

from __future__ import annotations

import io
import operator
import tarfile
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from webdataset import WebDataset, WebLoader

from bench.loaders.windows import BATCH_SIZE, NUM_SHARDS, Windows, worker_loader
from shard_builder.format.codecs import encode_raw


def epochs(windows: Windows, codec: str) -> AbstractContextManager[Any]:
    """Deliver windows through ``WebDataset(...).shuffle().map().batched()``."""
    suffix, name = "npy" if codec == "raw" else codec, f"webdataset-{codec}"
    names = [f"{number:06d}.tar" for number in range(NUM_SHARDS)]
    if folder := windows.new_folder(name):
        with ExitStack() as stack:
            tars = [stack.enter_context(tarfile.open(folder / tar, "w")) for tar in names]
            for number, stored in enumerate(windows.encoded(codec)):
                data = stored if isinstance(stored, bytes) else encode_raw(stored)
                entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
                entry.size = len(data)
                tars[number % len(tars)].addfile(entry, io.BytesIO(data))
    options: dict[str, Any] = {"shardshuffle": False, "empty_check": False}
    urls = [str(windows.folder / name / tar) for tar in names]
    if windows.remote:
        urls = [f"{windows.remote.url}/{name}/{tar}" for tar in names]
        options["cache_dir"] = windows.remote.cache and str(windows.remote.cache)
    dataset = (
        WebDataset(urls, **options)
        .shuffle(100)
        .to_tuple(suffix)
        .map_tuple(windows.cut)
        .map(operator.itemgetter(0))
        .batched(BATCH_SIZE, collation_fn=torch.stack)
    )
    return worker_loader(WebLoader, dataset, windows, batch_size=None)
