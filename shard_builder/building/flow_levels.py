"""What the levels of a dataset's flow are like, and what helps where nearly all are at rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.format.levels import Flow

REST_LEVEL = 128
LEAST_PX, BINS_AN_OCTAVE, NUM_BINS = 2.0**-12, 4, 88
"""Displacements are counted by size, in bins whose upper edges grow from ``LEAST_PX``."""
EVERY = 4
"""Of so many rows and columns one is counted: flow is smooth."""
USUAL_PX = 0.5
"""What the strongest hundredth of a displacement should be at least: less is noise of the flow."""
LEAST_PAIRS = 10
"""That a longer step must leave of a usual clip: two windows."""
REST_FRACTION = 0.95
"""Of levels within one of rest: more is absurd."""
REST_PARTS = 255 / 3
"""The bound over the displacement that is stored as one and a half levels."""


@dataclass(slots=True, kw_only=True)
class LevelStatistics:
    """Running counts of quantised levels and of the displacements before.

    Args:
        num_levels: Levels.
        num_saturated: Of them at the bound.
        num_resting: Of them within one of rest.
        sum_levels: Their sum.
        sizes: Displacements by size, ``NUM_BINS`` numbers.
    """

    num_levels: int = 0
    num_saturated: int = 0
    num_resting: int = 0
    sum_levels: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * NUM_BINS)

    def add(self, levels: npt.NDArray[np.uint8], flow: Flow | None = None) -> None:
        """Count an array of levels, and the flow that they were made of."""
        histogram = cv2.calcHist([levels.reshape(-1, 1)], [0], None, [256], [0, 256]).ravel()
        self.num_levels += levels.size
        self.num_saturated += int(histogram[0]) + int(histogram[255])
        self.num_resting += int(histogram[REST_LEVEL - 1 : REST_LEVEL + 2].sum())
        self.sum_levels += int(np.dot(histogram.astype(np.int64), np.arange(256)))
        if flow is not None:
            sizes = np.abs(flow[::EVERY, ::EVERY]).ravel()
            octaves = np.log2(np.maximum(sizes, LEAST_PX) / LEAST_PX)
            bins = np.minimum(np.ceil(BINS_AN_OCTAVE * octaves), NUM_BINS - 1).astype(np.int64)
            counts = np.bincount(bins, minlength=NUM_BINS)
            self.sizes = (np.array(self.sizes) + counts).tolist()

    @property
    def saturated_fraction(self) -> float:
        """Fraction of levels at the bound, 0..1."""
        return self.num_saturated / self.num_levels if self.num_levels else 0.0

    @property
    def rest_fraction(self) -> float:
        """Fraction of levels within one of rest, 0..1."""
        return self.num_resting / self.num_levels if self.num_levels else 0.0

    @property
    def mean_level(self) -> float:
        """Mean level; near 128 unless the camera moves."""
        return self.sum_levels / self.num_levels if self.num_levels else 128.0

    def size_px(self, fraction: float) -> float:
        """Return the displacement, in pixels, that this fraction of all does not exceed."""
        counts = np.cumsum(self.sizes)
        number = int(np.searchsorted(counts, fraction * counts[-1]))
        return float(LEAST_PX * 2 ** (number / BINS_AN_OCTAVE))

    def cure(self, *, num_frames: float) -> tuple[int, float] | None:
        """Return a step and a bound with which the levels would not all be at rest.

        Motion is taken to be even: n frames apart it is n times as far.

        Args:
            num_frames: Of a usual clip; enough pairs are to be left of it.

        Returns:
            How many times as long a step, and the bound in pixels; None where so much of the
            picture does not move at all that no bound helps.
        """
        if not any(self.sizes) or self.size_px(REST_FRACTION) <= LEAST_PX:
            return None
        most, rest = self.size_px(0.999), self.size_px(REST_FRACTION) * REST_PARTS
        longest = max(1, int((num_frames - 1) // LEAST_PAIRS))
        step = min(max(1, round(USUAL_PX / self.size_px(0.99))), longest)
        return step, nice(step * min(1.25 * most, rest / 2))


def merge_statistics(parts: Iterable[LevelStatistics]) -> LevelStatistics:
    """Add counts up."""
    total = LevelStatistics()
    for part in parts:
        for name in ("num_levels", "num_saturated", "num_resting", "sum_levels"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.sizes = [sum(pair) for pair in zip(total.sizes, part.sizes, strict=True)]
    return total


def nice(bound_px: float) -> float:
    """Round to two digits.

    >>> nice(0.23456)
    0.23
    """
    return float(f"{bound_px:.2g}")
