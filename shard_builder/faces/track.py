"""Which face of many frames is meant, and where it is: one box from all detections."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]
"""Left, top, right, bottom in pixels: (n, 4), or (4,) of one box."""
SAME_FACE = 0.2
"""Least overlap (intersection over union) of a face's boxes from one time it is seen to the next;
low, because a head moves and few frames may be taken a second."""
LEAST_FRACTION = 0.25
"""Of the frames, in which a face that persists is found: heads turn away, hands cover."""
AS_LARGE = 0.8
"""Side against the largest face's, from which the most central one is taken."""


def find_face(
    detections: Collection[Boxes], *, width: int, height: int, near: Boxes | None = None
) -> Boxes | None:
    """Return the box of the face that is meant: the median of its boxes in all frames.

    Boxes of consecutive frames that overlap are those of one face; frames without one are left out.
    A face persists if it is found in a quarter of the frames, and in half as many as the one found
    most often: so a wrong detection in some frames is none. Of those that persist the largest is
    meant; if several are about as large, the most central one.

    Args:
        detections: The faces (n, 4) of each frame.
        width: Of the frames, in pixels.
        height: Of the frames.
        near: Where it was before: the face there is meant, if it persists.

    Returns:
        Left, top, right, bottom, ``float64`` (4,); None if no face persists.
    """
    faces = link_faces(detections)
    most = max(map(len, faces), default=0)
    least = max(1, LEAST_FRACTION * len(detections), most / 2)
    boxes = np.array([np.median(face, axis=0) for face in faces if len(face) >= least])
    if not len(boxes):
        return None
    if near is not None:
        overlaps = overlap(near[None], boxes)[0]
        if overlaps.max() >= SAME_FACE:
            return boxes[overlaps.argmax()]  # type: ignore[no-any-return]
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = np.hypot(*(centers - (width / 2, height / 2)).T)
    distances[sides < AS_LARGE * sides.max()] = np.inf
    return boxes[distances.argmin()]  # type: ignore[no-any-return]


def link_faces(detections: Iterable[Boxes]) -> list[Boxes]:
    """Sort the boxes of all frames by face.

    Returns:
        For each face its boxes in order, (n, 4), one for each frame that it was found in.
    """
    faces: list[list[Boxes]] = []
    last = np.empty((0, 4))
    for boxes in detections:
        left_over = set(range(len(boxes)))
        overlaps = overlap(last, boxes)
        while overlaps.size and overlaps.max() >= SAME_FACE:
            face, number = map(int, np.unravel_index(overlaps.argmax(), overlaps.shape))
            faces[face].append(boxes[number])
            last[face] = boxes[number]
            left_over.discard(number)
            overlaps[face], overlaps[:, number] = 0, 0
        for other in sorted(left_over):
            faces.append([boxes[other]])
            last = np.concatenate([last, boxes[other][None]])
    return [np.array(face) for face in faces]


def overlap(ones: Boxes, others: Boxes) -> Boxes:
    """Return intersection over union of boxes (n, 4) with boxes (m, 4), as (n, m)."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (ones, others)]
    whole: Boxes = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
    return whole
