"""``make_loader``: a split part of a dataset as batches, resumable at any step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch

from pipelines.batch import Batch
from pipelines.dataset import Dataset
from pipelines.engines.cpu import CpuEngine
from pipelines.engines.damage import DamagePolicy
from pipelines.engines.delivery import Delivery, Engine
from pipelines.engines.planes import PlaneReader, open_planes
from pipelines.engines.resident import ResidentEngine
from pipelines.engines.transfer import to_device
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import PLAN_VERSION, Plan
from pipelines.plan.requests import check_batches, iter_requests
from pipelines.plan.sampling import Sampling, check_rows, make_plan
from pipelines.reading import Reading
from pipelines.state import MAX_EPOCH, State, check_state, fingerprint
from pipelines.streams import kind_of
from shard_builder.checks import check_flag, check_integer
from shard_builder.errors import DamagedMemberError, InputError, counted
from shard_builder.format.streams import StreamName
from shard_builder.machine import check_process


class Loader:
    """Batches of one split part, epoch after epoch; also a context manager.

    Each loop is the next epoch, in full; the first is epoch 0, or where :meth:`set_epoch` or
    :meth:`load_state_dict` went: only a restored position shortens an epoch. A state names the next
    sample to hand over, so it is exact however far the engine has read ahead, and it loads at any
    batch size and world size. There is one loop at a time: a new one, a jump and the end of the
    loader end it.

    Attributes:
        plan: The plan, the same for every engine, rank and world size.
        num_samples: Samples of an epoch.
        num_short: Sequences with fewer pairs than the stack; they repeat their last pair.
        epoch: Epoch of the loop in progress, or of the last one.
        position: Samples of it that were handed over, over all ranks.
    """

    def __init__(
        self,
        dataset: Dataset,
        stream: StreamName,
        plan: Plan,
        engine: Engine,
        damage: DamagePolicy,
        *,
        sampling: Sampling,
        batch_size: int,
        rank: int,
        world_size: int,
        num_short: int,
        device: torch.device,
    ) -> None:
        self.plan, self.num_samples, self.num_short = plan, len(plan), num_short
        self.epoch, self.position = 0, 0
        self._dataset, self._stream, self._sampling = dataset, stream, sampling
        self._engine, self._damage = engine, damage
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._device, self._is_closed = device, False
        self._next_start: tuple[int, int] | None = (0, 0)
        self._loop_number = 0
        self._deliveries: Generator[Delivery, None, None] | None = None
        self._deliveries_at = (0, 0)
        self._reading_lock = threading.Lock()
        self._process = os.getpid()

    def __len__(self) -> int:
        return -(-self.num_samples // self._batch_size)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a loader cannot be pickled\n  Send the dataset, and make a loader there.")

    @property
    def errors(self) -> list[DamagedMemberError]:
        """Damaged members that were skipped in this epoch so far."""
        return self._damage.errors(self.epoch)

    def close(self) -> None:
        """Stop the engine; further iteration is an error."""
        if not self._is_closed and os.getpid() == self._process:
            self._is_closed = True
            self._loop_number += 1
            with self._reading_lock:  # another thread may be waiting for its next batch
                self._stop_reading()
                self._engine.close()

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop be an epoch, from its beginning.

        Raises:
            InputError: If it is no epoch number.
        """
        check_integer("epoch", epoch, low=0, high=MAX_EPOCH)
        self._go_to(int(epoch), 0)

    def state_dict(self) -> State:
        """Return the plan's coordinates of the next sample to hand over, as plain JSON values."""
        return {
            "plan_version": PLAN_VERSION,
            "seed": self.plan.seed,
            "epoch": self.epoch,
            "position": self.position,
            "num_samples": self.num_samples,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next loop be the rest of a state's epoch; at the epoch's very end that is empty.

        Raises:
            InputError: If it is no state, or one of another dataset, stream, part or sampling.
        """
        epoch, position = check_state(state, self.state_dict())
        self._go_to(epoch, position)

    def __iter__(self) -> Iterator[Batch]:
        if self._is_closed:
            raise RuntimeError("the loader is closed")
        check_process(self._process)
        self._dataset.members(self._stream).check_sizes()
        self.epoch, self.position = self._next_start or (self.epoch + 1, 0)
        self._next_start = None
        self._damage.start_epoch(self.epoch)
        self._loop_number += 1
        return self._loop(self._loop_number)

    def _loop(self, number: int) -> Generator[Batch, None, None]:
        # Freeing a tensor lets go of the interpreter lock. Those of the batch before are kept until
        # the next one is asked for: no thread is at work then that would keep the lock a while.
        last: tuple[torch.Tensor, ...] = ()
        while number == self._loop_number and self.position < self.num_samples:
            _before, last = last, ()
            with self._reading_lock:
                if number != self._loop_number:
                    return
                delivery = self._next_delivery()
            self.position += delivery.request.global_size
            at_end = self.position == self.num_samples
            self._deliveries_at = (self.epoch + 1, 0) if at_end else (self.epoch, self.position)
            batch = self._batch(delivery)
            last = (batch.labels, batch.valid)
            yield batch

    def _next_delivery(self) -> Delivery:
        if self._deliveries is None or self._deliveries_at != (self.epoch, self.position):
            self._start_reading()
        assert self._deliveries is not None
        try:
            return next(self._deliveries)
        except BaseException:
            self._stop_reading()
            raise

    def _batch(self, delivery: Delivery) -> Batch:
        request, labels = delivery.request, self._dataset.labels[delivery.rows]
        return Batch(
            images=delivery.images,
            labels=to_device(torch.from_numpy(labels), self._device),
            valid=to_device(torch.from_numpy(request.valid), self._device),
            keys=self._dataset.keys_of(delivery.rows),
            positions=request.table.positions,
            epoch=request.epoch,
            global_size=request.global_size,
        )

    def _go_to(self, epoch: int, position: int) -> None:
        self._loop_number += 1
        self.epoch, self.position = epoch, position
        self._next_start = (epoch, position)

    def _start_reading(self) -> None:
        """Let the engine read from the current position on, over the borders of epochs."""
        self._stop_reading()
        self._deliveries_at = (self.epoch, self.position)
        self._deliveries = self._engine.batches(
            iter_requests(
                self.plan,
                epoch=self.epoch,
                position=self.position,
                batch_size=self._batch_size,
                rank=self._rank,
                world_size=self._world_size,
            )
        )

    def _stop_reading(self) -> None:
        if self._deliveries is not None:
            self._deliveries.close()
            self._deliveries = None
            self._damage.forget()

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._dataset.sha256, self._stream, self.plan, self._sampling)


def make_loader(
    dataset: Dataset,
    stream: StreamName,
    *,
    rows: Int64 | None = None,
    training: bool,
    batch_size: int,
    sampling: Sampling | None = None,
    reading: Reading | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Make a loader of one split part.

    Args:
        dataset: An open dataset; it must stay open as long as the loader.
        stream: ``rgb`` or ``flow``.
        rows: Index rows of the part, ``int64`` (n,), or a mask of all rows; None takes all.
        training: Shuffle and augment; else stored order, centre window and crop.
        batch_size: Samples of a GLOBAL batch, a multiple of ``world_size``; each rank gets its
            contiguous part of it.
        sampling: What decides every sample; ``Sampling()`` unless given.
        reading: How they are read, which decides none; ``Reading()`` unless given.
        rank: This process's rank.
        world_size: Number of ranks.

    Raises:
        InputError: If an option, the part or the dataset does not fit; the message quotes it.
    """
    sampling, reading = sampling or Sampling(), reading or Reading()
    kind, rows = kind_of(stream), check_rows(rows, len(dataset))
    check_flag("training", training)
    check_batches(batch_size, rank, world_size)
    batch_size, rank, world_size = int(batch_size), int(rank), int(world_size)
    if training and 0 < len(rows) < batch_size:
        raise InputError(
            f"batch_size={batch_size}, but the training part has {counted(len(rows), 'sequence')};"
            " expected that many or fewer"
        )
    reader = open_planes(
        dataset, kind, stack_length=sampling.stack_length, cache_bytes=reading.ram_bytes
    )
    num_stored = reader.members.num_stored
    plan = make_plan(
        kind,
        rows=rows,
        num_usable=dataset.num_usable(stream),
        labels=dataset.labels,
        height=reader.height,
        width=reader.width,
        training=training,
        sampling=sampling,
    )
    if reading.shard_cache is not None:
        reader.keep_blocks(plan, Path(reading.shard_cache), reading.shard_cache_bytes)
    damage = DamagePolicy(plan, reading.on_error)
    engine = _engine_class(reading)(reader, batch_size // world_size, reading, damage)
    length = sampling.stack_length if kind.has_pairs else 1
    return Loader(
        dataset,
        stream,
        plan,
        engine,
        damage,
        sampling=sampling,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        num_short=int((num_stored[rows] < length).sum()),
        device=reading.torch_device,
    )


def _engine_class(reading: Reading) -> Callable[[PlaneReader, int, Reading, DamagePolicy], Engine]:
    if reading.uses_dali:
        from pipelines.engines.dali import DaliEngine

        return DaliEngine
    return ResidentEngine if reading.cache == "device" else CpuEngine
