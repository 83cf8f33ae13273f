"""What a plan keeps of a store's tars on disk: of each row all that its windows may read."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

import numpy as np

from pipelines.block_cache import BlockCache
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import Plan


class RowCache:
    """A block cache as one plan uses it.

    Every row of a training plan is used once an epoch, so its next use is known: later in this
    epoch, or in the next one. A plan of validation keeps what there is room for.

    Args:
        blocks: The cache.
        plan: The plan.
        items: Frames or pairs that the plan may ask for, by row: a row's block.
        names: Name of the block of each row.
    """

    def __init__(
        self,
        blocks: BlockCache,
        plan: Plan,
        *,
        items: Mapping[int, range],
        names: Mapping[int, str],
    ) -> None:
        self.blocks, self.items, self.names = blocks, items, names
        self._plan = plan
        self._rows = {name: row for row, name in names.items()}
        self._places = {row: place for place, row in enumerate(plan.rows.tolist())}
        self._now = (0, 0)
        self._orders: dict[int, Int64] = {}
        self._lock = threading.Lock()

    def go_to(self, epoch: int, position: int) -> None:
        """Note that what is before a position has been asked for."""
        self._now = (epoch, position)

    def next_use(self, name: str) -> float:
        """Return how many samples from now a block is needed; infinite if this plan never does."""
        row = self._rows.get(name)
        if row is None or not self._plan.is_training:
            return math.inf
        (epoch, now), place = self._now, self._places[row]
        position = int(self._order(epoch)[place])
        if position >= now:
            return position - now
        return len(self._plan) + int(self._order(epoch + 1)[place]) - now

    def _order(self, epoch: int) -> Int64:
        """Return the position of each of the plan's rows in an epoch."""
        with self._lock:
            if epoch not in self._orders:
                positions = np.arange(len(self._plan), dtype=np.int64)
                rows = self._plan.table(positions, epoch=epoch).rows.tolist()
                order = np.empty(len(rows), np.int64)
                order[[self._places[row] for row in rows]] = positions
                kept = {number: o for number, o in self._orders.items() if number >= epoch - 1}
                self._orders = kept | {epoch: order}
            return self._orders[epoch]
