"""The ``dali`` engine: one NVIDIA DALI graph for the GPU and the CPU, fed with the plan's windows, boxes and flips."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from pipelines.batch import Batch, BatchRequest
from pipelines.crops import INPUT_SIZE
from pipelines.damage import DamagePolicy, find_neighbour
from pipelines.dataset import UInt8
from pipelines.normalize import DEVIATION, MEAN
from pipelines.permutation import Int64
from pipelines.plan import Plan
from pipelines.planes import PlaneReader
from shard_builder.errors import DamagedMemberError, DatasetError

DALI_DTYPES = {
    torch.uint8: types.UINT8,
    torch.float16: types.FLOAT16,
    torch.float32: types.FLOAT,
    torch.bfloat16: types.FLOAT,  # DALI has no bfloat16: it is rounded once, in torch
}


class DaliEngine:
    """Turns batch requests into batches with DALI, ``prefetch_depth`` batches ahead.

    The graph decodes (nvJPEG for jpg on the GPU; raw and cached windows need no decoding), resizes the crop, and mirrors and normalises
    in one operator; x flow is turned before that by XOR with 255, which is 255 - x. It writes HWC; its permuted view is channels_last
    without a copy.

    Args:
        reader: Where encoded members and raw windows come from.
        plan: Names the neighbour that stands in for a damaged sample.
        dtype: Of the images; floats are normalised.
        device: Where batches go; with CUDA everything after the read happens there.
        batch_size: Largest number of samples in a request.
        num_threads: DALI's threads.
        prefetch_depth: Batches in work ahead of the one handed over, >= 1.
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
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            # DALI's operators wait for their slowest thread, and on a CPU the feeding thread takes a core at times: one more evens that out
            "num_threads": num_threads + (device.type == "cpu"),
            "prefetch_queue_depth": prefetch_depth + 1,  # one of them is the batch handed over
            "device_id": device.index if device.type == "cuda" else None,
        }
        self._turns = _turns(reader)
        # On the CPU NumPy cuts raw windows in a fifth of the time of DALI's slice; a GPU cuts faster than one Python thread could.
        self._cuts_before_feeding = reader.gives_planes and device.type == "cpu"
        self._undecodable: dict[tuple[int, int], DamagedMemberError] = {}
        self._requests: Iterator[BatchRequest] = iter(())
        self._pending: deque[tuple[BatchRequest, Int64]] = deque()
        self._is_left = False
        self._pipeline: Pipeline | None = self._build()

    def close(self) -> None:
        """Let go of the pipeline: its threads end and its buffers are freed."""
        self._pipeline = None

    def batches(self, requests: Iterator[BatchRequest]) -> Iterator[Batch]:
        """Yield one batch for each request, in order.

        A loop that is left early leaves batches under way; the next loop throws them away, so that leaving costs nothing.
        """
        if self._is_left:
            self._drain()
        self._requests, self._is_left = requests, True
        while (images := self._run()) is not None:
            request, rows = self._pending.popleft()
            yield self._batch(request, rows, images)
        self._drain()

    def _run(self) -> Any:
        """Return DALI's next output, or None after the last; batches that DALI can not decode are mended and fed again."""
        while self._pipeline is not None:
            try:
                return self._pipeline.run(self._stream())[0]
            except StopIteration:
                return None
            except DamagedMemberError:
                raise
            except RuntimeError as error:
                self._find_undecodable(error)
                again = [request for request, _ in self._pending]
                self._pending.clear()
                self._requests = chain(again, self._requests)
                self._pipeline = self._build()
        return None

    def _drain(self) -> None:
        """Throw away what was prefetched for a loop that was left, so that the next one starts clean."""
        self._requests, self._is_left = iter(()), False
        self._pending.clear()
        if self._pipeline is not None:
            try:
                with suppress(StopIteration):
                    while True:
                        self._pipeline.run()
                self._pipeline.reset()
            except RuntimeError:  # a damaged image among what is thrown away: DALI can not go on after that
                self._pipeline = self._build()

    def _stream(self) -> torch.cuda.Stream | None:
        """Return the stream that batches are used on, so that DALI reuses their memory only after that work."""
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def _build(self) -> Pipeline:
        reader = self._reader
        num_members = 1 if reader.stream == "rgb" or reader.gives_planes else reader.stack_length
        num_boxes, num_turns = 0 if self._cuts_before_feeding else 4, int(reader.stream == "flow")
        pipeline = Pipeline(**self._settings)
        with pipeline:
            inputs = iter(
                fn.external_source(source=self._feed, num_outputs=num_members + num_boxes + 1 + num_turns, batch=True)
            )
            members, box, mirror = list(islice(inputs, num_members)), list(islice(inputs, num_boxes)), next(inputs)
            crops = self._plane_crops(members[0], box) if reader.gives_planes else self._decoded_crops(members, *box)
            images = fn.resize(crops, size=[INPUT_SIZE, INPUT_SIZE], interp_type=types.INTERP_LINEAR, antialias=False)
            for turn in inputs:
                images = images ^ (turn.gpu() if self._device.type == "cuda" else turn)
            images = fn.crop_mirror_normalize(
                images,
                mirror=mirror,
                dtype=DALI_DTYPES[self._dtype],
                output_layout="HWC",
                **_normalization(reader.stream, self._dtype),
            )
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline

    def _plane_crops(self, planes: Any, box: Sequence[Any]) -> Any:
        """Return (h, w, 3) or (2L, h, w) of windows fed as planes; without a box they were cut before feeding."""
        planes = fn.reinterpret(planes, layout="HWC" if self._reader.stream == "rgb" else "CHW")
        return _slice(planes.gpu(), *box) if box else planes

    def _decoded_crops(self, members: Sequence[Any], y: Any, x: Any, height: Any, width: Any) -> Any:
        """Return (h, w, 3) or (2L, h, w) of encoded windows; the CPU decodes the crop's columns only."""
        reader, on_gpu = self._reader, self._device.type == "cuda"
        # smooth chroma, as libjpeg-turbo on the CPU does it; without effect there
        options = {"output_type": types.RGB if reader.stream == "rgb" else types.GRAY, "jpeg_fancy_upsampling": True}
        if on_gpu:
            device = "mixed" if reader.dataset.stream(reader.stream).codec == "jpg" else "cpu"
            images = [fn.decoders.image(member, device=device, **options).gpu() for member in members]
        else:
            columns = {"start": x, "shape": width, "axis_names": "W"}
            images = [fn.decoders.image_slice(member, **columns, **options) for member in members]
        if reader.stream == "flow":
            size = types.Constant(
                np.array([2, reader.height, reader.width] if on_gpu else [2, reader.height], np.int32)
            )
            size = size if on_gpu else fn.cat(size, width)
            images = [fn.reshape(image, shape=size, layout="CHW") for image in images]
        stack = fn.cat(*images, axis=0) if len(images) > 1 else images[0]
        return _slice(stack, y, x, height, width) if on_gpu else fn.slice(stack, start=y, shape=height, axis_names="H")

    def _feed(self) -> tuple[list[Any], ...]:
        """Return the next request as DALI takes it: the samples' members, boxes, flips, and what turns x flow."""
        request = next(self._requests, None)
        if request is None:
            raise StopIteration
        table = request.table
        rows, boxes, flips = table.rows.copy(), table.boxes.copy(), table.mirrored.copy()
        samples = []
        for index, (row, start) in enumerate(zip(rows.tolist(), table.starts.tolist(), strict=True)):
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
                rows[index], boxes[index], flips[index] = neighbour.rows[0], neighbour.boxes[0], neighbour.mirrored[0]
        self._pending.append((request, rows))
        sides = flips.astype(np.int32)
        if self._cuts_before_feeding:
            samples = [[self._cut(sample[0], box)] for sample, box in zip(samples, boxes.tolist(), strict=True)]
        return (
            *(list(members) for members in zip(*samples, strict=True)),
            *(() if self._cuts_before_feeding else boxes.T[..., None].copy()),
            sides,
            *((self._turns[sides],) if self._reader.stream == "flow" else ()),
        )

    def _cut(self, window: UInt8, box: list[int]) -> UInt8:
        y, x, height, width = box
        rows, columns = slice(y, y + height), slice(x, x + width)
        return np.ascontiguousarray(window[rows, columns] if self._reader.stream == "rgb" else window[:, rows, columns])

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
        for request, _ in self._pending:
            for row, start in zip(request.table.rows.tolist(), request.table.starts.tolist(), strict=True):
                try:
                    self._reader.window(row, start)
                except DamagedMemberError as damaged:
                    if (row, start) not in self._undecodable:
                        found = True
                        self._undecodable[row, start] = damaged
        if not found:
            raise DatasetError(
                f"DALI failed: {str(error).strip().splitlines()[0]}\n  Try --loader cpu; --debug shows DALI's own message."
            ) from error

    def _batch(self, request: BatchRequest, rows: Int64, output: Any) -> Batch:
        images = torch.utils.dlpack.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)
        dataset, on_gpu = self._reader.dataset, self._device.type == "cuda"
        labels, valid = torch.from_numpy(dataset.labels[rows]), torch.from_numpy(request.valid)
        return Batch(
            images=images if images.dtype == self._dtype else images.to(self._dtype),
            labels=labels.to(self._device, non_blocking=True) if on_gpu else labels,
            valid=valid.to(self._device, non_blocking=True) if on_gpu else valid,
            keys=dataset.keys_of(rows),
            positions=request.table.positions,
            global_size=request.global_size,
        )


def _slice(planes: Any, y: Any, x: Any, height: Any, width: Any) -> Any:
    """Cut the crop out, not with the resize's region of interest: that mixes pixels from beyond the crop into its border."""
    return fn.slice(planes, start=fn.cat(y, x), shape=fn.cat(height, width), axis_names="HW")


def _turns(reader: PlaneReader) -> UInt8:
    """Return what a window's planes are XORed with, (2, C, 1, 1): nothing, and for mirrored windows 255 on x flow."""
    turns = np.zeros((2, reader.num_channels, 1, 1), np.uint8)
    if reader.stream == "flow":
        turns[1, 0::2] = 255
    return turns


def _normalization(stream: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return mean and deviation in levels; all channels of flow share one, for DALI 2.4 crashes on lists of more than 8."""
    if dtype == torch.uint8:
        return {}
    return {"mean": [255 * mean for mean in MEAN[stream]], "std": [255 * value for value in DEVIATION[stream]]}
