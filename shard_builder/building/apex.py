"""Which frame of a sequence is the strongest: by a rule, or by how far the face has moved."""

from __future__ import annotations

import cv2
import numpy as np

from shard_builder.building.flow import DIS_LEAST_PX, make_flow_estimator
from shard_builder.errors import SourceError, counted
from shard_builder.format.levels import Flow
from shard_builder.images import Image
from shard_builder.sources.sequence import FaceSequence

MOST_SIDE_PX = 320
"""Of the pictures that motion from the first frame is found on."""
SMOOTHING = np.array([0.054, 0.244, 0.404, 0.244, 0.054])
"""Over frames: a Gaussian of deviation 1."""
NEAR_MOST, SAME_PEAK = 0.85, 0.7
"""Parts of the farthest distance: the apex is the middle of the frames above the first, as far as
none between is below the second."""
RETURNS_BELOW = 0.5
"""Motion that ends nearer to the first frame than this part of the farthest has returned."""
LEAST_PX = 0.1
"""Of the farthest frame's distance: less is noise."""


def named_apex(sequence: FaceSequence, rule: str) -> int | None:
    """Return the apex by its place among the frames kept, from 0, as far as it is named: by the
    source, else by the rule as a number.
    """
    if sequence.apex is not None:
        return sequence.apex - (sequence.onset or 0)
    return int(rule) if rule.isdigit() else None


def check_apex(sequence: FaceSequence, apex: int, num_frames: int) -> None:
    """Make sure that an apex is among the frames that a sequence has.

    Raises:
        SourceError: If it is not.
    """
    if apex >= num_frames:
        what = f"apex={apex}" if sequence.apex is None else f"apex {sequence.apex}"
        raise SourceError(
            f"{sequence.place or sequence.source}: {what}, but only {counted(num_frames, 'frame')}"
            " can be read"
        )


class MotionFromFirst:
    """How far each frame of a sequence is from the first one, and so which is the apex.

    The flow is that from the first frame straight to each other one: what is summed from frame to
    frame drifts. What all points have in common, the motion of head or camera, does not count.

    Attributes:
        distances: Mean length of the flow over the picture, in its pixels; a mean, because a few
            points whose flow is wrong are far off.
    """

    def __init__(self) -> None:
        self.distances: list[float] = []
        self._estimate = make_flow_estimator("dis")
        self._first: Image | None = None

    def add(self, gray: Image) -> None:
        """Add the next frame, ``uint8`` (H, W)."""
        scale = min(1.0, MOST_SIDE_PX / max(gray.shape))
        height, width = (max(DIS_LEAST_PX, round(side * scale)) for side in gray.shape)
        small: Image = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
        if self._first is None:
            self._first = small
        self.distances.append(_own_distance(self._estimate(self._first, small)))

    @property
    def apex(self) -> int:
        """The frame farthest from the first, from 0; the middle one of a peak that is held."""
        padded = np.pad(self.distances, len(SMOOTHING) // 2, mode="edge")
        distances = np.convolve(padded, SMOOTHING, mode="valid")
        most = int(distances.argmax())
        if not distances[most]:
            return len(distances) - 1
        first = last = most
        while first > 0 and distances[first - 1] >= SAME_PEAK * distances[most]:
            first -= 1
        while last < len(distances) - 1 and distances[last + 1] >= SAME_PEAK * distances[most]:
            last += 1
        near = first + np.flatnonzero(distances[first : last + 1] >= NEAR_MOST * distances[most])
        return int(near[0] + near[-1]) // 2

    @property
    def returns(self) -> bool:
        """Whether the last frame is nearer to the first than half of the farthest."""
        farthest = max(self.distances)
        return farthest >= LEAST_PX and self.distances[-1] < RETURNS_BELOW * farthest


def _own_distance(flow: Flow) -> float:
    own = flow - np.median(flow, axis=(0, 1))
    return float(np.linalg.norm(own, axis=-1).mean())
