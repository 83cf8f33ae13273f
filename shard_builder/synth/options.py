"""What a release is drawn with; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass

from shard_builder.checks import check_integer, check_number, option

MIN_FRAMES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOptions:
    """What a release is drawn with; the help text of each field says what it is.

    Raises:
        InputError: If a value is out of range.
    """

    num_subjects: int = option(
        30, "Number of subjects; each shows all seven emotions.", flag="--subjects"
    )
    image_scale: float = option(1.0, "Size of pictures and motion; 1 is CK+'s 640x490.")
    max_frames: int = option(71, "Longest sequence (CK+: 71).")
    seed: int = option(0, "Everything follows from it.")

    def __post_init__(self) -> None:
        check_integer("num_subjects", self.num_subjects, low=1, high=999)
        check_number("image_scale", self.image_scale, low=0.1, high=4)
        check_integer("max_frames", self.max_frames, low=MIN_FRAMES, high=999)
        check_integer("seed", self.seed, low=0, high=(1 << 63) - 1)
