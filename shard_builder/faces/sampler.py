"""Which frames of a clip are taken: each, each n-th, or so many a second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from shard_builder.errors import SourceError
from shard_builder.images import Image

CLOCK_S = 0.0015
"""Containers round times to milliseconds."""
SLOW_FRACTION = 0.95
"""A clip is too slow for a rate of which it has less than this part."""


class FrameSampler:
    """Takes frames as they come: the first one, then those that are due.

    Args:
        frame_step: 1 takes each frame, n each n-th.
        fps: Frames to take of a second by the clip's own times; None goes by the step.

    Attributes:
        positions: Of the frames taken, among all that came.
        num_seen: Frames that came.
    """

    def __init__(self, *, frame_step: int = 1, fps: float | None = None) -> None:
        self.positions: list[int] = []
        self.num_seen = 0
        self._step, self._fps = frame_step, fps
        self._first_s = self._last_s = math.nan
        self._num_due = 0

    def choose(self, frames: Iterable[tuple[Image, float | None]]) -> Iterator[Image]:
        """Yield the frames to take of those that come with their times, in seconds.

        Raises:
            SourceError: If frames have no times to go by.
        """
        for frame, time_s in frames:
            if self._is_due(time_s):
                self.positions.append(self.num_seen)
                self.num_seen += 1
                yield frame
            else:
                self.num_seen += 1

    def _is_due(self, time_s: float | None) -> bool:
        if self._fps is None:
            return self.num_seen % self._step == 0
        if time_s is None:
            raise SourceError(
                f"fps={self._fps:g}, but images have no frame rate\n"
                "  Take every second one or fewer by frame_step=2."
            )
        if not self.num_seen:
            self._first_s = time_s
        elif not time_s > self._last_s:
            raise SourceError(
                f"fps={self._fps:g}, but the times of frames {self.num_seen - 1} and"
                f" {self.num_seen} do not rise\n  Go by frame_step, or convert it with ffmpeg."
            )
        self._last_s = time_s
        passed_s = time_s - self._first_s + min(CLOCK_S, 0.25 / self._fps)
        if passed_s * self._fps < self._num_due:
            return False
        self._num_due = math.floor(passed_s * self._fps) + 1
        return True

    @property
    def slow_rate(self) -> float | None:
        """Frames a second that came, where they are fewer than were to be taken; else None."""
        seconds = self._last_s - self._first_s
        if self._fps is None or self.num_seen < 2 or not seconds > 0:
            return None
        rate = (self.num_seen - 1) / seconds
        return rate if rate < SLOW_FRACTION * self._fps else None

    def nearest(self, position: int) -> int:
        """Return which of the frames taken is nearest to a position among all, the later of two."""
        return min(
            range(len(self.positions)),
            key=lambda number: (abs(self.positions[number] - position), -number),
        )
