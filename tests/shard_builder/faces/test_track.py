"""One face of many detections: missed and wrong ones, several faces, motion. Without a model."""

from __future__ import annotations

import numpy as np
import pytest

from shard_builder.faces.track import Boxes, find_face

SIZE = {"width": 640, "height": 480}
NOTHING = np.empty((0, 4))


def square(x: float, y: float, side: float) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def frames_of(*faces: list[float], num_frames: int = 20, jitter_px: float = 1.5) -> list[Boxes]:
    """The faces in every frame, each edge a little off."""
    rng = np.random.default_rng(3)
    still = np.array(faces)
    return [still + rng.uniform(-jitter_px, jitter_px, still.shape) for _ in range(num_frames)]


def test_missed_and_wrong_detections_do_not_move_the_box() -> None:
    face = square(300, 200, 120)
    detections = frames_of(face)
    for number in range(0, 20, 3):
        detections[number] = NOTHING
    detections[4] = np.array([square(330, 230, 200)])  # over the face, and much too large
    detections[5] = np.array([square(90, 400, 300)])  # elsewhere
    detections[7] = np.vstack([detections[7], square(600, 60, 290)])
    box = find_face(detections, **SIZE)
    assert box is not None and np.abs(box - face).max() < 1.5


def test_a_face_must_persist() -> None:
    assert find_face([], **SIZE) is None
    assert find_face([NOTHING] * 9, **SIZE) is None
    rare = [NOTHING] * 17 + [np.array([square(300, 200, 120)])] * 3
    assert find_face(rare, **SIZE) is None
    assert find_face(rare[7:], **SIZE) is None
    assert find_face(rare[8:], **SIZE) is not None, "a quarter of the frames"


def test_it_is_found_while_it_moves_and_where_it_is_most() -> None:
    moving = [np.array([square(100 + 10 * n, 240, 100)]) for n in range(21)]
    box = find_face(moving, **SIZE)
    assert box is not None and np.allclose(box, square(200, 240, 100))


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_faces_the_largest_then_the_most_central_is_meant(order: int) -> None:
    small, large = square(320, 240, 60), square(120, 120, 160)
    box = find_face(frames_of(*[small, large][::order]), **SIZE)
    assert box is not None and np.abs(box - large).max() < 1.5
    aside, central = square(80, 240, 110), square(340, 240, 100)
    box = find_face(frames_of(*[aside, central][::order]), **SIZE)
    assert box is not None and np.abs(box - central).max() < 1.5


def test_a_large_face_that_passes_by_is_not_meant() -> None:
    detections = frames_of(square(320, 240, 80))
    for number in range(6):
        detections[number] = np.vstack([detections[number], square(100 + 5 * number, 240, 200)])
    box = find_face(detections, **SIZE)
    assert box is not None and np.abs(box - square(320, 240, 80)).max() < 1.5


def test_the_face_that_was_followed_stays_the_one_meant() -> None:
    followed, larger = square(320, 240, 60), square(120, 120, 160)
    detections = frames_of(followed, larger)
    box = find_face(detections, **SIZE, near=np.array(square(330, 250, 60)))
    assert box is not None and np.abs(box - followed).max() < 1.5
    box = find_face(detections, **SIZE, near=np.array(square(560, 400, 60)))
    assert box is not None and np.abs(box - larger).max() < 1.5, "it has gone"
