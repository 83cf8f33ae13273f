"""Ceilings of a machine: threads that only decode windows, or only copy the crops of windows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np

from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import multi_scale_crops
from pipelines.streams import UInt8
from pipelines.throughput.turns import Contender

COPYING = "copy-only"
EPOCH_SAMPLES = 512
KEPT_WINDOWS = 256
BATCH_ROOM = 64
"""Samples that a thread writes before it begins anew: more than its caches hold, as in training."""


@contextmanager
def decoding_alone(reader: PlaneReader, num_rows: int, *, num_threads: int) -> Iterator[Contender]:
    """Threads that decode windows and do nothing with them."""

    def work(part: int) -> int:
        numbers = range(part, EPOCH_SAMPLES, num_threads)
        for number in numbers:
            reader.window(number % num_rows, 0)
        return len(numbers)

    with _threads("ceiling: decoding alone", "decode-only", reader, num_threads, work) as contender:
        yield contender


@contextmanager
def copying_alone(reader: PlaneReader, num_rows: int, *, num_threads: int) -> Iterator[Contender]:
    """Threads that copy the crops of training from decoded windows into memory."""
    windows = [reader.window(row, 0) for row in range(min(num_rows, KEPT_WINDOWS))]
    boxes = multi_scale_crops(
        height=reader.height, width=reader.width, ratios=reader.kind.crop_ratios
    ).tolist()
    shape = (num_threads, BATCH_ROOM, windows[0].size)
    room: UInt8 = np.empty(shape, np.uint8)
    draws = random.Random(0)
    plan = [(draws.choice(windows), draws.choice(boxes)) for _ in range(EPOCH_SAMPLES)]

    def work(part: int) -> int:
        numbers = range(part, EPOCH_SAMPLES, num_threads)
        for turn, number in enumerate(numbers):
            window, (y, x, height, width) = plan[number]
            rows, columns = slice(y, y + height), slice(x, x + width)
            crop = window[:, rows, columns] if reader.kind.has_pairs else window[rows, columns]
            out = room[part, turn % BATCH_ROOM, : crop.size].reshape(crop.shape)
            np.copyto(out, crop)
        return len(numbers)

    with _threads("ceiling: copying alone", COPYING, reader, num_threads, work) as contender:
        yield contender


@contextmanager
def _threads(
    name: str, engine: str, reader: PlaneReader, num_threads: int, work: Callable[[int], int]
) -> Iterator[Contender]:
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="ckshard-bench") as pool:
        yield Contender(
            name=name,
            engine=engine,
            codec=reader.members.codec,
            dtype="uint8",
            run_epoch=lambda _epoch: sum(pool.map(work, range(num_threads))),
        )
