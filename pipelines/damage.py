"""What happens when a damaged member is met while loading."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pipelines.plan import PlanTable
from shard_builder.errors import DamagedMemberError, DatasetError

MAX_FRACTION = 0.01
"""More damaged samples than this part of an epoch stop the run."""
MAX_SUBSTITUTES = 16
Substitute = Callable[[int, int], PlanTable]
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
        self.errors: list[DamagedMemberError] = []

    def start_epoch(self) -> None:
        """Forget what the last epoch met."""
        with self._lock:
            self.errors = []

    def report(self, error: DamagedMemberError) -> None:
        """Take note of a damaged member.

        Raises:
            DamagedMemberError: The same, if the policy is to raise.
            DatasetError: If over 1 % of the epoch's samples are damaged.
        """
        if self.on_error == "raise":
            raise error
        with self._lock:
            self.errors.append(error)
            if len(self.errors) > MAX_FRACTION * self._num_samples:
                raise DatasetError(
                    f"{len(self.errors)} of {self._num_samples} samples of this epoch are damaged, over the {MAX_FRACTION:.0%} that "
                    f"--on-error skip allows; the last one: {error}"
                ) from error


def find_neighbour(
    position: int,
    error: DamagedMemberError,
    damage: DamagePolicy,
    substitute: Substitute,
    read: Callable[[int, int], Sample],
) -> tuple[Sample, PlanTable]:
    """Report a damaged sample and return what stands in for it: the next position of the plan that can be read.

    Args:
        position: Position of the damaged sample.
        error: What is wrong with it.
        damage: Decides whether to go on.
        substitute: (position, attempt) -> plan of a neighbour, one row.
        read: (row, start) -> the neighbour's data.

    Raises:
        DamagedMemberError: If the policy is to raise, or no neighbour can be read either.
    """
    damage.report(error)
    for attempt in range(1, MAX_SUBSTITUTES + 1):
        table = substitute(position, attempt)
        try:
            return read(int(table.rows[0]), int(table.starts[0])), table
        except DamagedMemberError as another:
            error = another
    raise error
