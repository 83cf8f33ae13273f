"""The ``dali`` engine: feeds the plan's windows, boxes and flips to NVIDIA DALI."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from pipelines.batch import Batch, BatchRequest
from pipelines.dataset import UInt8
from pipelines.engines.dali_graph import build_pipeline, takes_boxes, takes_turns
from pipelines.engines.damage import DamagePolicy, find_neighbour
from pipelines.engines.planes import PlaneReader
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import Plan
from shard_builder.errors import DamagedMemberError, DatasetError


class DaliEngine:
    """Turns batch requests into batches with DALI, ``prefetch_depth`` batches ahead.

    The graph decodes (nvJPEG for jpg on the GPU; raw and cached windows need no decoding), resizes
    the crop, and mirrors and normalises in one operator. It writes HWC; its permuted view is
    channels_last without a copy. x flow of mirrored samples is turned by one XOR: on the GPU in the
    graph, level by level; on the CPU afterwards, where NumPy takes a twentieth of the time of
    DALI's operator.

    Args:
        reader: Where encoded members and raw windows come from.
        plan: Names the neighbour that stands in for a damaged sample.
        dtype: Of the images; floats are normalised.
        device: Where batches go; with CUDA everything after the read happens there.
        batch_size: Largest number of samples in a request.
        num_threads: DALI's threads.
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
        self._reader, self._dtype, self._device = reader, dtype, device
        self._plan, self._damage = plan, damage
        self._settings = {
            "batch_size": batch_size,
            "num_threads": num_threads,
            "prefetch_depth": prefetch_depth,
        }
        self._takes_boxes = takes_boxes(reader, device)
        self._turns = _turns(reader) if takes_turns(reader, device) else None
        plane_bytes = reader.num_channels * reader.height * reader.width
        self._cuts: UInt8 = np.empty(
            (0 if self._takes_boxes else batch_size, plane_bytes), np.uint8
        )
        self._undecodable: dict[tuple[int, int], DamagedMemberError] = {}
        self._requests: Iterator[BatchRequest] = iter(())
        self._pending: deque[tuple[BatchRequest, Int64, Int64]] = deque()
        self._is_left = False
        self._pipeline: Any = self._build()

    def close(self) -> None:
        """Let go of the pipeline: its threads end and its buffers are freed."""
        self._pipeline = None

    def batches(self, requests: Iterator[BatchRequest]) -> Iterator[Batch]:
        """Yield one batch for each request, in order.

        A loop that is left early leaves batches under way; the next loop throws them away, so that
        leaving costs nothing.
        """
        if self._is_left:
            self._drain()
        self._requests, self._is_left = requests, True
        while (images := self._run()) is not None:
            yield self._batch(*self._pending.popleft(), images)
        self._drain()

    def _run(self) -> Any:
        """Return DALI's next output, or None after the last; batches that DALI cannot decode are
        fixed and fed again.
        """
        while self._pipeline is not None:
            try:
                return self._pipeline.run(self._stream())[0]
            except StopIteration:
                return None
            except DamagedMemberError:
                raise
            except RuntimeError as error:
                self._find_undecodable(error)
                again = [request for request, _, _ in self._pending]
                self._pending.clear()
                self._requests = chain(again, self._requests)
                self._pipeline = self._build()
        return None

    def _drain(self) -> None:
        """Throw away what was prefetched for a loop that was left, so that the next one starts
        clean.
        """
        self._requests, self._is_left = iter(()), False
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
        """Return the stream that batches are used on, so that DALI reuses their memory only after
        that work.
        """
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def _build(self) -> Any:
        return build_pipeline(
            self._reader, self._feed, dtype=self._dtype, device=self._device, **self._settings
        )

    def _feed(self) -> tuple[list[Any], ...]:
        """Return the next request as DALI takes it: the samples' members, boxes, flips, and what
        turns x flow.
        """
        request = next(self._requests, None)
        if request is None:
            raise StopIteration
        table = request.table
        rows, boxes, flips = table.rows.copy(), table.boxes.copy(), table.mirrored.copy()
        samples = []
        for index, (row, start) in enumerate(
            zip(rows.tolist(), table.starts.tolist(), strict=True)
        ):
            try:
                samples.append(self._sample(row, start))
            except DamagedMemberError as error:
                sample, neighbour = find_neighbour(
                    self._plan,
                    int(table.positions[index]),
                    error,
                    epoch=request.epoch,
                    damage=self._damage,
                    read=self._sample,
                )
                samples.append(sample)
                rows[index], boxes[index], flips[index] = (
                    neighbour.rows[0],
                    neighbour.boxes[0],
                    neighbour.mirrored[0],
                )
        self._pending.append((request, rows, np.flatnonzero(flips)))
        sides = flips.astype(np.int32)
        if not self._takes_boxes:
            samples = [
                [self._cut(sample[0], box, out)]
                for sample, box, out in zip(samples, boxes.tolist(), self._cuts, strict=False)
            ]
        return (
            *(list(members) for members in zip(*samples, strict=True)),
            *(boxes.T[..., None].copy() if self._takes_boxes else ()),
            sides,
            *((self._turns[sides],) if self._turns is not None else ()),
        )

    def _cut(self, window: UInt8, box: list[int], out: UInt8) -> UInt8:
        """Copy a crop to the beginning of ``out``, which is free again as soon as DALI has copied
        the batch.
        """
        y, x, height, width = box
        rows, columns = slice(y, y + height), slice(x, x + width)
        crop = window[rows, columns] if self._reader.stream == "rgb" else window[:, rows, columns]
        cut = out[: crop.size].reshape(crop.shape)
        np.copyto(cut, crop)
        return cut

    def _sample(self, row: int, start: int) -> list[UInt8]:
        """Return the encoded members of a window, or its planes as one array."""
        reader = self._reader
        known = self._undecodable.get((row, start))
        if known is not None:
            raise known
        if reader.gives_planes:
            return [reader.stacked_window(row, start)]
        return [reader.members.read(row, number) for number in reader.member_numbers(row, start)]

    def _find_undecodable(self, error: RuntimeError) -> None:
        """Find the members that made DALI fail, by decoding the waiting batches one by one.

        Raises:
            DatasetError: If every member decodes: then DALI failed for another reason.
        """
        found = False
        for request, _, _ in self._pending:
            for row, start in zip(
                request.table.rows.tolist(), request.table.starts.tolist(), strict=True
            ):
                try:
                    self._reader.window(row, start)
                except DamagedMemberError as damaged:
                    if (row, start) not in self._undecodable:
                        found = True
                        self._undecodable[row, start] = damaged
        if not found:
            raise DatasetError(
                f"DALI failed: {str(error).strip().splitlines()[0]}\n  Try --loader cpu; --debug"
                " shows DALI's own message."
            ) from error

    def _batch(self, request: BatchRequest, rows: Int64, mirrored: Int64, output: Any) -> Batch:
        images = torch.utils.dlpack.from_dlpack(output.as_tensor())
        dataset, on_gpu = self._reader.dataset, self._device.type == "cuda"
        if self._reader.stream == "flow" and self._turns is None:
            _turn_x_flow(images.numpy(), mirrored)
        images = images.permute(0, 3, 1, 2)
        labels, valid = torch.from_numpy(dataset.labels[rows]), torch.from_numpy(request.valid)
        return Batch(
            images=images if images.dtype == self._dtype else images.to(self._dtype),
            labels=labels.to(self._device, non_blocking=True) if on_gpu else labels,
            valid=valid.to(self._device, non_blocking=True) if on_gpu else valid,
            keys=dataset.keys_of(rows),
            positions=request.table.positions,
            global_size=request.global_size,
        )


def _turns(reader: PlaneReader) -> UInt8:
    """Return what the planes of a window of flow are XORed with, (2, C, 1, 1): nothing, and for
    mirrored ones 255 on x.
    """
    turns = np.zeros((2, reader.num_channels, 1, 1), np.uint8)
    turns[1, 0::2] = 255
    return turns


def _turn_x_flow(images: np.ndarray, mirrored: Int64) -> None:
    """Turn x flow of some samples in place, a pair of channels at a time: levels to 255 - level,
    normalised values to their negatives.

    Args:
        images: (N, H, W, C), C-contiguous, ``uint8``, ``float16`` or ``float32``; x is the first
            channel of each pair.
        mirrored: Which samples, ``int64`` (k,).
    """
    bits = 8 * images.itemsize
    x_bits = np.array([2**bits - 1 if bits == 8 else 2 ** (bits - 1), 0], f"u{images.itemsize}")
    pairs = images.view(f"u{2 * images.itemsize}")
    for sample in mirrored:
        np.bitwise_xor(pairs[sample], x_bits.view(pairs.dtype), out=pairs[sample])
