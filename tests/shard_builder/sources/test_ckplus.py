"""Scanning a CK+ release: any layout by pattern, stray files, and every fault by its file."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from shard_builder.errors import SourceError
from shard_builder.sources.ckplus import scan_ckplus
from tests.ckplus_release import picture, write_sequence, write_small_release

LAYOUTS = [
    ("cohn-kanade-images", "Emotion"),
    ("extended-cohn-kanade-images/cohn-kanade-images", "Emotion_labels/Emotion"),
    ("cohn-kanade-images/cohn-kanade-images", "emotion_labels"),
    ("images", "emotions"),
    ("CKPlus_Images", "CKPlus_Labels"),
]


@pytest.mark.parametrize(("images", "labels"), LAYOUTS)
def test_every_layout_seen_in_the_wild_is_found_by_pattern(
    images: str, labels: str, tmp_path: Path
) -> None:
    write_small_release(tmp_path, images=images, labels=labels)
    source = scan_ckplus(tmp_path)
    assert [s.key for s in source.sequences] == [
        f"S{n:03d}_{k:03d}" for n in (1, 2, 3) for k in (1, 2)
    ]
    assert {(s.emotion, s.code) for s in source.sequences} == {("anger", 1), ("surprise", 7)}
    assert all(len(s.frames) == 6 for s in source.sequences)


def test_stray_files_and_empty_label_folders_are_ignored(tmp_path: Path) -> None:
    write_small_release(tmp_path)
    images, labels = write_sequence(tmp_path, "S004_001", emotion=None)
    for folder in (images, labels, images.parent, tmp_path):
        for name in (".DS_Store", "Thumbs.db", "._S004_001_00000001.png"):
            (folder / name).write_bytes(b"\x00junk")
    source = scan_ckplus(tmp_path)
    assert len(source.sequences) == 6 and source.num_unlabelled == 1
    assert all(
        path.suffix == ".png" and not path.name.startswith(".")
        for s in source.sequences
        for path in s.frames
    )


def test_unlabelled_sequences_are_never_neutral(tmp_path: Path) -> None:
    write_small_release(tmp_path)
    write_sequence(tmp_path, "S009_001", emotion=None)
    source = scan_ckplus(tmp_path)
    assert "neutral" not in {s.emotion for s in source.sequences}
    assert "S009_001" not in {s.key for s in source.sequences}


@pytest.mark.parametrize("text", ["   3.0000000e+00\n", "3", "3.0", " 3\r\n"])
def test_labels_in_any_float_notation(text: str, tmp_path: Path) -> None:
    write_sequence(tmp_path, "S001_001", emotion=text)
    assert [(s.emotion, s.code) for s in scan_ckplus(tmp_path).sequences] == [("disgust", 3)]


def gap(images: Path, labels: Path) -> str:
    (images / "S001_003_00000003.png").unlink()
    return r"S001_003_00000004\.png: frame 4 follows frame 2 of S001_003, expected frame 3"


def resize(images: Path, labels: Path) -> str:
    cv2.imwrite(str(images / "S001_003_00000004.png"), picture(4, width=50))
    return r"S001_003_00000004\.png: 50x48 pixels, expected 64x48"


def second_label(images: Path, labels: Path) -> str:
    (labels / "S001_003_00000005_emotion.txt").write_text("1")
    return r"second label of S001_003, expected one"


def label_nine(images: Path, labels: Path) -> str:
    (labels / "S001_003_00000006_emotion.txt").write_text("   9.0000000e+00\n")
    return r"S001_003_00000006_emotion\.txt: label 9.*expected a whole number 0\.\.7"


def label_text(images: Path, labels: Path) -> str:
    (labels / "S001_003_00000006_emotion.txt").write_text("happy")
    return r"label 'happy', expected one number 0\.\.7"


def not_an_image(images: Path, labels: Path) -> str:
    (images / "S001_003_00000002.png").write_bytes(b"hello")
    return r"S001_003_00000002\.png: not a PNG image"


def no_images(images: Path, labels: Path) -> str:
    for path in images.iterdir():
        path.unlink()
    return r"label of S001_003, but the release has no images of it"


def label_before_the_peak(images: Path, labels: Path) -> str:
    (labels / "S001_003_00000006_emotion.txt").rename(labels / "S001_003_00000004_emotion.txt")
    return r"labels frame 4 of S001_003, expected its last frame 6"


FAULTS = [
    gap,
    resize,
    second_label,
    label_nine,
    label_text,
    not_an_image,
    no_images,
    label_before_the_peak,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_its_file_or_is_skipped_and_listed(fault, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_small_release(tmp_path)
    words = fault(*write_sequence(tmp_path, "S001_003"))
    with pytest.raises(SourceError, match=words) as raised:
        scan_ckplus(tmp_path)
    assert str(tmp_path) in str(raised.value) and "on_error='skip'" in str(raised.value)
    source = scan_ckplus(tmp_path, on_error="skip")
    assert len(source.sequences) == 6
    assert [entry.key for entry in source.skipped] == ["S001_003"]


def test_a_sequence_that_starts_at_two_is_refused(tmp_path: Path) -> None:
    write_sequence(tmp_path, "S001_001", first=2)
    with pytest.raises(SourceError, match="frame 2 follows frame 0"):
        scan_ckplus(tmp_path)


def test_folders_without_sequences_or_labels_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        scan_ckplus(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"S005_001_00000001\.png"):
        scan_ckplus(tmp_path)
    write_sequence(tmp_path, "S001_001", emotion=None)
    with pytest.raises(SourceError, match="no usable emotion label"):
        scan_ckplus(tmp_path)


def test_names_in_lower_case_are_the_same_sequences(tmp_path: Path) -> None:
    images, labels = write_sequence(tmp_path, "S001_002")
    for folder in (images, labels):
        for path in folder.iterdir():
            path.rename(folder / path.name.lower())
        folder.parent.rename(folder.parent.with_name("s001"))
    assert [(s.key, len(s.frames)) for s in scan_ckplus(tmp_path).sequences] == [("S001_002", 6)]


def test_a_folder_reached_twice_by_links_is_read_once(tmp_path: Path) -> None:
    release = write_small_release(tmp_path / "release")
    (release / "loop").symlink_to(release)
    (release / "again").symlink_to(release / "cohn-kanade-images")
    assert len(scan_ckplus(release).sequences) == 6


def test_skipping_every_sequence_is_an_error_that_names_the_first_fault(tmp_path: Path) -> None:
    gap(*write_sequence(tmp_path, "S001_003"))
    with pytest.raises(
        SourceError, match=r"all 1 labelled sequences have faults.*frame 4 follows frame 2"
    ):
        scan_ckplus(tmp_path, on_error="skip")
