"""The ``cpu`` engine: a thread pool cuts slices of batches into reused, preallocated buffers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.engines.crop_resize import JitterCutter
from pipelines.engines.cutter import make_cutter
from pipelines.engines.damage import DamagePolicy
from pipelines.engines.delivery import Delivery
from pipelines.engines.normalize import BIT_DTYPES, Normalizer
from pipelines.engines.planes import PlaneReader
from pipelines.engines.transfer import Upload
from pipelines.plan.crops import INPUT_SIZE
from pipelines.plan.permutation import Int64
from pipelines.plan.requests import BatchRequest, Draw
from pipelines.reading import Reading
from shard_builder.machine import own_thread


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One batch's buffer.

    Args:
        pixels: As the threads write it, (B, 224, 224, C), in bits that NumPy knows.
        images: The same as it is handed over or copied, (B, C, 224, 224).
        upload: Its last copy to the GPU: the buffer may be written again when that is done.
        rows: Rows of the samples in it, ``int64`` (N,).
    """

    pixels: npt.NDArray[Any]
    images: torch.Tensor
    upload: Upload | None = None
    rows: Int64 = field(default_factory=lambda: np.empty(0, np.int64))


class _InProgress(NamedTuple):
    """A request that threads are cutting into a slot."""

    request: BatchRequest
    slot: _Slot
    futures: list[Future[None]]


class CpuEngine:
    """Turns batch requests into batches, some batches ahead, without worker processes.

    Args:
        reader: Where planes come from.
        batch_size: Largest number of samples in a request.
        reading: Threads, depth, dtype and device; with CUDA the buffers are pinned and copied on a
            stream of their own.
        damage: Reads samples, and what stands in for damaged ones.
    """

    def __init__(
        self, reader: PlaneReader, batch_size: int, reading: Reading, damage: DamagePolicy
    ) -> None:
        self._reader, self._damage = reader, damage
        self._num_threads, self._depth = reading.threads, reading.prefetch_depth
        self._read_ahead = reading.read_ahead
        self._device, dtype = reading.torch_device, reading.dtype
        is_float, on_cpu = dtype != torch.uint8, self._device.type == "cpu"
        self._normalizer = (
            Normalizer(reader.kind, reader.num_channels, dtype=dtype, device=self._device)
            if is_float and not on_cpu
            else None
        )
        cut_dtype = dtype if on_cpu else torch.uint8
        self._cutter = make_cutter(reader.kind, reader.shape, cut_dtype)
        self._jitter_cutter = JitterCutter(reader.kind, cut_dtype)
        shape = (batch_size, INPUT_SIZE, INPUT_SIZE, reader.num_channels)
        self._upload_stream = None if on_cpu else torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # One buffer more than batches in progress: the one that has been handed over. With CUDA
        # another one, so that no thread waits for a copy that has just begun.
        self._slots = [
            _make_slot(shape, cut_dtype, pinned=not on_cpu)
            for _ in range(self._depth + (1 if on_cpu else 2))
        ]
        # A process-wide setting: cv2's own threads would fight over the cores with this pool.
        cv2.setNumThreads(1)
        self._pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="ckshard-cpu")

    def close(self) -> None:
        """Stop the threads and let go of the buffers."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._slots.clear()

    def batches(
        self, requests: Generator[BatchRequest, None, None]
    ) -> Generator[Delivery, None, None]:
        """Yield the images of each request, in order."""
        requests = self._reader.read_ahead(requests, self._read_ahead, num_held=self._depth + 1)
        pending: deque[_InProgress] = deque()
        is_abandoned = threading.Event()
        number = 0

        def submit() -> None:
            nonlocal number
            request = next(requests, None)
            if request is not None:
                slot = self._slots[number % len(self._slots)]
                pending.append(self._submit(request, slot, is_abandoned))
                number += 1

        def end() -> None:
            is_abandoned.set()
            _wait_for([future for _, _, futures in pending for future in futures])
            requests.close()

        # To submit a batch takes a tenth of a millisecond: a thread does it while the one before is
        # used.
        with own_thread("ckshard-submit", at_end=end) as submitter:
            for _ in range(self._depth):
                submit()
            while pending:
                request, slot, futures = pending.popleft()
                for future in futures:
                    future.result()
                submitting = submitter.submit(submit)
                images = self._hand_over(slot, pending[0] if pending else None)
                yield Delivery(request=request, rows=slot.rows, images=images)
                submitting.result()

    def _submit(
        self, request: BatchRequest, slot: _Slot, is_abandoned: threading.Event
    ) -> _InProgress:
        if slot.upload is not None:
            slot.upload.wait()
            slot.upload = None
        slot.rows, draws = request.table.rows.copy(), request.draws()
        num_slices = min(self._num_threads, len(draws))
        bounds = [len(draws) * part // num_slices for part in range(num_slices + 1)]
        futures = [
            self._pool.submit(self._cut_slice, request, draws, slot, begin, end, is_abandoned)
            for begin, end in pairwise(bounds)
        ]
        return _InProgress(request, slot, futures)

    def _cut_slice(
        self,
        request: BatchRequest,
        draws: list[Draw],
        slot: _Slot,
        begin: int,
        end: int,
        is_abandoned: threading.Event,
    ) -> None:
        """Cut some samples of a batch; nobody wants the rest once the loop has been left."""
        cut, room = self._cutter.cut, np.empty(self._reader.shape, np.uint8)

        def read(row: int, start: int) -> npt.NDArray[np.uint8]:
            return self._reader.window(row, start, room)

        for index in range(begin, end):
            if is_abandoned.is_set():
                return
            window, draw = self._damage.read(request, index, draws[index], read)
            slot.rows[index] = draw.row
            if draw.jitter is None:
                cut(window, draw.box, draw.mirrored, slot.pixels[index])
            else:
                self._jitter_cutter.cut(window, draw, slot.pixels[index])

    def _hand_over(self, slot: _Slot, following: _InProgress | None) -> torch.Tensor:
        if self._device.type == "cpu":
            size = len(slot.rows)
            return slot.images if size == len(slot.pixels) else slot.images[:size]
        images = self._upload(slot).take()
        if following is not None and all(future.done() for future in following.futures):
            self._upload(following.slot)  # while this batch is computed
        return images if self._normalizer is None else self._normalizer(images)

    def _upload(self, slot: _Slot) -> Upload:
        """Return the copy of a slot, begun now unless it has been."""
        if slot.upload is None:
            assert self._upload_stream is not None
            filled = slot.images[: len(slot.rows)]
            slot.upload = Upload(filled, self._device, self._upload_stream)
        return slot.upload


def _make_slot(shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool) -> _Slot:
    """Allocate a buffer; NumPy asks for huge pages for a large one, torch does not."""
    bits = BIT_DTYPES[dtype]
    if pinned:
        buffer = torch.empty(shape, dtype=bits, pin_memory=True)
    else:
        buffer = torch.from_numpy(np.empty(shape, str(bits).removeprefix("torch.")))
    return _Slot(pixels=buffer.numpy(), images=buffer.view(dtype).permute(0, 3, 1, 2))


def _wait_for(futures: list[Future[None]]) -> None:
    """Wait until no thread writes any more: only then are the buffers free."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()
