"""What happens to a damaged sample: it ends the run, or a neighbour in the plan stands in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from pipelines.plan.plan import Plan
from pipelines.plan.requests import BatchRequest, Draw, draws_of
from pipelines.reading import OnError
from shard_builder.errors import DamagedMemberError, DatasetError, counted

MAX_FRACTION = 0.01
"""More damaged samples than this part of an epoch stop the run."""
MAX_SUBSTITUTES = 16
Sample = TypeVar("Sample")


class DamagePolicy:
    """Reads samples; raises at the first damaged one, or counts it and reads a neighbour instead.

    Args:
        plan: Says which samples are neighbours.
        on_error: ``raise`` or ``skip``.

    Attributes:
        plan: As given.
    """

    def __init__(self, plan: Plan, on_error: OnError) -> None:
        self.plan, self._on_error = plan, on_error
        self._lock = threading.Lock()
        # Engines read ahead over the border of epochs, so each epoch counts its own. A position
        # that is met again (padding, a batch fed twice) counts once.
        self._errors: dict[int, dict[int, DamagedMemberError]] = {}

    def errors(self, epoch: int) -> list[DamagedMemberError]:
        """Return what was damaged in an epoch so far."""
        with self._lock:
            return list(self._errors.get(epoch, {}).values())

    def start_epoch(self, epoch: int) -> None:
        """Forget what other epochs met."""
        with self._lock:
            self._errors = {number: e for number, e in self._errors.items() if number >= epoch}

    def forget(self) -> None:
        """Forget everything: what was read ahead is read again."""
        with self._lock:
            self._errors.clear()

    def read(
        self, request: BatchRequest, index: int, draw: Draw, read: Callable[[int, int], Sample]
    ) -> tuple[Sample, Draw]:
        """Read one sample of a request, or what stands in for it.

        Args:
            request: The request.
            index: Number of the sample in it.
            draw: The plan's row of the sample.
            read: (row, start) -> the sample's data.

        Returns:
            The data, and the draw that it belongs to.

        Raises:
            DamagedMemberError: If the policy is to raise, or no neighbour can be read either.
            DatasetError: If over 1 % of the epoch's samples are damaged.
        """
        try:
            return read(draw.row, draw.start), draw
        except DamagedMemberError as error:
            position = int(request.table.positions[index])
            self._report(error, request.epoch, position)
            last = error
        for attempt in range(1, MAX_SUBSTITUTES + 1):
            at = np.array([(position + attempt) % len(self.plan)], np.int64)
            (draw,) = draws_of(self.plan.table(at, epoch=request.epoch))
            try:
                return read(draw.row, draw.start), draw
            except DamagedMemberError as another:
                last = another
        raise last

    def _report(self, error: DamagedMemberError, epoch: int, position: int) -> None:
        if self._on_error == "raise":
            raise error
        with self._lock:
            damaged = self._errors.setdefault(epoch, {})
            damaged.setdefault(position, error)
            if len(damaged) > MAX_FRACTION * len(self.plan):
                raise DatasetError(
                    f"{len(damaged)} of {counted(len(self.plan), 'sample')} of this epoch are"
                    f" damaged, over the {MAX_FRACTION:.0%} that on_error='skip' allows; the last"
                    f" one: {error}"
                ) from error
