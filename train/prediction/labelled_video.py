"""A video written again with the predicted label in its frames."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import cv2

from shard_builder.errors import InputError
from shard_builder.files import temporary_folder
from shard_builder.images import Image
from train.prediction.figures import draw_label
from train.prediction.window_predictor import WindowPrediction


class LabelledVideo:
    """Writes frames with the label of the window that covers them, through a context manager.

    At most the frames of one window are held back. The file appears whole or not at all.

    Args:
        path: The video (.mp4); None writes nothing.
        fps: Frames per second.
        class_names: Names in label order.

    Raises:
        InputError: If the name ends in something else.
    """

    def __init__(self, path: Path | None, *, fps: float, class_names: tuple[str, ...]) -> None:
        if path is not None and path.suffix.lower() != ".mp4":
            raise InputError(f"overlay={str(path)!r}, expected a file name that ends in .mp4")
        self._path, self._fps, self._class_names = path, fps, class_names
        self._waiting: list[tuple[Image, int]] = []
        self._num_shown = 0
        self._video: cv2.VideoWriter | None = None
        self._open_folders = ExitStack()
        self._partial = Path()

    def __enter__(self) -> LabelledVideo:
        return self

    def add(
        self,
        frame: Image,
        window: WindowPrediction | None,
        *,
        time_s: float,
        is_faceless: bool = False,
    ) -> None:
        """Take a frame; when its window is known, write all frames that waited for it.

        Where a window has no face, they are written without a label.

        The video has a constant rate: a frame that comes later than it says stands for those that
        are missing before it, one that comes too early is left out.
        """
        if self._path is None:
            return
        num_due = round(time_s * self._fps) + 1 - self._num_shown
        self._waiting.append((frame, max(0, num_due)))
        self._num_shown += max(0, num_due)
        if window is not None or is_faceless:
            probs, face = (window.decision, window.face) if window else (None, None)
            for waiting, times in self._waiting:
                image = draw_label(waiting, probs, class_names=self._class_names, face=face)
                self._video = self._video or self._open(self._path, image)
                for _ in range(times):
                    self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self._waiting = []

    def _open(self, path: Path, image: Image) -> cv2.VideoWriter:
        path.parent.mkdir(parents=True, exist_ok=True)
        # OpenCV opens files by name: in a folder that nobody else knows.
        folder = self._open_folders.enter_context(temporary_folder(path.parent, path.stem))
        self._partial = folder / "video.mp4"
        size = (image.shape[1], image.shape[0])
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(self._partial), codec, self._fps, size)
        if not video.isOpened():
            raise InputError(f"{path}: cannot be written, expected a folder that is writable")
        return video

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open_folders:
            if self._video is None or self._path is None:
                return
            self._video.release()
            if kind is None:
                self._partial.replace(self._path)
