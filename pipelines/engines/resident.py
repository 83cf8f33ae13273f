"""The engine behind ``cache="device"``: a part's decoded planes stay in the device's memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from pipelines.engines.damage import DamagePolicy
from pipelines.engines.delivery import Delivery
from pipelines.engines.normalize import Normalizer
from pipelines.engines.plane_cut import cut_jittered, cut_planes, jitter_numbers
from pipelines.engines.planes import PlaneReader
from pipelines.engines.transfer import to_device
from pipelines.plan.requests import BatchRequest
from pipelines.reading import Reading
from pipelines.remote_members import Fetched
from shard_builder.errors import DamagedMemberError, InputError, counted
from shard_builder.machine import has_failed, num_available_bytes

FREE_PART = 0.4
"""Of the memory that is free, the part that planes may take unless ``cache_bytes`` says more."""


class ResidentEngine:
    """Turns batch requests into batches on the device alone.

    A sequence is decoded, by threads some batches ahead, and copied when a request first names it.
    From the second epoch on only the plan's numbers go to the device.

    Args:
        reader: Where planes come from.
        _batch_size: As of every engine; it decides nothing here.
        reading: Threads, depth, dtype, device and the limit of the memory.
        damage: Reads samples, and what stands in for damaged ones.

    Raises:
        InputError: If the planes of the part do not fit.
    """

    def __init__(
        self, reader: PlaneReader, _batch_size: int, reading: Reading, damage: DamagePolicy
    ) -> None:
        self._reader, self._damage, self._depth = reader, damage, reading.prefetch_depth
        self._device, self._dtype = reading.torch_device, reading.dtype
        self._normalizer = (
            None
            if self._dtype == torch.uint8
            else Normalizer(
                reader.kind, reader.num_channels, dtype=self._dtype, device=self._device
            )
        )
        self._items = reader.items_of_rows(damage.plan)
        self._planes_per_item = reader.kind.num_channels(1)
        num_planes = self._planes_per_item * sum(map(len, self._items.values()))
        _check_fits(num_planes, reader, reading, num_sequences=len(self._items))
        self._planes = torch.empty(
            (num_planes, reader.height, reader.width), dtype=torch.uint8, device=self._device
        )
        self._first_planes: dict[int, int] = {}
        self._num_filled = 0
        self._damaged: dict[tuple[int, int], DamagedMemberError] = {}
        self._decoding: dict[int, Future[torch.Tensor]] = {}
        self._pool = ThreadPoolExecutor(reading.threads, thread_name_prefix="ckshard-resident")

    def close(self) -> None:
        """Let go of the planes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._decoding.clear()
        self._planes = self._planes.new_empty(0)

    def batches(
        self, requests: Generator[BatchRequest, None, None]
    ) -> Generator[Delivery, None, None]:
        """Yield the images of each request, in order."""
        ahead: deque[BatchRequest] = deque()
        while True:
            for request in islice(requests, self._depth + 1 - len(ahead)):
                ahead.append(request)
                for row in request.table.rows.tolist():
                    self._begin(row)
            if not ahead:
                return
            yield self._deliver(ahead.popleft())

    def _deliver(self, request: BatchRequest) -> Delivery:
        reads = [
            self._damage.read(request, index, draw, self._channels)
            for index, draw in enumerate(request.draws())
        ]
        draws = [draw for _, draw in reads]
        numbers = np.array(
            [[*channels, *draw.box, draw.mirrored] for channels, draw in reads], np.int64
        )
        return Delivery(
            request=request,
            rows=np.array([draw.row for draw in draws], np.int64),
            images=self._cut(
                to_device(torch.from_numpy(numbers), self._device),
                None
                if request.table.jitter is None
                else to_device(jitter_numbers(draws), self._device),
            ),
        )

    def _cut(self, numbers: torch.Tensor, jitter: torch.Tensor | None) -> torch.Tensor:
        """Cut a batch.

        Args:
            numbers: Of each sample the planes of its channels, its box, and 1 if it is mirrored,
                ``int64`` (N, C + 5), on the device.
            jitter: Of each sample what :func:`jitter_numbers` returns, on the device.
        """
        num_channels, has_pairs = self._reader.num_channels, self._reader.kind.has_pairs
        channels = numbers[:, :num_channels]
        if jitter is None:
            levels = cut_planes(
                self._planes,
                channels,
                numbers[:, num_channels:-1],
                numbers[:, -1] == 1,
                has_pairs=has_pairs,
            )
        else:
            levels = cut_jittered(self._planes, channels, jitter, self._reader.kind)
        return levels.to(torch.uint8) if self._normalizer is None else self._normalizer(levels)

    def _channels(self, row: int, start: int) -> list[int]:
        """Return the planes of a window's channels.

        Raises:
            DamagedMemberError: If an item of the window could not be read or decoded.
        """
        self._admit(row)
        first = self._first_planes[row] - self._planes_per_item * self._items[row].start
        channels: list[int] = []
        for item in self._reader.items(row, start):
            if (row, item) in self._damaged:
                raise self._damaged[row, item]
            begin = first + self._planes_per_item * item
            channels += range(begin, begin + self._planes_per_item)
        return channels

    def _begin(self, row: int) -> None:
        begun = self._decoding.get(row)
        if row not in self._first_planes and (begun is None or has_failed(begun)):
            asked = self._reader.ask(row, self._items[row])
            self._decoding[row] = self._pool.submit(self._decode, row, asked)

    def _admit(self, row: int) -> None:
        """Copy a row's planes to the device unless they are there."""
        if row in self._first_planes:
            return
        self._begin(row)
        planes = self._decoding.pop(row).result()
        begin, end = self._num_filled, self._num_filled + len(planes)
        self._planes[begin:end].copy_(planes, non_blocking=True)
        self._first_planes[row], self._num_filled = begin, end
        if len(self._first_planes) == len(self._items):
            self._pool.shutdown(wait=False)

    def _decode(self, row: int, asked: list[Fetched]) -> torch.Tensor:
        """Return the planes of a row's items in pinned memory; damaged items are noted."""
        items, per_item = self._items[row], self._planes_per_item
        shape = (len(items) * per_item, *self._planes.shape[1:])
        planes = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        try:
            for place, item in enumerate(items):
                try:
                    image = self._reader.item(row, item)
                except DamagedMemberError as error:
                    self._damaged[row, item] = error
                    continue
                target = planes[place * per_item : (place + 1) * per_item].numpy()
                target[...] = image if self._reader.kind.has_pairs else image.transpose(2, 0, 1)
        finally:
            self._reader.drop(asked)
        return planes


def _check_fits(
    num_planes: int, reader: PlaneReader, reading: Reading, *, num_sequences: int
) -> None:
    """Make sure that planes may take the memory they need.

    Raises:
        InputError: If they would take more; the message holds the sum.
    """
    device, limit = reading.torch_device, reading.cache_bytes
    allowed = f"cache_bytes={limit} are allowed"
    if limit is None:
        is_gpu = device.type == "cuda"
        free = torch.cuda.mem_get_info(device)[0] if is_gpu else num_available_bytes()
        limit = int(FREE_PART * free)
        allowed = f"{limit} are allowed, {FREE_PART:.0%} of the {free} free on {device}"
    plane_bytes = reader.height * reader.width
    if num_planes * plane_bytes > limit:
        raise InputError(
            f"cache='device': {counted(num_planes, 'plane')} of"
            f" {counted(num_sequences, 'sequence')} take {num_planes} x {plane_bytes} ="
            f" {num_planes * plane_bytes} bytes, but {allowed}\n"
            "  Use cache='ram', or allow more: cache_bytes=N"
        )
