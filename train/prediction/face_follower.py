"""The face that is followed through frames, for nets that were trained on face crops."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from shard_builder.errors import InputError, counted
from shard_builder.faces.detector import FaceDetector
from shard_builder.faces.model import FaceModel, load_face_model
from shard_builder.faces.track import LEAST_FRACTION, Boxes, find_face
from shard_builder.faces.trial import try_face_model
from shard_builder.format.crop import parse_crop
from shard_builder.images import Image
from train.prediction.stream_model import StreamModel


class FaceFollower:
    """Finds the face of a window from the detections of its frames, and stays with it.

    Args:
        model: The detector's model.
        num_frames: Frames of a window.

    Attributes:
        num_frames: Frames seen.
        num_faceless: Those in which no face was found.
        num_crowded: Those in which several were.
    """

    def __init__(self, model: FaceModel, *, num_frames: int) -> None:
        self._detector = FaceDetector(model)
        self._recent: deque[Boxes] = deque(maxlen=num_frames)
        self._size = {"width": 0, "height": 0}
        self._face: Boxes | None = None
        self.num_frames = self.num_faceless = self.num_crowded = 0

    def add(self, frame: Image) -> None:
        """Look at the next frame, RGB ``uint8`` (H, W, 3)."""
        faces = self._detector.detect(frame)
        self._recent.append(faces)
        self._size = {"width": frame.shape[1], "height": frame.shape[0]}
        self.num_frames += 1
        self.num_faceless += not len(faces)
        self.num_crowded += len(faces) > 1

    def locate(self) -> Boxes | None:
        """Return where the face is in the last frames, as in a build: the median of its boxes.

        Where none is found, it is where it was before.

        Returns:
            Left, top, right, bottom in pixels, ``float64`` (4,); None as long as there was none.
        """
        found = find_face(self._recent, near=self._face, **self._size)
        if found is not None:
            self._face = found
        return self._face


def face_model_of(models: Sequence[StreamModel], path: Path | None) -> FaceModel | None:
    """Return the face detector's model if a net needs it.

    Raises:
        InputError: If a file is named and no net needs it, or it cannot be read.
    """
    crops = [crop for model in models if (crop := parse_crop(model.crop, place=str(model.run)))]
    if not crops:
        if path is not None:
            raise InputError(f"face_model={str(path)!r}, but no net here was trained on face crops")
        return None
    try_face_model(model := load_face_model(path))
    return model


def face_notices(
    models: Sequence[StreamModel], face_model: FaceModel | None, follower: FaceFollower | None
) -> Iterator[str]:
    """Say where the frames were cut otherwise than in training, or another face may be meant."""
    if face_model is None or follower is None:
        return
    if follower.num_faceless:
        yield (
            f"no face was found in {follower.num_faceless} of"
            f" {counted(follower.num_frames, 'frame')}; it is taken to be where it was before, and"
            " nothing is predicted before the first"
        )
    if follower.num_crowded >= LEAST_FRACTION * follower.num_frames:
        yield (
            f"several faces were found in {follower.num_crowded} of"
            f" {counted(follower.num_frames, 'frame')}; the largest is meant, of several about as"
            " large the most central one"
        )
    for model in models:
        crop = parse_crop(model.crop, place=str(model.run))
        if crop and crop.model_sha256 not in ("", face_model.sha256):
            yield (
                f"the {model.stream} net was trained on crops of another face model (sha256"
                f" {crop.model_sha256}), {face_model.path} has {face_model.sha256}"
            )
