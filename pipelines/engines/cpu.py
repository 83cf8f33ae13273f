"""The ``cpu`` engine: a thread pool cuts slices of batches with cv2 into reused, preallocated
channels_last buffers.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.batch import Batch, BatchRequest
from pipelines.engines.crop_resize import SampleCutter
from pipelines.engines.damage import DamagePolicy, find_neighbour
from pipelines.engines.normalize import BIT_DTYPES, LevelTable, Normalizer
from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import INPUT_SIZE
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import Plan
from shard_builder.errors import DamagedMemberError


def default_num_threads() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One batch's buffer, as the threads write it, (B, 224, 224, C), and as it is handed over or
    copied, (B, C, 224, 224).
    """

    pixels: npt.NDArray[Any]
    images: torch.Tensor
    copied: torch.cuda.Event | None = None
    rows: Int64 = field(default_factory=lambda: np.empty(0, np.int64))


class CpuEngine:
    """Turns batch requests into batches, ``prefetch_depth`` batches ahead, without worker
    processes.

    Args:
        reader: Where planes come from.
        plan: Names the neighbour that stands in for a damaged sample.
        dtype: Of the images; floats are normalised.
        device: Where batches go; with CUDA the buffers are pinned and the copy overlaps.
        batch_size: Largest number of samples in a request.
        num_threads: Threads that cut; each takes a slice of a batch.
        prefetch_depth: Batches in progress ahead of the one handed over, >= 1.
        damage: What to do about damaged members.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: Plan,
        *,
        dtype: torch.dtype,
        device: torch.device,
        batch_size: int,
        num_threads: int,
        prefetch_depth: int,
        damage: DamagePolicy,
    ) -> None:
        self._reader, self._plan, self._damage = reader, plan, damage
        self._num_threads, self._depth, self._device = num_threads, prefetch_depth, device
        is_float, on_cpu = dtype != torch.uint8, device.type == "cpu"
        self._normalizer = (
            Normalizer(reader.stream, reader.num_channels, dtype=dtype, device=device)
            if is_float and not on_cpu
            else None
        )
        table = LevelTable(reader.stream, dtype) if is_float and on_cpu else None
        shape = (batch_size, INPUT_SIZE, INPUT_SIZE, reader.num_channels)
        self._slots = [
            _make_slot(shape, dtype if on_cpu else torch.uint8, pinned=not on_cpu)
            for _ in range(prefetch_depth + 1)
        ]
        self._free_cutters = deque(
            SampleCutter(reader.num_channels, table) for _ in range(num_threads)
        )
        # A process-wide setting: cv2's own threads would fight over the cores with this pool.
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="ckshard-cpu")

    def close(self) -> None:
        """Stop the threads and let go of the buffers."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._slots.clear()

    def batches(self, requests: Iterator[BatchRequest]) -> Iterator[Batch]:
        """Yield one batch for each request, in order."""
        pending: deque[tuple[BatchRequest, _Slot, list[Future[None]]]] = deque()
        is_left = threading.Event()
        number = 0

        def submit() -> None:
            nonlocal number
            request = next(requests, None)
            if request is not None:
                pending.append(
                    self._submit(request, self._slots[number % len(self._slots)], is_left)
                )
                number += 1

        try:
            for _ in range(self._depth):
                submit()
            while pending:
                request, slot, futures = pending.popleft()
                for future in futures:
                    future.result()
                submit()
                yield self._batch(request, slot)
        finally:
            is_left.set()
            for _, _, futures in pending:
                for future in futures:
                    future.cancel()
            for _, _, futures in pending:
                for future in futures:
                    if not future.cancelled():
                        future.exception()

    def _submit(
        self, request: BatchRequest, slot: _Slot, is_left: threading.Event
    ) -> tuple[BatchRequest, _Slot, list[Future[None]]]:
        if slot.copied is not None:
            slot.copied.synchronize()
        slot.rows = request.table.rows.copy()
        size = len(slot.rows)
        num_slices = min(self._num_threads, size)
        bounds = [size * part // num_slices for part in range(num_slices + 1)]
        futures = [
            self._pool.submit(self._cut_slice, request, slot, begin, end, is_left)
            for begin, end in pairwise(bounds)
        ]
        return request, slot, futures

    def _cut_slice(
        self, request: BatchRequest, slot: _Slot, begin: int, end: int, is_left: threading.Event
    ) -> None:
        """Cut the samples ``begin`` to ``end`` of a batch; nobody wants the rest once the loop has
        been left.
        """
        cutter, table = self._free_cutters.popleft(), request.table
        try:
            rows, starts = table.rows.tolist(), table.starts.tolist()
            boxes, mirrored = table.boxes.tolist(), table.mirrored.tolist()
            for index in range(begin, end):
                if is_left.is_set():
                    return
                try:
                    planes = self._reader.window(rows[index], starts[index])
                    box, flip = boxes[index], mirrored[index]
                except DamagedMemberError as error:
                    planes, neighbour = find_neighbour(
                        self._plan,
                        int(table.positions[index]),
                        error,
                        epoch=request.epoch,
                        damage=self._damage,
                        read=self._reader.window,
                    )
                    slot.rows[index] = neighbour.rows[0]
                    box, flip = neighbour.boxes[0].tolist(), bool(neighbour.mirrored[0])
                cutter.cut(planes, box, flip, slot.pixels[index])
        finally:
            self._free_cutters.append(cutter)

    def _batch(self, request: BatchRequest, slot: _Slot) -> Batch:
        dataset = self._reader.dataset
        size = len(slot.rows)
        labels = torch.from_numpy(dataset.labels[slot.rows])
        valid = torch.from_numpy(request.valid)
        images = slot.images if size == len(slot.images) else slot.images[:size]
        if self._device.type != "cpu":
            images = images.to(self._device, non_blocking=True)
            labels, valid = (
                labels.to(self._device, non_blocking=True),
                valid.to(self._device, non_blocking=True),
            )
            slot.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            slot.copied.record(torch.cuda.current_stream(self._device))
            if self._normalizer is not None:
                images = self._normalizer(images)
        return Batch(
            images=images,
            labels=labels,
            valid=valid,
            keys=dataset.keys_of(slot.rows),
            positions=request.table.positions,
            global_size=request.global_size,
        )


def _make_slot(shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool) -> _Slot:
    """Allocate a buffer; NumPy asks for huge pages for a large one, torch does not."""
    bits = BIT_DTYPES[dtype]
    if pinned:
        buffer = torch.empty(shape, dtype=bits, pin_memory=True)
    else:
        buffer = torch.from_numpy(np.empty(shape, str(bits).removeprefix("torch.")))
    return _Slot(pixels=buffer.numpy(), images=buffer.view(dtype).permute(0, 3, 1, 2))
