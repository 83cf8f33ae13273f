"""A CK+-shaped release written by hand: small pictures of anything, every quirk on demand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

IMAGES = "cohn-kanade-images"
LABELS = "Emotion"


def picture(number: int, *, width: int = 64, height: int = 48, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(number)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return cv2.GaussianBlur(generator.integers(0, 256, shape, np.uint8), (0, 0), 2)


def write_sequence(
    root: Path,
    key: str,
    *,
    num_frames: int = 6,
    emotion: str | None = "   3.0000000e+00\n",
    images: str = IMAGES,
    labels: str = LABELS,
    channels: int = 1,
    first: int = 1,
) -> tuple[Path, Path]:
    """Write one sequence; return its image folder and its label folder."""
    subject, session = key.split("_")
    image_dir, label_dir = root / images / subject / session, root / labels / subject / session
    image_dir.mkdir(parents=True)
    label_dir.mkdir(parents=True)
    for number in range(first, first + num_frames):
        cv2.imwrite(str(image_dir / f"{key}_{number:08d}.png"), picture(number, channels=channels))
    if emotion is not None:
        (label_dir / f"{key}_{first + num_frames - 1:08d}_emotion.txt").write_text(emotion)
    return image_dir, label_dir


def write_small_release(root: Path, *, num_subjects: int = 3, **options: object) -> Path:
    """Write a few good sequences, two a subject."""
    for subject in range(1, num_subjects + 1):
        for session, emotion in ((1, "   1.0000000e+00\n"), (2, "7")):
            write_sequence(root, f"S{subject:03d}_{session:03d}", emotion=emotion, **options)  # type: ignore[arg-type]
    return root
