"""What ``strong`` changes beside crop and flip: light, a small turn, a part that is erased."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.plan.crops import INPUT_SIZE, Boxes
from pipelines.plan.permutation import Int64, derive_key, draw_below

Float64 = npt.NDArray[np.float64]

MAX_ANGLE, MAX_ZOOM, MAX_LIGHT = 10.0, 0.1, 0.2
"""Degrees, and how far scale, and brightness and contrast, lie from 1 at most."""
ERASED_AREAS, ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
"""Of the picture; height to width."""
LANES = range(16, 24)
"""Of the keys of these draws; the plan's own are the numbers before."""
_STEPS = 1000


class Jitter(NamedTuple):
    """What is changed of one sample.

    Args:
        angle: By which the stored planes are turned about the crop's centre before it is cut,
            degrees, counter-clockwise as one sees it.
        scale: By which they are enlarged at the same time; vectors of flow turn and grow with them.
        brightness: rgb levels become ``brightness * (128 + contrast * (level - 128))``.
        contrast: Likewise; both are 1 for flow.
        erased: y, x, height, width of what is filled with the mean in the sample of 224x224 pixels;
            of no height and width if nothing is.
    """

    angle: float
    scale: float
    brightness: float
    contrast: float
    erased: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class JitterTable:
    """The columns of :class:`Jitter`: ``float64`` (k,), but ``erased`` ``int32`` (k, 4)."""

    angles: Float64
    scales: Float64
    brightness: Float64
    contrast: Float64
    erased: Boxes

    def part(self, begin: int, stop: int) -> JitterTable:
        """Return some consecutive rows as views."""
        return JitterTable(
            angles=self.angles[begin:stop],
            scales=self.scales[begin:stop],
            brightness=self.brightness[begin:stop],
            contrast=self.contrast[begin:stop],
            erased=self.erased[begin:stop],
        )

    def rows(self) -> list[Jitter]:
        """Return the rows as plain numbers."""
        columns = (self.angles, self.scales, self.brightness, self.contrast)
        numbers = (column.tolist() for column in columns)
        return list(map(Jitter, *numbers, map(tuple, self.erased.tolist())))


def draw_jitter(positions: Int64, *, seed: int, epoch: int, has_pairs: bool) -> JitterTable:
    """Draw what is changed at positions of an epoch, each column independently and uniformly.

    Half of the samples lose a part, whose ratio is uniform in its logarithm.

    Source: erasing after Zhong et al., "Random erasing data augmentation" (2020).
    """
    keys = iter([derive_key(seed, epoch, lane) for lane in LANES])

    def uniform(low: float, high: float) -> Float64:
        """Draw one of 1001 values, so that what a table shows is the value itself."""
        steps = draw_below(positions, _STEPS + 1, key=next(keys))
        values: Float64 = np.round(low + (high - low) * steps / _STEPS, 6)
        return values

    angles = uniform(-MAX_ANGLE, MAX_ANGLE)
    scales = uniform(1 - MAX_ZOOM, 1 + MAX_ZOOM)
    brightness = uniform(1 - MAX_LIGHT, 1 + MAX_LIGHT)
    contrast = uniform(1 - MAX_LIGHT, 1 + MAX_LIGHT)
    if has_pairs:
        brightness, contrast = np.ones_like(brightness), np.ones_like(contrast)
    areas = uniform(*ERASED_AREAS)
    ratios = np.exp(uniform(*map(math.log, ERASED_RATIOS)))
    sides = np.sqrt(np.stack([areas * ratios, areas / ratios], axis=1)) * INPUT_SIZE
    sizes = np.clip(np.rint(sides), 1, INPUT_SIZE).astype(np.int64)
    place = draw_below(positions, 1 << 31, key=next(keys))
    is_erased = draw_below(positions, 2, key=next(keys)).astype(bool)
    free = INPUT_SIZE - sizes + 1
    corners = np.stack([place >> 16, place & 0xFFFF], axis=1) * free >> np.array([15, 16])
    erased = np.concatenate([corners, sizes], axis=1) * is_erased[:, None]
    return JitterTable(
        angles=angles,
        scales=scales,
        brightness=brightness,
        contrast=contrast,
        erased=erased.astype(np.int32),
    )


def source_matrix(box: tuple[int, int, int, int], mirrored: bool, jitter: Jitter) -> Float64:
    """Return where a sample's pixels lie in the stored plane.

    Args:
        box: y, x, height, width of the crop, pixels.
        mirrored: Whether the sample is flipped after it was cut.
        jitter: Turn and scale.

    Returns:
        (2, 3) that maps column and row of a sample's pixel, and 1, to column and row of the plane,
        both counted from 0 at the first pixel's centre. What lies outside the plane is the pixel at
        its border.
    """
    y, x, height, width = box
    sample_to_crop = np.diag([width / INPUT_SIZE, height / INPUT_SIZE])
    if mirrored:
        sample_to_crop[0, 0] *= -1
    centre = np.array([x + width / 2, y + height / 2])
    linear = np.linalg.inv(_turn(jitter)) @ sample_to_crop
    middle = np.full(2, INPUT_SIZE / 2)
    offset = centre - 0.5 - linear @ (middle - 0.5)
    return np.column_stack([linear, offset])


def vector_matrix(mirrored: bool, jitter: Jitter) -> Float64:
    """Return what x and y of flow turn into with the picture, (2, 2); x is to the right, y down."""
    turn = _turn(jitter)
    return np.diag([-1.0, 1.0]) @ turn if mirrored else turn


def _turn(jitter: Jitter) -> Float64:
    """Return how points of the plane move, (2, 2)."""
    angle = math.radians(jitter.angle)
    along, across = jitter.scale * math.cos(angle), jitter.scale * math.sin(angle)
    return np.array([[along, across], [-across, along]])
