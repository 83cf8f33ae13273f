"""What a dataset's two streams are called, and which frames the rgb stream keeps."""

from __future__ import annotations

from typing import Literal

StreamName = Literal["rgb", "flow"]
STREAMS: tuple[StreamName, ...] = ("rgb", "flow")
FrameChoice = Literal["all", "last", "last3"]
NUM_LAST_FRAMES = {"last": 1, "last3": 3}
"""How many frames of its end a sequence keeps; ``all`` is not in it."""
