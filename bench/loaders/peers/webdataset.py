"""webdataset and WebLoader: a shard a worker, one member a window: a tall gray PNG or JPEG of its
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

from bench.loaders.windows import BATCH_SIZE, Windows, worker_loader
from shard_builder.format.codecs import encode_raw


def epochs(windows: Windows, codec: str) -> AbstractContextManager[Any]:
    """Deliver windows through ``WebDataset(...).shuffle().map().batched()``."""
    suffix = "npy" if codec == "raw" else codec
    paths = [windows.folder / f"{suffix}-{number}.tar" for number in range(windows.num_workers)]
    with ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(path, "w")) for path in paths]
        for number, stored in enumerate(windows.encoded(codec)):
            data = stored if isinstance(stored, bytes) else encode_raw(stored)
            entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
            entry.size = len(data)
            tars[number % len(tars)].addfile(entry, io.BytesIO(data))
    dataset = (
        WebDataset(list(map(str, paths)), shardshuffle=False, empty_check=False)
        .shuffle(100)
        .to_tuple(suffix)
        .map_tuple(windows.new_cut())
        .map(operator.itemgetter(0))
        .batched(BATCH_SIZE, collation_fn=torch.stack)
    )
    return worker_loader(WebLoader, dataset, windows, batch_size=None)
