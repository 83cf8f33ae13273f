"""The frames of a sequence that the rgb stream keeps, taken while it is being read."""

from __future__ import annotations

from shard_builder.building.apex import named_apex
from shard_builder.building.options import BuildOptions
from shard_builder.format.streams import NUM_LAST_FRAMES, stored_frames
from shard_builder.images import Image
from shard_builder.sources.sequence import FaceSequence


class KeptFrames:
    """The frames of a sequence that the rgb stream keeps, while it is not yet known how long it is.

    Attributes:
        apex: The apex, if it is named and all frames are taken; else it is known at the end.
        is_sliding: Whether the frames before the last are kept: then they are encoded at the end.
    """

    def __init__(self, sequence: FaceSequence, options: BuildOptions) -> None:
        named = named_apex(sequence, options.apex)
        is_whole = options.frame_step == 1 and options.fps is None
        self.apex = named if is_whole else None
        self._choice = options.frames
        self._keep = NUM_LAST_FRAMES.get(options.frames)
        is_last = named is None and options.apex == "last"
        self.is_sliding = self._keep is not None and is_last
        self._frames: list[Image | bytes] = []

    def takes(self, number: int) -> bool:
        """Whether frame ``number`` may be one of them."""
        if self.apex is None:
            return True
        return number in stored_frames(self._choice, num_frames=number + 1, apex=self.apex)

    def add(self, image: Image | bytes) -> None:
        """Add the next one that is taken."""
        self._frames.append(image)
        if self.is_sliding:
            assert self._keep is not None
            del self._frames[: -self._keep]

    def kept(self, num_frames: int, apex: int) -> list[Image | bytes]:
        """Return them, now that the sequence has ended."""
        if self.is_sliding or self.apex is not None:
            return self._frames
        stored = stored_frames(self._choice, num_frames=num_frames, apex=apex)
        return self._frames[stored.start : stored.stop]
