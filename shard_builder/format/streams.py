"""The two streams of a dataset, and which frames and members of a sequence each keeps."""

from __future__ import annotations

from typing import Literal, get_args

StreamName = Literal["rgb", "flow"]
STREAMS: tuple[StreamName, ...] = get_args(StreamName)
Codec = Literal["jpg", "png", "raw"]
CODECS: tuple[Codec, ...] = get_args(Codec)
FrameChoice = Literal["all", "last", "last3"]
NUM_LAST_FRAMES = {"last": 1, "last3": 3}
"""How many frames of its end a sequence keeps; ``all`` is not in it."""


def num_stored_frames(frames: str | None, num_frames: int) -> int:
    """Return how many of a sequence's frames the rgb stream keeps under a frame choice."""
    return min(num_frames, NUM_LAST_FRAMES.get(frames or "all", num_frames))


def num_members(stream: str, *, codec: str, num_frames: int, frames: str | None = None) -> int:
    """Return how many members a sequence has; see :func:`member_extensions`."""
    if codec == "raw":
        return 1
    return num_frames - 1 if stream == "flow" else num_stored_frames(frames, num_frames)


def member_extensions(
    stream: str, *, codec: str, num_frames: int, frames: str | None = None
) -> list[str]:
    """Return the extensions of a sequence's frames or planes, in order; one npy with codec raw.

    Args:
        stream: ``rgb`` or ``flow``.
        codec: ``jpg``, ``png`` or ``raw``.
        num_frames: Frames of the sequence.
        frames: The rgb stream's frame choice.

    >>> member_extensions("rgb", codec="jpg", num_frames=9, frames="last3")
    ['rgb-006.jpg', 'rgb-007.jpg', 'rgb-008.jpg']
    """
    if codec == "raw":
        return [f"{stream}.npy"]
    if stream == "flow":
        numbers = range(num_frames - 1)
    else:
        numbers = range(num_frames - num_stored_frames(frames, num_frames), num_frames)
    digits = max(3, len(str(numbers[-1])))  # equally many, so that names sort as numbers do
    return [f"{stream}-{number:0{digits}d}.{codec}" for number in numbers]
