"""What real copies of CK+ look like, and what broken ones look like: put onto a drawn release."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2

COUNTER_HEIGHT = 0.035
"""Height of the burnt-in counter's digits, as part of the picture's."""


def add_quirks(images: Path, labels: Path) -> None:
    """Make a release as untidy as copies in the wild, without a fault in it.

    A frame counter burnt into the lower edge of every picture, an unlabelled sequence with an empty
    label folder, ``.DS_Store`` and ``Thumbs.db`` in between, labels without blanks, and the images
    one folder deeper.

    Args:
        images: Folder of the subjects' images.
        labels: Folder of their emotion labels.
    """
    for path in sorted(images.rglob("*.png")):
        _burn_counter(path)
    subject = min(path for path in images.iterdir() if path.is_dir())
    session = min(subject.iterdir())
    unlabelled = subject / "099"
    shutil.copytree(session, unlabelled)
    for path in unlabelled.iterdir():
        path.rename(path.with_name(path.name.replace(f"_{session.name}_", "_099_")))
    (labels / subject.name / "099").mkdir()
    for folder in (images, subject, session, labels, labels / subject.name / session.name):
        (folder / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (session / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    for number, path in enumerate(sorted(labels.rglob("*_emotion.txt"))):
        if number % 5 == 0:
            path.write_text(f"{float(path.read_text()):.0f}\r\n")
    deeper = images / images.name
    deeper.mkdir()
    for path in sorted(images.iterdir()):
        if path != deeper:
            path.rename(deeper / path.name)


def break_release(name: str, images: Path, labels: Path) -> None:
    """Put one fault into the first sequence of a release.

    Args:
        name: A key of ``FAULTS``.
        images: Folder of the subjects' images.
        labels: Folder of their emotion labels.
    """
    session = min(path.parent for path in images.rglob("*.png"))
    frames = sorted(session.glob("*.png"))
    label = next((labels / session.parent.name / session.name).glob("*_emotion.txt"))
    FAULTS[name](frames, label)


def _burn_counter(path: Path) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    height = image.shape[0]
    scale = COUNTER_HEIGHT * height / 22  # cv2's font is 22 pixels high at scale 1
    text = f"00:00:{int(path.stem[-8:]):02d}:00"
    color = (235,) * (1 if image.ndim == 2 else 3)
    cv2.putText(
        image, text, (4, height - 4), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA
    )
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _gap(frames: list[Path], _label: Path) -> None:
    frames[2].unlink()


def _starts_at_two(frames: list[Path], _label: Path) -> None:
    frames[0].unlink()


def _one_frame(frames: list[Path], label: Path) -> None:
    for path in frames[1:]:
        path.unlink()
    label.rename(label.with_name(frames[0].stem + "_emotion.txt"))


def _label_nine(_frames: list[Path], label: Path) -> None:
    label.write_text("   9.0000000e+00\n")


def _label_text(_frames: list[Path], label: Path) -> None:
    label.write_text("happy\n")


def _two_labels(frames: list[Path], label: Path) -> None:
    label.with_name(frames[1].stem + "_emotion.txt").write_text("   1.0000000e+00\n")


def _label_without_images(frames: list[Path], _label: Path) -> None:
    for path in frames:
        path.unlink()


def _truncated_png(frames: list[Path], _label: Path) -> None:
    frames[1].write_bytes(frames[1].read_bytes()[:1000])


def _other_size(frames: list[Path], _label: Path) -> None:
    image = cv2.imread(str(frames[1]), cv2.IMREAD_UNCHANGED)
    assert image is not None
    cv2.imwrite(str(frames[1]), image[:-10])


FAULTS: dict[str, Callable[[list[Path], Path], None]] = {
    "gap": _gap,
    "starts-at-two": _starts_at_two,
    "one-frame": _one_frame,
    "label-nine": _label_nine,
    "label-text": _label_text,
    "two-labels": _two_labels,
    "label-without-images": _label_without_images,
    "truncated-png": _truncated_png,
    "other-size": _other_size,
}
