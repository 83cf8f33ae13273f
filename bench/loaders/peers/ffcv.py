"""FFCV: windows as arrays in one .beton file, mapped and cut by threads.

It is compiled on installation, with pkg-config, libopencv-dev and libturbojpeg0-dev.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
from ffcv.fields import NDArrayField
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter
from tqdm import tqdm

from bench.loaders.windows import BATCH_SIZE, CUT_SHAPE, SHAPE, Windows, start_worker
from pipelines.streams import UInt8


@contextmanager
def epochs(windows: Windows, codec: str) -> Iterator[Callable[[], Any]]:
    """Deliver windows from the system's page cache, in random order; arrays only.

    FFCV reads ahead in a thread of its own. Its crop-resize takes images of three channels only, so
    its batches (B, 10, 256, 340) are cut by threads to (B, 224, 224, 10).
    """
    start_worker(0)
    threads, path = windows.num_workers, windows.folder / f"{codec}.beton"
    samples = [(window,) for window in windows]
    tqdm.monitor_interval = 0  # else a thread stays behind
    with redirect_stderr(io.StringIO()):
        fields = {"window": NDArrayField(np.dtype("uint8"), SHAPE)}
        writer = DatasetWriter(str(path), fields, num_workers=1)
        writer.from_indexed_dataset(samples)
    with ThreadPoolExecutor(threads, thread_name_prefix="ffcv-cut") as pool:
        loader = Loader(
            str(path),
            batch_size=BATCH_SIZE,
            num_workers=threads,
            order=OrderOption.RANDOM,
            os_cache=True,
            pipelines={"window": [NDArrayDecoder()]},
        )

        def cut_batch(stored: UInt8) -> UInt8:
            levels = np.empty((len(stored), *CUT_SHAPE), np.uint8)
            list(pool.map(windows.cut.cut_into, stored, levels))
            return levels

        yield lambda: (cut_batch(batch) for (batch,) in loader)
