"""The ``dali`` engine: feeds the plan's windows, boxes and flips to NVIDIA DALI."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from pipelines.engines.dali_graph import (
    build_pipeline,
    jitter_inputs,
    takes_boxes,
    takes_planes,
    takes_turns,
)
from pipelines.engines.damage import DamagePolicy
from pipelines.engines.delivery import Delivery
from pipelines.engines.planes import PlaneReader
from pipelines.plan.requests import BatchRequest, Draw
from pipelines.reading import Reading
from pipelines.streams import UInt8
from shard_builder.errors import CkError, DamagedMemberError, DatasetError

_ENGINES: weakref.WeakSet[DaliEngine] = weakref.WeakSet()


class DaliEngine:
    """Turns batch requests into batches with DALI, some batches ahead.

    The graph decodes (nvJPEG for jpg, nvCOMP for lz4 on the GPU; raw and cached windows need no
    decoding, LZ4 blocks for the CPU come decoded), resizes
    the crop, and mirrors and normalises in one operator. It writes HWC; its permuted view is
    channels_last without a copy. x flow of mirrored samples is turned by one XOR: on the GPU in the
    graph, level by level; on the CPU afterwards, where NumPy takes a twentieth of the time of
    DALI's operator.

    Args:
        reader: Where encoded members and raw windows come from.
        batch_size: Largest number of samples in a request.
        reading: Threads, depth, dtype and device; with CUDA all but the read is done there.
        damage: Reads samples, and what stands in for damaged ones.
    """

    def __init__(
        self, reader: PlaneReader, batch_size: int, reading: Reading, damage: DamagePolicy
    ) -> None:
        self._reader, self._batch_size, self._reading = reader, batch_size, reading
        self._damage, self._device = damage, reading.torch_device
        self._jitters = damage.plan.jitters is not None
        self._takes_boxes = self._jitters or takes_boxes(reader, self._device)
        self._takes_planes = takes_planes(reader, self._device)
        self._turns = _turns(reader) if takes_turns(reader, self._device) else None
        plane_bytes = reader.num_channels * reader.height * reader.width
        num_cuts = 0 if self._takes_boxes else batch_size
        self._cuts: UInt8 = np.empty((num_cuts, plane_bytes), np.uint8)
        self._undecodable: dict[tuple[int, int], DamagedMemberError] = {}
        self._requests: Iterator[BatchRequest] = iter(())
        self._pending: deque[tuple[BatchRequest, list[Draw]]] = deque()
        self._failure: CkError | None = None
        self._is_abandoned = False
        self._pipeline: Any = self._build()
        _ENGINES.add(self)

    def close(self) -> None:
        """Let go of the pipeline: its threads end and its buffers are freed."""
        self._pipeline, self._requests = None, iter(())  # these have a thread too

    def batches(
        self, requests: Generator[BatchRequest, None, None]
    ) -> Generator[Delivery, None, None]:
        """Yield the images of each request, in order.

        A loop that is left leaves batches in progress; the next one throws them away, so that
        leaving costs nothing.
        """
        if self._is_abandoned:
            self._drain()
        num_ahead, num_held = self._reading.read_ahead, self._reading.prefetch_depth + 2
        self._requests = self._reader.read_ahead(requests, num_ahead, num_held=num_held)
        self._is_abandoned = True
        while (output := self._run()) is not None:
            request, draws = self._pending.popleft()
            rows = np.array([draw.row for draw in draws], np.int64)
            yield Delivery(request=request, rows=rows, images=self._images(output, draws))
        self._drain()

    def _run(self) -> Any:
        """Return DALI's next output, or None after the last.

        Batches that DALI cannot decode are fed again with what stands in for the damaged samples.

        Raises:
            CkError: What ended the feeding, once all that was fed before it is handed over.
        """
        while self._pipeline is not None:
            try:
                return self._pipeline.run(self._stream())[0]
            except StopIteration:
                if self._failure is not None:
                    raise self._failure from None
                return None
            except RuntimeError as error:
                self._find_undecodable(error)
                again = [request for request, _ in self._pending]
                self._pending.clear()
                self._requests = chain(again, self._requests)
                self._pipeline = self._build()
        return None

    def _drain(self) -> None:
        """Throw away what was prefetched, so that the next loop starts clean."""
        self._requests, self._is_abandoned, self._failure = iter(()), False, None
        self._pending.clear()
        if self._pipeline is not None:
            try:
                with suppress(StopIteration):
                    while True:
                        self._pipeline.run()
                self._pipeline.reset()
            except RuntimeError:
                # A damaged image among what is thrown away: DALI cannot go on after that.
                self._pipeline = self._build()

    def _stream(self) -> torch.cuda.Stream | None:
        """Return the stream that batches are used on: run() puts its batch before what comes next
        there.
        """
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def _build(self) -> Any:
        return build_pipeline(
            self._reader, self._feed, self._batch_size, self._reading, jitters=self._jitters
        )

    def _feed(self) -> tuple[Any, ...]:
        """Return the next request as DALI takes it: members, boxes, flips, what turns x flow."""
        request = None if self._failure else next(self._requests, None)
        if request is None:
            raise StopIteration
        try:
            reads = [
                self._damage.read(request, index, draw, self._sample)
                for index, draw in enumerate(request.draws())
            ]
        except CkError as error:
            # DALI feeds ahead: what it has of earlier batches is handed over first.
            self._failure = error
            raise StopIteration from None
        samples, draws = [sample for sample, _ in reads], [draw for _, draw in reads]
        self._pending.append((request, draws))
        if self._jitters:
            return (*_columns(samples), *jitter_inputs(draws, self._reader.kind))
        flips = np.array([draw.mirrored for draw in draws], np.int32)
        boxes = np.array([draw.box for draw in draws], np.int32)
        if not self._takes_boxes:
            cuts = zip(samples, draws, self._cuts, strict=False)
            samples = [[self._cut(sample[0], draw, out)] for sample, draw, out in cuts]
        return (
            *_columns(samples),
            *(boxes.T[..., None].copy() if self._takes_boxes else ()),
            flips,
            *((self._turns[flips],) if self._turns is not None else ()),
        )

    def _cut(self, window: UInt8, draw: Draw, out: UInt8) -> UInt8:
        """Copy a crop to the beginning of ``out``, which is free again when DALI has copied it."""
        y, x, height, width = draw.box
        rows, columns = slice(y, y + height), slice(x, x + width)
        crop = window[:, rows, columns] if self._reader.kind.has_pairs else window[rows, columns]
        cut = out[: crop.size].reshape(crop.shape)
        np.copyto(cut, crop)
        return cut

    def _sample(self, row: int, start: int) -> list[UInt8]:
        """Return the encoded members of a window, or its planes as one array."""
        known = self._undecodable.get((row, start))
        if known is not None:
            raise known
        if self._takes_planes:
            return [self._reader.window(row, start)]
        return self._reader.encoded_window(row, start)

    def _find_undecodable(self, error: RuntimeError) -> None:
        """Find the members that made DALI fail, by decoding the waiting batches one by one.

        Raises:
            DatasetError: If every member decodes: then DALI failed for another reason.
        """
        known = len(self._undecodable)
        for draw in chain.from_iterable(draws for _, draws in self._pending):
            try:
                self._reader.window(draw.row, draw.start)
            except DamagedMemberError as damaged:
                self._undecodable[draw.row, draw.start] = damaged
        if len(self._undecodable) == known:
            raise DatasetError(
                f"DALI failed: {str(error).strip().splitlines()[0]}\n"
                "  Try engine='cpu'; --debug shows DALI's own message."
            ) from error

    def _images(self, output: Any, draws: list[Draw]) -> torch.Tensor:
        # run() has put this batch before what its stream does next. -1 asks for no more:
        # from_dlpack by itself would make the stream wait for all that DALI has queued ahead. What
        # keeps the memory safe is not the stream: when the last tensor on it is gone, a thread of
        # DALI's waits for the whole GPU before it lets go.
        images = torch.utils.dlpack.from_dlpack(output.as_tensor().__dlpack__(stream=-1))
        if self._reader.kind.has_pairs and self._turns is None and not self._jitters:
            mirrored = [number for number, draw in enumerate(draws) if draw.mirrored]
            _turn_x_flow(images.numpy(), mirrored)
        images = images.permute(0, 3, 1, 2)
        dtype = self._reading.dtype
        return images if images.dtype == dtype else images.to(dtype)


def _columns(samples: list[list[UInt8]]) -> list[list[UInt8]]:
    return [list(members) for members in zip(*samples, strict=True)]


def _turns(reader: PlaneReader) -> UInt8:
    """Return what planes are XORed with, (2, C, 1, 1): with nothing, and, mirrored, x with 255."""
    turns = np.zeros((2, reader.num_channels, 1, 1), np.uint8)
    turns[1, 0::2] = 255
    return turns


def _turn_x_flow(images: np.ndarray, mirrored: list[int]) -> None:
    """Turn x flow of some samples in place, a pair of channels at a time.

    Levels become 255 - level, normalised values their negatives.

    Args:
        images: (N, H, W, C), C-contiguous, ``uint8``, ``float16`` or ``float32``; x is the first
            channel of each pair.
        mirrored: Which samples.
    """
    bits = 8 * images.itemsize
    x_bits = np.array([2**bits - 1 if bits == 8 else 2 ** (bits - 1), 0], f"u{images.itemsize}")
    pairs = images.view(f"u{2 * images.itemsize}")
    for sample in mirrored:
        np.bitwise_xor(pairs[sample], x_bits.view(pairs.dtype), out=pairs[sample])


def _keep_pipelines() -> None:
    """Never free pipelines that a fork copied: DALI would wait for their threads for ever."""
    for engine in _ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._pipeline))


os.register_at_fork(after_in_child=_keep_pipelines)
