"""One face box a sequence, and CK+'s 68-point landmark files to make it of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shard_builder.errors import SourceError
from shard_builder.faces.track import Boxes
from shard_builder.format.crop import CropSettings
from shard_builder.images import Image
from shard_builder.lists import read_lines
from shard_builder.sources.sequence import FaceSequence

NUM_LANDMARKS = 68
LANDMARKS_CENTER, LANDMARKS_SIDE = 0.6, 1.02
"""Where the square of the landmarks, brows to chin, lies in a detector's box, forehead to chin:
its center as part of the height, its side as part of the width; measured on drawn faces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in pixels; right and bottom are exclusive and may lie outside the image."""

    left: int
    top: int
    right: int
    bottom: int


def read_landmarks(path: Path) -> npt.NDArray[np.float64]:
    """Read a 68-point file: 68 lines ``x y``.

    Returns:
        ``float64`` array of shape (68, 2), x then y, in pixels.

    Raises:
        SourceError: If it holds anything else.
    """
    try:
        lines = [line.split() for line in read_lines(path) if line.strip()]
        points = np.array([[float(number) for number in line] for line in lines])
    except ValueError as error:
        raise SourceError(f"{path}: landmarks cannot be read ({error})") from None
    if points.shape != (NUM_LANDMARKS, 2) or not np.isfinite(points).all():
        raise SourceError(
            f"{path}: landmarks of shape {points.shape}, expected {NUM_LANDMARKS} lines of x and y"
        )
    return points


def landmark_box(sequence: FaceSequence, *, margin: float) -> Box:
    """Return one square box that holds the landmarks of all frames of a sequence.

    One box, because a box of each frame would add its own motion to the flow.

    Args:
        sequence: A sequence with landmark files.
        margin: Part of the box's size added on each side.

    Raises:
        SourceError: If the sequence has no landmark file for each frame.
    """
    if not sequence.landmarks:
        raise SourceError(
            f"{sequence.frames[0].parent}: no landmark file for each frame of {sequence.key},"
            " expected by crop='landmarks'\n"
            "  Unpack Landmarks.zip into the release, or use crop='faces' or crop='none'."
        )
    points = np.concatenate([read_landmarks(path) for path in sequence.landmarks])
    return square_box(np.concatenate([points.min(axis=0), points.max(axis=0)]), margin=margin)


def square_box(edges: Boxes, *, margin: float) -> Box:
    """Return the square around a face's box (left, top, right, bottom), grown by a margin."""
    low, high = edges[:2], edges[2:]
    center = (low + high) / 2
    half = float((high - low).max()) * (0.5 + margin)
    left, top = (round(float(value)) for value in center - half)
    size = round(2 * half)
    return Box(left=left, top=top, right=left + size, bottom=top + size)


def detected_box(face: Boxes, crop: CropSettings) -> Box:
    """Return the box of a crop around a face that a detector found, whichever method made it."""
    if crop.method == "landmarks":
        left, top, right, bottom = face
        center = np.array([(left + right) / 2, top + LANDMARKS_CENTER * (bottom - top)])
        half = LANDMARKS_SIDE * (right - left) / 2
        face = np.concatenate([center - half, center + half])
    return square_box(face, margin=crop.margin)


def crop_image(image: Image, box: Box) -> Image:
    """Cut a box out of an image (H, W, ...); what lies outside repeats the border."""
    height, width = image.shape[:2]
    rows = np.clip(np.arange(box.top, box.bottom), 0, height - 1)
    columns = np.clip(np.arange(box.left, box.right), 0, width - 1)
    return np.ascontiguousarray(image[rows[:, None], columns])
