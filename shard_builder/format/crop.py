"""How a dataset's frames were cut to the face, as its manifest and checkpoints say it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean

PATTERN = re.compile(
    r"(landmarks|faces), margin (\d+(?:\.\d+)?)(?:, face model sha256 ([0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSettings:
    """A face crop; ``str()`` of it is its name in the manifest.

    Args:
        method: ``landmarks`` (the source's own points) or ``faces`` (a detector's boxes).
        margin: Part of the box's size added on each side.
        model_sha256: Of the detector's model, of ``faces``.
    """

    method: str
    margin: float
    model_sha256: str = ""

    def __str__(self) -> str:
        model = f", face model sha256 {self.model_sha256}" if self.model_sha256 else ""
        return f"{self.method}, margin {self.margin}{model}"


def parse_crop(text: str, *, place: str) -> CropSettings | None:
    """Parse what a manifest says of its crop; None for ``none``.

    Raises:
        InputError: If it is anything else.

    >>> parse_crop("landmarks, margin 0.2", place="run")
    CropSettings(method='landmarks', margin=0.2, model_sha256='')
    """
    if text == "none":
        return None
    match = PATTERN.fullmatch(text)
    if match is None or float(match[2]) > 2:
        raise InputError(
            f"{place}: crop {clean(text)!r}, expected none, or landmarks or faces with a margin"
        )
    return CropSettings(method=match[1], margin=float(match[2]), model_sha256=match[3] or "")
