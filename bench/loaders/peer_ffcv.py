"""FFCV: windows as arrays or as tall JPEGs in one .beton file, mapped, decoded and cut by
threads.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path

import numpy as np
from ffcv.fields import BytesField, NDArrayField
from ffcv.fields.bytes import BytesDecoder
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from tqdm import tqdm

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
from pipelines.streams import UInt8
from pipelines.throughput.turns import Contender


class CutWindows(Operation):  # type: ignore[misc]
    """Fills a batch of (B, 224, 224, 10) in threads; FFCV's own crop-resize takes images of three
    channels only.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self._pool, self._cuts = pool, [RandomCut() for _ in range(NUM_WORKERS)]

    def generate_code(self) -> Callable[[UInt8, UInt8], UInt8]:
        """Return what runs for each batch."""

        def cut(stored: UInt8, levels: UInt8) -> UInt8:
            def work(part: int) -> None:
                for row in range(part, len(stored), NUM_WORKERS):
                    window = stored[row] if stored.ndim == 4 else decode_tall(stored[row])
                    self._cuts[part].cut_into(window, levels[row])

            list(self._pool.map(work, range(NUM_WORKERS)))
            return levels

        return cut

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Ask for the batch's memory; this step is Python, not compiled."""
        shape, dtype = (224, 224, NUM_PLANES), np.dtype("uint8")
        return replace(previous_state, jit_mode=False, shape=shape, dtype=dtype), AllocationQuery(
            shape, dtype
        )


def write_beton(folders: WindowFolders, codec: str) -> Path:
    """Write the windows with one process and without progress bars; an old file is replaced."""
    path = folders.scratch / f"ffcv-{codec}.beton"
    shape = (NUM_PLANES, HEIGHT, WIDTH)
    field = BytesField() if codec == "jpg" else NDArrayField(np.dtype("uint8"), shape)
    windows = iter_windows(folders)
    samples = [
        (np.frombuffer(encode_tall(w, ".jpg"), np.uint8) if codec == "jpg" else w,) for w in windows
    ]
    tqdm.monitor_interval = 0  # else a thread stays behind
    with redirect_stderr(io.StringIO()):
        DatasetWriter(str(path), {"window": field}, num_workers=1).from_indexed_dataset(samples)
    return path


@contextmanager
def ffcv_loader(folders: WindowFolders, codec: str) -> Iterator[Contender]:
    """Deliver windows from the system's page cache, in random order."""
    start_worker(0)
    decoder = BytesDecoder() if codec == "jpg" else NDArrayDecoder()
    with ThreadPoolExecutor(NUM_WORKERS, thread_name_prefix="ffcv-cut") as pool:
        loader = Loader(
            str(write_beton(folders, codec)),
            batch_size=BATCH_SIZE,
            num_workers=NUM_WORKERS,
            order=OrderOption.RANDOM,
            os_cache=True,
            pipelines={"window": [decoder, CutWindows(pool), ToTensor()]},
        )
        yield Contender(
            name=f"FFCV, {codec}",
            engine="ffcv",
            codec=codec,
            dtype="uint8",
            run_epoch=lambda epoch: sum(len(batch.permute(0, 3, 1, 2)) for (batch,) in loader),
        )
