"""What happens when a damaged member is met while loading."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from pipelines.plan.plan import Plan, PlanTable
from shard_builder.errors import DamagedMemberError, DatasetError

MAX_FRACTION = 0.01
"""More damaged samples than this part of an epoch stop the run."""
MAX_SUBSTITUTES = 16
Sample = TypeVar("Sample")


class DamagePolicy:
    """Raises at the first damaged member, or counts it and lets a planned neighbour stand in.

    Args:
        on_error: ``raise`` or ``skip``.
        num_samples: Samples of an epoch.
    """

    def __init__(self, on_error: str, num_samples: int) -> None:
        self.on_error = on_error
        self._num_samples = num_samples
        self._lock = threading.Lock()
        self._positions: set[int] = set()
        self.errors: list[DamagedMemberError] = []

    def start_epoch(self) -> None:
        """Forget what the last epoch met."""
        with self._lock:
            self.errors = []
            self._positions.clear()

    def report(self, error: DamagedMemberError, *, position: int | None = None) -> None:
        """Take note of a damaged member.

        Args:
            error: What is wrong with it.
            position: Position of the sample in the epoch; one that is met again (padding, a batch
                fed twice) counts once.

        Raises:
            DamagedMemberError: The same, if the policy is to raise.
            DatasetError: If over 1 % of the epoch's samples are damaged.
        """
        if self.on_error == "raise":
            raise error
        with self._lock:
            if position in self._positions:
                return
            if position is not None:
                self._positions.add(position)
            self.errors.append(error)
            if len(self.errors) > MAX_FRACTION * self._num_samples:
                raise DatasetError(
                    f"{len(self.errors)} of {self._num_samples} samples of this epoch are damaged,"
                    f" over the {MAX_FRACTION:.0%} that --on-error skip allows; the last one:"
                    f" {error}"
                ) from error


def find_neighbour(
    plan: Plan,
    position: int,
    error: DamagedMemberError,
    *,
    epoch: int,
    damage: DamagePolicy,
    read: Callable[[int, int], Sample],
) -> tuple[Sample, PlanTable]:
    """Report a damaged sample and return what stands in for it: the next position of the plan that
    can be read.

    Args:
        plan: The plan.
        position: Position of the damaged sample.
        error: What is wrong with it.
        epoch: Epoch that the position is of.
        damage: Decides whether to go on.
        read: (row, start) -> the neighbour's data.

    Raises:
        DamagedMemberError: If the policy is to raise, or no neighbour can be read either.
    """
    damage.report(error, position=position)
    for attempt in range(1, MAX_SUBSTITUTES + 1):
        table = plan.table(np.array([(position + attempt) % len(plan)], np.int64), epoch=epoch)
        try:
            return read(int(table.rows[0]), int(table.starts[0])), table
        except DamagedMemberError as another:
            error = another
    raise error
