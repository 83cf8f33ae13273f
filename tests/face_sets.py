"""Sets of faces as they lie on disks: the names of real releases, drawn contents, a few clips each.

A frame's gray level is ten times its number in the clip plus ten, so that order can be read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import cv2
import numpy as np

FOURCC = {".mp4": "mp4v", ".avi": "MJPG", ".flv": "FLV1"}
NUM_FRAMES = 6


def frame(number: int) -> np.ndarray:
    picture = np.full((48, 64, 3), 10 + 10 * number, np.uint8)
    picture[10 + number : 20 + number, 20:40] += 60
    return picture


def write_video(path: Path, num_frames: int = NUM_FRAMES, fps: float = 25.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fourcc = cv2.VideoWriter.fourcc(*FOURCC[path.suffix])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, (64, 48))
    assert writer.isOpened(), path
    for number in range(num_frames):
        writer.write(frame(number))
    writer.release()


def write_images(paths: Iterable[Path]) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), frame(number))


def write_frames(folder: Path, name: str, first: int = 1, num_frames: int = NUM_FRAMES) -> None:
    """Write ``name.format(number)`` for the numbers from ``first`` on."""
    write_images(folder / name.format(number) for number in range(first, first + num_frames))


def write_text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


Expected = set[tuple[str, str, str, str]]
"""(path, label, subject, fold) of each clip; an empty text where the set does not say."""


def ck48(root: Path) -> Expected:
    expected: Expected = set()
    for subject, label in product(("S010", "S011"), ("anger", "happy")):
        for number in (15, 16, 17):
            name = f"CK+48/{label}/{subject}_004_{number:08d}.png"
            write_images([root / name])
            expected.add((name, label, subject, ""))
    return expected


def ravdess(root: Path) -> Expected:
    expected: Expected = set()
    for actor in ("01", "02"):
        for code, label in (("03", "happy"), ("05", "angry")):
            for modality in ("01", "02"):
                name = f"Actor_{actor}/{modality}-01-{code}-01-02-01-{actor}.mp4"
                write_video(root / name)
            expected.add((name, label, actor, ""))
    return expected


def cremad(root: Path) -> Expected:
    expected: Expected = set()
    for actor in ("1001", "1002"):
        for label in ("ANG", "HAP"):
            name = f"VideoFlash/{actor}_DFA_{label}_XX.flv"
            write_video(root / name)
            expected.add((name, label, actor, ""))
    return expected


def oulu(root: Path) -> Expected:
    expected: Expected = set()
    for light in ("Dark", "Strong"):
        for subject in ("P001", "P002"):
            for label in ("Anger", "Surprise"):
                name = f"OriginalImg/VL/{light}/{subject}/{label}"
                write_frames(root / name, "{:03d}.jpeg", first=0)
                expected.add((name, label, subject, ""))
    return expected


def casme2(root: Path) -> Expected:
    """Two subjects have clips of one name; the sheet names subjects without a leading zero."""
    lines = ["Subject,Filename,,OnsetFrame,ApexFrame,OffsetFrame,,Action Units,Estimated Emotion"]
    expected: Expected = set()
    for subject, clip, label in (
        (1, "EP02_01f", "happiness"),
        (2, "EP02_01f", "others"),
        (1, "EP03_02", "others"),
        (2, "EP19_05f", "happiness"),
    ):
        name = f"Cropped/sub{subject:02d}/{clip}"
        write_frames(root / name, "reg_img{}.jpg", first=98)
        apex = "/" if clip == "EP03_02" else 100
        lines.append(f"{subject},{clip},,98,{apex},103,,12,{label}")
        expected.add((name, label, str(subject), ""))
    write_text(root / "CODING.csv", lines)
    return expected


def smic(root: Path) -> Expected:
    expected: Expected = set()
    for subject in ("s01", "s02"):
        for label in ("negative", "positive"):
            name = f"HS/{subject}/micro/{label}/{subject}_{label[:2]}_01"
            write_frames(root / name, "reg_image{:06d}.bmp", first=33290)
            expected.add((name, label, subject, ""))
    return expected


def mead(root: Path) -> Expected:
    expected: Expected = set()
    for subject in ("M003", "W009"):
        for label in ("angry", "happy"):
            for view in ("front", "left_30"):
                write_video(root / f"{subject}/video/{view}/{label}/level_1/001.mp4")
            expected.add((f"{subject}/video/front/{label}/level_1/001.mp4", label, subject, ""))
    return expected


def enterface(root: Path) -> Expected:
    expected: Expected = set()
    for subject, between in (("1", "sentence 1/"), ("6", "")):
        for label in ("anger", "surprise"):
            name = f"enterface database/subject {subject}/{label}/{between}s{subject}_x_1.avi"
            write_video(root / name)
            expected.add((name, label, subject, ""))
    return expected


def afew(root: Path) -> Expected:
    expected: Expected = set()
    for part in ("Train", "Val"):
        for label in ("Angry", "Happy"):
            name = f"{part}_AFEW/{label}/00004628{len(part)}.avi"
            write_video(root / name)
            expected.add((name, label, "", part))
    return expected


def dfew(root: Path) -> Expected:
    expected: Expected = set()
    label_of = {1: 1, 2: 4, 3: 1, 4: 4}
    for clip, code in label_of.items():
        name = f"data_affine/single_label/data/{clip:05d}"
        write_frames(root / name, f"{clip:05d}_{{:05d}}.jpg")
        expected.add((name, str(code), "", str(1 + (clip - 1) // 2)))
    for fold in (1, 2):
        for part in ("train", "test"):
            clips = [c for c in label_of if (1 + (c - 1) // 2 == fold) == (part == "test")]
            write_text(
                root / "data_affine/single_label/label" / f"single_{part}set_{fold}.csv",
                ["video_name,label", *(f"{clip},{label_of[clip]}" for clip in clips)],
            )
    return expected


def ferv39k(root: Path) -> Expected:
    expected: Expected = set()
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number, part in ((267, "train"), (268, "test")):
        for label in ("Happy", "Sad"):
            name = f"Action/{label}/{number:04d}"
            write_frames(root / "2_ClipsforFaceCrop" / name, f"{number}{{:02d}}.jpg")
            lines[part].append(f"{name} {label}")
            expected.add((f"2_ClipsforFaceCrop/{name}", label, "", part))
    for part in lines:
        write_text(root / f"{part}_All.csv", lines[part])
    return expected


def jaffe(root: Path) -> Expected:
    expected: Expected = set()
    for subject, first in (("KA", 39), ("YM", 10)):
        for number, label in enumerate(("AN", "AN", "HA", "HA")):
            name = f"jaffe/{subject}.{label}{1 + number % 2}.{first + number}.tiff"
            write_images([root / name])
            expected.add((name, label, subject, ""))
    return expected


def rafdb(root: Path) -> Expected:
    expected: Expected = set()
    lines = []
    for number, (part, code) in enumerate((("train", 1), ("train", 4), ("test", 1), ("test", 4))):
        name = f"Image/aligned/{part}_{number + 1:05d}_aligned.jpg"
        write_images([root / name])
        lines.append(f"{part}_{number + 1:05d}.jpg {code}")
        expected.add((name, str(code), "", part))
    write_text(root / "EmoLabel/list_patition_label.txt", lines)
    return expected


def mmaction(root: Path) -> Expected:
    expected: Expected = set()
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for number, part in ((1, "train"), (2, "val")):
        for code, label in enumerate(("anger", "happy")):
            name = f"{label}/p{number:02d}_{label}"
            write_frames(root / "rawframes" / name, "img_{:05d}.jpg")
            lines[part].append(f"{name} {NUM_FRAMES} {code}")
            expected.add((f"rawframes/{name}", label, "", part))
    for part in lines:
        write_text(root / f"{part}_rawframes.txt", lines[part])
    return expected


SETS: dict[str, Callable[[Path], Expected]] = {
    "CK+48": ck48,
    "RAVDESS": ravdess,
    "CREMA-D": cremad,
    "Oulu-CASIA": oulu,
    "CASME II": casme2,
    "SMIC": smic,
    "MEAD": mead,
    "eNTERFACE'05": enterface,
    "AFEW": afew,
    "DFEW": dfew,
    "FERV39k": ferv39k,
    "JAFFE": jaffe,
    "RAF-DB": rafdb,
    "mmaction2 rawframes": mmaction,
}
