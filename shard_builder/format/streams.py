"""The two streams of a dataset, and which frames and members of a sequence each keeps."""

from __future__ import annotations

from typing import Literal, get_args

StreamName = Literal["rgb", "flow"]
STREAMS: tuple[StreamName, ...] = get_args(StreamName)
Codec = Literal["jpg", "png", "raw"]
FlowCodec = Literal["same", "jpg", "png", "raw", "lz4"]
"""``same`` is that of the frames. ``lz4`` is for flow alone: frames are full of noise, which hardly
shrinks."""
CODECS: tuple[Codec, ...] = get_args(Codec)
StoredCodec = Literal["jpg", "png", "raw", "lz4"]
IMAGE_CODECS = ("jpg", "png")
LOSSLESS_CODECS = ("png", "raw", "lz4")
FrameChoice = Literal["all", "last", "last3"]
NUM_LAST_FRAMES = {"last": 1, "last3": 3}
"""How many frames up to its apex a sequence keeps; ``all`` is not in it."""


def item_shape(stream: str, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of a stored item: a pair (2H, W), x above y, or a frame (H, W, 3)."""
    return (2 * height, width) if stream == "flow" else (height, width, 3)


def stored_frames(frames: str | None, *, num_frames: int, apex: int) -> range:
    """Return the numbers of a sequence's frames that the rgb stream keeps under a frame choice.

    >>> stored_frames("last3", num_frames=9, apex=5)
    range(3, 6)
    """
    keep = NUM_LAST_FRAMES.get(frames or "all")
    return range(num_frames) if keep is None else range(max(0, apex + 1 - keep), apex + 1)


def num_members(
    stream: str, *, codec: str, num_frames: int, apex: int, frames: str | None = None
) -> int:
    """Return how many members a sequence has; see :func:`member_extensions`."""
    if codec == "raw":
        return 1
    if stream == "flow":
        return num_frames - 1
    return len(stored_frames(frames, num_frames=num_frames, apex=apex))


def member_extensions(
    stream: str, *, codec: str, num_frames: int, apex: int, frames: str | None = None
) -> list[str]:
    """Return the extensions of a sequence's frames or planes, in order; one npy with codec raw.

    Args:
        stream: ``rgb`` or ``flow``.
        codec: ``jpg``, ``png``, ``raw`` or ``lz4``.
        num_frames: Frames of the sequence.
        apex: Its strongest frame, from 0.
        frames: The rgb stream's frame choice.

    >>> member_extensions("rgb", codec="jpg", num_frames=9, apex=5, frames="last3")
    ['rgb-003.jpg', 'rgb-004.jpg', 'rgb-005.jpg']
    """
    if codec == "raw":
        return [f"{stream}.npy"]
    if stream == "flow":
        numbers = range(num_frames - 1)
    else:
        numbers = stored_frames(frames, num_frames=num_frames, apex=apex)
    digits = max(3, len(str(numbers[-1])))  # equally many, so that names sort as numbers do
    return [f"{stream}-{number:0{digits}d}.{codec}" for number in numbers]
