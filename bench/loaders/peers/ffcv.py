"""FFCV: windows as arrays in one .beton file, mapped and cut by threads.

It is compiled on installation, with pkg-config, libopencv-dev and libturbojpeg0-dev.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields import NDArrayField
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter
from tqdm import tqdm

from bench.loaders.windows import BATCH_SIZE, CUT_SHAPE, SHAPE, Windows, start_worker
from pipelines.streams import UInt8

UINT8 = np.dtype("uint8")


class CutWindows(Operation):  # type: ignore[misc]
    """Fills a batch of (B, 224, 224, 10) in threads; FFCV's own crop-resize takes images of three
    channels only.
    """

    def __init__(self, pool: ThreadPoolExecutor, windows: Windows) -> None:
        super().__init__()
        self._pool, self._windows = pool, windows

    def generate_code(self) -> Callable[[UInt8, UInt8], UInt8]:
        """Return what runs for each batch."""
        cut, threads = self._windows.cut, self._windows.num_workers

        def cut_batch(stored: UInt8, levels: UInt8) -> UInt8:
            def work(part: int) -> None:
                for row in range(part, len(stored), threads):
                    cut.cut_into(stored[row], levels[row])

            list(self._pool.map(work, range(threads)))
            return levels

        return cut_batch

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Ask for the batch's memory; this step is Python, not compiled."""
        state = replace(previous_state, jit_mode=False, shape=CUT_SHAPE, dtype=UINT8)
        return state, AllocationQuery(CUT_SHAPE, UINT8)


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver windows from the system's page cache, in random order; arrays only."""
    start_worker(0)
    threads, path = windows.num_workers, windows.folder / f"{codec}.beton"
    samples = [(window,) for window in windows]
    tqdm.monitor_interval = 0  # else a thread stays behind
    with redirect_stderr(io.StringIO()):
        writer = DatasetWriter(str(path), {"window": NDArrayField(UINT8, SHAPE)}, num_workers=1)
        writer.from_indexed_dataset(samples)
    with ThreadPoolExecutor(threads, thread_name_prefix="ffcv-cut") as pool:
        loader = Loader(
            str(path),
            batch_size=BATCH_SIZE,
            num_workers=threads,
            order=OrderOption.RANDOM,
            os_cache=True,
            pipelines={"window": [NDArrayDecoder(), CutWindows(pool, windows), ToTensor()]},
        )
        yield lambda: (batch for (batch,) in loader)
