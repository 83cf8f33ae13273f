"""What happens when a damaged member is met while loading."""

from __future__ import annotations

import threading

from shard_builder.errors import DamagedMemberError, DatasetError

MAX_FRACTION = 0.01
"""More damaged samples than this part of an epoch stop the run."""


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
