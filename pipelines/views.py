"""The views that a test averages over: windows in time, five crops, each also mirrored."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import torch

from pipelines.dataset import Dataset
from pipelines.engines.cutter import make_cutter
from pipelines.engines.normalize import Normalizer
from pipelines.engines.planes import open_planes
from pipelines.engines.transfer import to_device
from pipelines.plan.crops import INPUT_SIZE
from pipelines.plan.permutation import Int64
from pipelines.plan.sampling import check_rows
from pipelines.reading import Reading
from pipelines.remote_members import Fetched
from pipelines.streams import StreamKind, UInt8, kind_of
from shard_builder.checks import check_choice, check_integer
from shard_builder.errors import InputError
from shard_builder.format.streams import StreamName
from shard_builder.machine import check_process

Views = Literal["ten", "original"]
NUM_WINDOWS = 5
ORIGINAL_FRAMES_BEFORE_PEAK = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBatch:
    """All views of some sequences.

    Args:
        images: (N, V, C, 224, 224); normalised, or ``uint8`` levels. V is windows x 5 crops x
            (plain, mirrored), in this order.
        labels: Class indices, ``int64`` (N,).
        keys: Keys of the sequences.
    """

    images: torch.Tensor
    labels: torch.Tensor
    keys: tuple[str, ...]


def five_crops(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """List corners and centre as (y, x, height, width): 224x224, or what the plane allows."""
    crop_height, crop_width = min(INPUT_SIZE, height), min(INPUT_SIZE, width)
    bottom, right = height - crop_height, width - crop_width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [(y, x, crop_height, crop_width) for y, x in corners]


def window_starts(num_pairs: int, stack_length: int, *, views: Views) -> list[int]:
    """List the five windows' first pairs.

    ``ten`` spreads them evenly, so that the last window holds the last pairs. ``original`` steps by
    ``(n - L + 1) // 5`` from 0 as the original's VideoTemporalPrediction.py does, which leaves out
    the last pairs of most sequences.
    """
    if views == "original":
        step = max(0, num_pairs - stack_length + 1) // NUM_WINDOWS
        return [step * number for number in range(NUM_WINDOWS)]
    return [
        int(start)
        for start in np.rint(np.linspace(0, max(0, num_pairs - stack_length), NUM_WINDOWS))
    ]


class ViewLoader:
    """Iterates over the view batches of some sequences, some ahead; also a context manager."""

    def __init__(
        self,
        dataset: Dataset,
        kind: StreamKind,
        *,
        rows: Int64,
        views: Views,
        batch_size: int,
        stack_length: int,
        reading: Reading,
    ) -> None:
        self._dataset, self._rows, self._views, self._batch_size = dataset, rows, views, batch_size
        self._reader = open_planes(dataset, kind, stack_length=stack_length)
        self._num_usable = dataset.num_usable(kind.name)
        self._device, dtype = reading.torch_device, reading.dtype
        self._normalizer = (
            None
            if dtype == torch.uint8
            else Normalizer(kind, self._reader.num_channels, dtype=dtype, device=self._device)
        )
        self._process = os.getpid()
        self._cutter = make_cutter(kind, self._reader.shape, torch.uint8)
        self._boxes = five_crops(self._reader.height, self._reader.width)
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(reading.threads, thread_name_prefix="ckshard-views")

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __enter__(self) -> ViewLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads."""
        if os.getpid() == self._process:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[ViewBatch]:
        check_process(self._process)
        self._reader.members.check_sizes()
        return self._batches()

    def _batches(self) -> Iterator[ViewBatch]:
        groups = [
            self._rows[begin : begin + self._batch_size]
            for begin in range(0, len(self._rows), self._batch_size)
        ]
        ahead = deque(self._submit(group) for group in groups[:2])
        for number, group in enumerate(groups):
            levels, futures = ahead.popleft()
            for future in futures:
                future.result()
            if number + 2 < len(groups):
                ahead.append(self._submit(groups[number + 2]))
            yield self._batch(group, levels)

    def _submit(self, rows: Int64) -> tuple[torch.Tensor, list[Future[None]]]:
        """Let threads cut some sequences into levels (N, V, 224, 224, C).

        With CUDA they are in pinned memory: torch uses it again once the device has read it, so one
        batch is filled while another is copied.
        """
        starts = [self._starts(row) for row in rows.tolist()]
        num_views = len(starts[0]) * 2 * len(self._boxes)
        shape = (len(rows), num_views, INPUT_SIZE, INPUT_SIZE, self._reader.num_channels)
        levels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        asked = [self._ask(row, own) for row, own in zip(rows.tolist(), starts, strict=True)]
        calls = zip(rows.tolist(), starts, asked, levels.numpy(), strict=True)
        return levels, [self._pool.submit(self._cut_sequence, *call) for call in calls]

    def _ask(self, row: int, starts: list[int]) -> list[Fetched]:
        """Ask a store for all that the windows of a row read."""
        first, last = self._reader.items(row, starts[0])[0], self._reader.items(row, starts[-1])[-1]
        return self._reader.ask(row, range(first, last + 1))

    def _cut_sequence(self, row: int, starts: list[int], asked: list[Fetched], out: UInt8) -> None:
        views = iter(out)
        try:
            for start in starts:
                window = self._reader.window(row, start)
                for box in self._boxes:
                    for mirrored in (False, True):
                        self._cutter.cut(window, box, mirrored, next(views))
        finally:
            self._reader.drop(asked)

    def _starts(self, row: int) -> list[int]:
        usable = int(self._num_usable[row])
        if self._reader.kind.has_pairs:
            return window_starts(usable, self._reader.stack_length, views=self._views)
        if self._views == "ten":
            return [usable - 1]
        # The original reads the frame five before the peak, six times; once gives the same mean.
        return [max(usable - 1 - ORIGINAL_FRAMES_BEFORE_PEAK, 0)]

    def _batch(self, rows: Int64, levels: torch.Tensor) -> ViewBatch:
        num, num_views = levels.shape[:2]
        flat = levels.flatten(0, 1).to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        images = flat if self._normalizer is None else self._normalizer(flat)
        return ViewBatch(
            images=images.view(num, num_views, *images.shape[1:]),
            labels=to_device(torch.from_numpy(self._dataset.labels[rows]), self._device),
            keys=self._dataset.keys_of(rows),
        )


def make_view_loader(
    dataset: Dataset,
    stream: StreamName,
    *,
    rows: Int64 | None = None,
    views: Views = "ten",
    batch_size: int = 4,
    stack_length: int = 5,
    reading: Reading | None = None,
) -> ViewLoader:
    """Make a loader of test views.

    Args:
        dataset: An open dataset.
        stream: ``rgb`` (10 views: the apex) or ``flow`` (50: five windows).
        rows: Index rows, ``int64`` (n,), or a mask of all rows; None takes all.
        views: ``ten``, or ``original`` for the original's own sampling in time.
        batch_size: Sequences a batch.
        stack_length: Flow pairs in a window.
        reading: Device, dtype and threads; the engine is always the CPU's.

    Raises:
        InputError: If ``views`` is unknown, there are no rows, or the frames the original reads are
            not stored.
    """
    check_choice("views", views, get_args(Views))
    check_integer("batch_size", batch_size, low=1, high=1 << 20)
    check_integer("stack_length", stack_length, low=1, high=1024)
    kind, rows = kind_of(stream), check_rows(rows, len(dataset))
    if not len(rows):
        raise InputError("there is no sequence to test")
    entry = dataset.stream(stream)
    if views == "original" and not kind.has_pairs and entry.frames != "all":
        raise InputError(
            f"{dataset.address}: keeps only frames at the apex, but the original's test reads the"
            " fifth before it\n  Use views='ten'."
        )
    return ViewLoader(
        dataset,
        kind,
        rows=rows,
        views=views,
        batch_size=batch_size,
        stack_length=stack_length,
        reading=reading or Reading(),
    )
