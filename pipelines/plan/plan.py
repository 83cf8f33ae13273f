"""The plan: order and augmentation as a table, computed from (seed, epoch, position) alone.

It knows nothing of ranks, workers or engines; whoever asks for position p gets the same sample,
window, crop and flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.plan.crops import Boxes
from pipelines.plan.jitter import JitterTable, draw_jitter
from pipelines.plan.permutation import (
    ClassIndex,
    Int64,
    derive_key,
    draw_below,
    permute,
    permute_balanced,
)
from pipelines.streams import StreamKind

PLAN_VERSION = 1
"""Raised whenever the same (seed, epoch, position) would give another sample or geometry; a state
of another version is refused."""

SMALL_PLAN = 16384
"""Up to so many samples an epoch's order is computed whole and kept: 128 KB save a batch of 32 a
quarter of a millisecond."""

_ORDER, _WINDOW, _CROP, _MIRROR = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """Rows of a plan, one for each position asked for.

    Args:
        positions: Position in the epoch, ``int64`` (k,).
        rows: Row of ``index.arrow``, ``int64`` (k,).
        starts: First pair (flow) or stored frame (rgb) of the window, ``int64`` (k,).
        boxes: Crop y, x, height, width in pixels, ``int32`` (k, 4).
        mirrored: Whether the crop is flipped left to right, ``bool`` (k,).
        jitter: What ``strong`` changes beside; None for plans without.
    """

    positions: Int64
    rows: Int64
    starts: Int64
    boxes: Boxes
    mirrored: npt.NDArray[np.bool_]
    jitter: JitterTable | None = None

    def part(self, begin: int, stop: int) -> PlanTable:
        """Return some consecutive rows as views."""
        return PlanTable(
            positions=self.positions[begin:stop],
            rows=self.rows[begin:stop],
            starts=self.starts[begin:stop],
            boxes=self.boxes[begin:stop],
            mirrored=self.mirrored[begin:stop],
            jitter=None if self.jitter is None else self.jitter.part(begin, stop),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the samples of one split part are ordered and cut, for every epoch.

    Args:
        rows: Index rows of the part, ``int64`` (n,).
        num_starts: How many window starts each of them has, ``int64`` (n,), >= 1.
        first_starts: The first of these starts, ``int64`` (n,).
        crops: Boxes to draw from; validation gives one.
        seed: Seed of all draws.
        is_training: Shuffled, random windows, crops and flips; else stored order, the centre
            window, the first crop, no flip.
        classes: If each class is to come equally often in training: which of the rows are in each.
        jitters: Stream whose samples change in light, turn and lose a part in training; None
            changes none.
    """

    rows: Int64
    num_starts: Int64
    first_starts: Int64
    crops: Boxes
    seed: int
    is_training: bool
    classes: ClassIndex | None = None
    jitters: StreamKind | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def start_bounds(self) -> tuple[Int64, Int64]:
        """Return the first and the last window start that each of the rows may get, (n,) each."""
        if self.is_training:
            return self.first_starts, self.first_starts + self.num_starts - 1
        centre = self.first_starts + self.num_starts // 2
        return centre, centre

    def table(self, positions: Int64, *, epoch: int) -> PlanTable:
        """Compute the plan at any positions of an epoch.

        Args:
            positions: Integers in ``0..len(self) - 1``, any order, ``int64`` (k,).
            epoch: Epoch number, from 0.
        """
        num = len(self.rows)
        if not self.is_training:
            return PlanTable(
                positions=positions,
                rows=self.rows[positions],
                starts=self.start_bounds()[0][positions],
                boxes=np.repeat(self.crops[:1], len(positions), axis=0),
                mirrored=np.zeros(len(positions), bool),
            )
        order, window, crop, mirror = (
            derive_key(self.seed, epoch, lane) for lane in (_ORDER, _WINDOW, _CROP, _MIRROR)
        )
        members = (
            _whole_order(num, order, self.classes)[positions]
            if num <= SMALL_PLAN
            else _order(positions, num, order, self.classes)
        )
        return PlanTable(
            positions=positions,
            rows=self.rows[members],
            starts=self.first_starts[members]
            + draw_below(positions, self.num_starts[members], key=window),
            boxes=self.crops[draw_below(positions, len(self.crops), key=crop)],
            mirrored=draw_below(positions, 2, key=mirror).astype(bool),
            jitter=None
            if self.jitters is None
            else draw_jitter(
                positions, seed=self.seed, epoch=epoch, has_pairs=self.jitters.has_pairs
            ),
        )


def _order(positions: Int64, num: int, key: int, classes: ClassIndex | None) -> Int64:
    if classes is not None:
        return permute_balanced(positions, classes, key=key)
    return permute(positions, num=num, key=key)


@lru_cache(maxsize=4)
def _whole_order(num: int, key: int, classes: ClassIndex | None) -> Int64:
    return _order(np.arange(num, dtype=np.int64), num, key, classes)
