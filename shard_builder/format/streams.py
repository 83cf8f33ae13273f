"""The two streams of a dataset, and which frames and members of a sequence each keeps."""

from __future__ import annotations

from typing import Literal

StreamName = Literal["rgb", "flow"]
STREAMS: tuple[StreamName, ...] = ("rgb", "flow")
FrameChoice = Literal["all", "last", "last3"]
NUM_LAST_FRAMES = {"last": 1, "last3": 3}
"""How many frames of its end a sequence keeps; ``all`` is not in it."""


def num_stored_frames(frames: str | None, num_frames: int) -> int:
    """Return how many of a sequence's frames the rgb stream keeps under a frame choice."""
    return min(num_frames, NUM_LAST_FRAMES.get(frames or "all", num_frames))
