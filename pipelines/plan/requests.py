"""A plan cut into requests: one rank's part of each global batch, epoch after epoch without end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.plan.jitter import Jitter
from pipelines.plan.plan import Plan, PlanTable
from shard_builder.checks import check_integer
from shard_builder.errors import InputError
from shard_builder.machine import own_thread

PLANNED_BATCHES = 16
"""NumPy costs as much for the plan of one batch as for that of sixteen."""


class Draw(NamedTuple):
    """One row of a plan as plain numbers: the sample, its window, crop, flip and jitter."""

    row: int
    start: int
    box: tuple[int, int, int, int]
    mirrored: bool
    jitter: Jitter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One rank's part of a global batch as the plan has it.

    Args:
        table: The plan at this rank's positions, padding included.
        valid: False for padding, ``bool`` (N,).
        epoch: Epoch that the plan is of.
        global_size: Valid samples over all ranks.
    """

    table: PlanTable
    valid: npt.NDArray[np.bool_]
    epoch: int
    global_size: int

    def __len__(self) -> int:
        return len(self.valid)

    def draws(self) -> list[Draw]:
        """Return the samples as plain numbers: one conversion a batch, not four a sample."""
        return draws_of(self.table)


def draws_of(table: PlanTable) -> list[Draw]:
    """Return the rows of a table as plain numbers."""
    rows, starts, mirrored = (
        column.tolist() for column in (table.rows, table.starts, table.mirrored)
    )
    columns = [rows, starts, map(tuple, table.boxes.tolist()), mirrored]
    return list(map(Draw, *columns, *(() if table.jitter is None else (table.jitter.rows(),))))


def iter_requests(
    plan: Plan, *, epoch: int, position: int, batch_size: int, rank: int, world_size: int
) -> Generator[BatchRequest, None, None]:
    """Yield a rank's contiguous part of each global batch from a position on, without end.

    The epoch after follows at once, so that an engine that reads ahead does not drain at the
    border. Short parts repeat the first position of their batch. The plan of sixteen batches takes
    most of a millisecond: a thread works it out while the sixteen before are used.
    """
    blocks = _blocks(plan, epoch, position, batch_size, rank, world_size)
    with own_thread("ckshard-plan") as planner:
        coming = planner.submit(next, blocks)
        while True:
            block = coming.result()
            coming = planner.submit(next, blocks)
            yield from block


def _blocks(
    plan: Plan, epoch: int, position: int, batch_size: int, rank: int, world_size: int
) -> Iterator[list[BatchRequest]]:
    """Yield the requests of sixteen batches at a time, of fewer at the end of an epoch."""
    for number in count(epoch):
        for first in range(position, len(plan), batch_size * PLANNED_BATCHES):
            last = min(first + batch_size * PLANNED_BATCHES, len(plan))
            parts = []
            for begin in range(first, last, batch_size):
                stop = min(begin + batch_size, last)
                share = -(-(stop - begin) // world_size)
                own = np.arange(begin + rank * share, begin + (rank + 1) * share, dtype=np.int64)
                valid = own < stop
                parts.append((np.where(valid, own, begin), valid, stop - begin))
            table = plan.table(np.concatenate([own for own, _, _ in parts]), epoch=number)
            ends = np.cumsum([len(own) for own, _, _ in parts]).tolist()
            yield [
                BatchRequest(
                    table=table.part(end - len(own), end),
                    valid=valid,
                    epoch=number,
                    global_size=global_size,
                )
                for end, (own, valid, global_size) in zip(ends, parts, strict=True)
            ]
        position = 0


def check_batches(batch_size: int, rank: int, world_size: int) -> None:
    """Check how global batches are parted.

    Raises:
        InputError: If one is out of range, or the ranks cannot have equal parts.
    """
    check_integer("world_size", world_size, low=1, high=1 << 20)
    check_integer("rank", rank, low=0, high=world_size - 1)
    check_integer("batch_size", batch_size, low=1, high=1 << 24)
    if batch_size % world_size:
        raise InputError(
            f"batch_size={batch_size}, expected a multiple of the {world_size} ranks: it counts the"
            " samples of all ranks"
        )
