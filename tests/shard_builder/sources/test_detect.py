"""Any source: told by what is in it; videos in class folders become a dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.errors import InputError, SourceError
from shard_builder.sources.detect import detect_source, scan_source
from shard_builder.sources.options import ScanOptions
from tests.ckplus_release import picture

SMALL = {"flow_method": "farneback", "width": 64, "height": 48, "shard_bytes": 20_000}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for subject in ("anna", "bert"):
        for name in ("joy", "no idea"):
            (root / name).mkdir(exist_ok=True)
            write_video(root / name / f"{subject}_take1.mp4", num_frames=7)
    (root / "notes.txt").write_text("not a video")
    return root


def write_video(path: Path, *, num_frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
    for number in range(num_frames):
        writer.write(picture(number, channels=3))
    writer.release()


def test_videos_in_class_folders_become_a_dataset(videos: Path, tmp_path: Path) -> None:
    source = scan_source(videos, ScanOptions(subject_pattern=r"/(\w+?)_"))
    assert source.kind == "videos" and source.classes == ((0, "joy"), (1, "no idea"))
    assert [(s.key, s.subject) for s in source.sequences] == [
        ("joy_anna_take1", "anna"),
        ("joy_bert_take1", "bert"),
        ("no-idea_anna_take1-fc854e58", "anna"),
        ("no-idea_bert_take1-3ca530cd", "bert"),
    ]
    build_dataset(source, videos, tmp_path / "dataset", BuildOptions(codec="png", **SMALL))  # type: ignore[arg-type]
    with open_dataset(tmp_path / "dataset") as dataset:
        assert dataset.class_names == ("joy", "no idea")
        assert dataset.num_frames.tolist() == [7] * 4 and dataset.num_pairs.tolist() == [6] * 4
        assert sorted(set(dataset.subjects)) == ["anna", "bert"]


def test_subjects_come_from_a_table_too(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "subjects.csv"
    table.write_text(
        "video,subject\njoy/anna_take1.mp4,A\nbert_take1.mp4,B\nno idea/anna_take1.mp4,A\n"
    )
    assert {s.subject for s in scan_source(videos, ScanOptions(subjects=table)).sequences} == {
        "A",
        "B",
    }
    table.write_text("video,subject\njoy/anna_take1.mp4,A\n")
    with pytest.raises(SourceError, match=r"bert_take1\.mp4: not in .*subjects\.csv"):
        scan_source(videos, ScanOptions(subjects=table))
    table.write_text("file,person\nx,y\n")
    with pytest.raises(InputError, match=r"line 1: no column video .* columns are file, person"):
        scan_source(videos, ScanOptions(subjects=table))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "subjects=FILE.*subject_pattern="),
        ({"subject_pattern": "("}, "not a regular expression"),
        ({"subject_pattern": "abc"}, "0 groups, expected one"),
        ({"subject_pattern": "(zzz)"}, "does not match /joy/anna_take1.mp4"),
        ({"subjects": Path("nowhere.csv")}, r"nowhere\.csv: cannot be read"),
    ],
)
def test_videos_without_subjects_are_refused(
    options: dict[str, object], words: str, videos: Path
) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        scan_source(videos, ScanOptions(**options))  # type: ignore[arg-type]


def test_a_file_that_is_no_video_is_named_or_skipped(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos" / "joy" / "carl_1.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"carl_1\.mp4: cannot be opened as a video"):
        scan_source(tmp_path / "videos", ScanOptions(subject_pattern=r"/(\w+?)_"))
    source = scan_source(
        tmp_path / "videos", ScanOptions(subject_pattern=r"/(\w+?)_", on_error="skip")
    )
    assert len(source.sequences) == 4 and [entry.key for entry in source.skipped] == ["joy_carl_1"]


def test_a_source_is_told_by_what_is_in_it(
    release: Path, trees: Path, videos: Path, tmp_path: Path
) -> None:
    found = [detect_source(root, ScanOptions()) for root in (release, trees, videos)]
    assert found == ["ckplus", "tree", "videos"]
    with pytest.raises(SourceError, match="there are 0 images and 0 videos"):
        detect_source(tmp_path, ScanOptions())
    with pytest.raises(InputError, match="kind='zip', expected one of auto, ckplus, tree, videos"):
        scan_source(release, ScanOptions(kind="zip"))
    with pytest.raises(InputError, match=r"subject_pattern=.* is for .*, but .* is read as ckplus"):
        scan_source(release, ScanOptions(subject_pattern="(x)"))
