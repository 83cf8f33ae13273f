"""Faces in a frame: OpenCV's FaceDetectorYN on pictures of a bounded size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from shard_builder.errors import InputError
from shard_builder.faces.model import MODEL_NAME, FaceModel
from shard_builder.faces.track import Boxes
from shard_builder.images import Image

SCORE, OVERLAP, MOST_FACES = 0.6, 0.3, 50
SILENT = 0
"""OpenCV's log level that says nothing."""
LEAST_SIDE_PX = 160
"""Smaller pictures are enlarged: a face that fills one is found more surely."""
SIDES_PX = (320, 640, 1280)
"""Longer side of what is looked at: YuNet is trained on faces of 10 to 300 pixels. The next one is
tried where nothing is found, so small faces in large frames cost time only where they are."""


class FaceDetector:
    """Finds the faces of frames.

    Args:
        model: The model of a ``cv2.FaceDetectorYN``.

    Raises:
        InputError: If OpenCV cannot use it.
    """

    def __init__(self, model: FaceModel) -> None:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(SILENT)  # OpenCV 5 warns of every net, and of bad ones
        try:
            self._net = cv2.FaceDetectorYN.create(
                "onnx",
                np.frombuffer(model.data, np.uint8),
                np.empty(0, np.uint8),
                (SIDES_PX[0], SIDES_PX[0]),
                SCORE,
                OVERLAP,
                MOST_FACES,
            )
            self.detect(np.zeros((LEAST_SIDE_PX, LEAST_SIDE_PX, 3), np.uint8))
        except (cv2.error, ValueError, IndexError) as error:
            raise not_usable(model) from error
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, image: Image) -> Boxes:
        """Return the faces of an RGB image (H, W, 3), ``float64`` (n, 4): left, top, right, bottom
        in its pixels; a box may reach beyond the image.
        """
        own = max(image.shape[:2])
        first = min(max(own, LEAST_SIDE_PX), SIDES_PX[0])
        boxes = self.detect_at(image, first)
        for side in SIDES_PX:
            if len(boxes) or side >= 2 * own:
                break
            if side > first:
                boxes = self.detect_at(image, side)
        return boxes

    def detect_at(self, image: Image, side: int) -> Boxes:
        """Do so with the longer side scaled to so many pixels."""
        height, width = image.shape[:2]
        factor = side / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = cv2.cvtColor(cv2.resize(image, size, interpolation=method), cv2.COLOR_RGB2BGR)
        self._net.setInputSize(size)
        found: Any = self._net.detect(small)[1]  # None where there is no face
        if found is None:
            return np.empty((0, 4))
        boxes = np.asarray(found[np.isfinite(found[:, :4]).all(axis=1), :4], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        boxes /= np.array([size[0] / width, size[1] / height] * 2)
        return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def not_usable(model: FaceModel) -> InputError:
    """Return the error that says so of a model."""
    return InputError(
        f"{model.path}: OpenCV {cv2.__version__} cannot use it as a face detector,"
        f" expected a YuNet model such as {MODEL_NAME}"
    )
