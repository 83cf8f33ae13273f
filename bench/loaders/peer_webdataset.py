"""webdataset and WebLoader over one member a window: a tall gray PNG or JPEG of its ten planes, or
an npy array.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import webdataset

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
from pipelines.streams import UInt8
from pipelines.throughput.turns import Contender
from shard_builder.format.codecs import encode_raw, parse_npy_header


def decode_npy(data: bytes) -> UInt8:
    """View the array in the bytes of an npy file."""
    offset, shape = parse_npy_header(data)
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


class DecodeAndCut:
    """One member's bytes to a sample; pickled to the workers."""

    def __init__(self, decode: Callable[[bytes], UInt8]) -> None:
        self._decode, self._cut = decode, RandomCut()

    def __call__(self, sample: tuple[bytes]) -> tuple[torch.Tensor]:
        """Decode and cut."""
        return (self._cut(self._decode(sample[0])),)


@contextmanager
def web_loader(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows through ``WebDataset(...).shuffle().map().batched()``, a shard for each
    worker.
    """
    suffix = "npy" if codec == "raw" else codec
    shards = [str(folders.scratch / f"{suffix}-{number}.tar") for number in range(NUM_WORKERS)]
    with ExitStack() as stack:
        tars = [
            stack.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
            for path in shards
        ]
        for number, window in enumerate(iter_windows(folders)):
            data = encode_raw(window) if codec == "raw" else encode_tall(window, f".{suffix}")
            entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
            entry.size = len(data)
            tars[number % NUM_WORKERS].addfile(entry, io.BytesIO(data))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        .shuffle(100)
        .to_tuple(suffix)
        .map(DecodeAndCut(decode_npy if codec == "raw" else decode_tall))
        .batched(BATCH_SIZE)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=start_worker,
    )
    yield Contender(
        name=f"webdataset, {suffix}",
        engine="webdataset",
        codec=codec,
        dtype="uint8",
        run_epoch=lambda epoch: sum(len(batch[0].permute(0, 3, 1, 2)) for batch in loader),
    )
