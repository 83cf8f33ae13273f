"""Prepared trees and videos in class folders; prepare writes what the original writes, and build
reads it to the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import BuildOptions
from shard_builder.building.prepare import prepare_trees
from shard_builder.errors import InputError, SourceError
from shard_builder.files import digest_file
from shard_builder.format.levels import quantize_flow
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.detect import detect_source, scan_source
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.tree import scan_tree
from tests.ckplus_release import picture, write_sequence, write_small_release

SMALL = {"flow_method": "farneback", "width": 64, "height": 48, "shard_bytes": 20_000}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_small_release(tmp_path_factory.mktemp("sources") / "CK+")
    write_sequence(root, "S004_001", channels=3, emotion="5")
    (root / "cohn-kanade-images" / "S001" / "001" / ".DS_Store").write_bytes(b"junk")
    return root


@pytest.fixture(scope="module")
def trees(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trees") / "out"
    report = prepare_trees(scan_ckplus(release), out, workers=2)
    assert (report.num_written, report.num_kept, report.num_pairs) == (7, 0, 35)
    return out


def test_prepare_writes_the_seeds_two_trees(release: Path, trees: Path) -> None:
    for stream in ("rgb", "flow"):
        assert sorted(p.name for p in (trees / stream).iterdir()) == list("01234567")
        assert not list((trees / stream / "0").iterdir())
    frames = sorted((trees / "rgb" / "1" / "S001_001").iterdir())
    assert [p.name for p in frames] == [f"S001_001_{n:08d}.png" for n in range(1, 7)]
    originals = release / "cohn-kanade-images" / "S001" / "001"
    assert all(path.read_bytes() == (originals / path.name).read_bytes() for path in frames)
    for axis in ("x_flow", "y_flow"):
        planes = sorted((trees / "flow" / "1" / "S001_001" / axis).iterdir())
        assert [p.name for p in planes] == [f"S001_001_{n:08d}.png" for n in range(1, 6)]
    one, two = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in frames[:2])
    levels = quantize_flow(make_flow_estimator("farneback")(one, two), bound_px=10)
    for number, axis in enumerate(("x_flow", "y_flow")):
        stored = cv2.imread(
            str(trees / "flow" / "1" / "S001_001" / axis / "S001_001_00000001.png"),
            cv2.IMREAD_UNCHANGED,
        )
        assert np.array_equal(stored, levels[..., number])
    assert not (trees / ".prepare").exists()


def test_prepare_goes_on_with_what_is_missing(release: Path, trees: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trees, out)
    shutil.rmtree(out / "flow" / "7" / "S002_002")
    (out / ".prepare" / "S003_001").mkdir(parents=True)
    report = prepare_trees(scan_ckplus(release), out)
    assert (report.num_written, report.num_kept) == (1, 6)
    names = [
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*")) for root in (trees, out)
    ]
    assert names[0] == names[1]
    assert all(
        (out / name).read_bytes() == (trees / name).read_bytes()
        for name in names[0]
        if (out / name).is_file()
    )


def test_prepare_refuses_a_folder_with_other_things(release: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        prepare_trees(scan_ckplus(release), tmp_path)


@pytest.mark.parametrize("codec", ["png", "raw"])
def test_build_from_the_release_and_from_the_tree_gives_the_same_shards(
    codec: str, release: Path, trees: Path, tmp_path: Path
) -> None:
    shards = []
    for name, root in (("release", release), ("tree", trees)):
        source = scan_source(root)
        assert source.kind == ("ckplus" if name == "release" else "tree")
        options = BuildOptions(codec=codec, **SMALL)  # type: ignore[arg-type]
        build_dataset(source, root, tmp_path / name, options)
        files = sorted([*(tmp_path / name).glob("*.tar"), *(tmp_path / name).glob("*.idx")])
        shards.append({path.name: digest_file(path).sha256 for path in files})
    assert shards[0] == shards[1] and len(shards[0]) > 4


def test_a_tree_without_flow_has_it_computed(trees: Path, tmp_path: Path) -> None:
    shutil.copytree(trees / "rgb", tmp_path / "rgb")
    source = scan_tree(tmp_path)
    assert len(source.sequences) == 7 and all(not s.pairs for s in source.sequences)
    assert all(len(s.pairs) == 5 for s in scan_tree(trees).sequences)


def missing_plane(root: Path) -> str:
    (root / "flow" / "1" / "S001_001" / "y_flow" / "S001_001_00000005.png").unlink()
    return r"y_flow: 4 planes, expected 5 for 6 frames"


def gap_in_frames(root: Path) -> str:
    (root / "rgb" / "1" / "S001_001" / "S001_001_00000003.png").unlink()
    return r"S001_001_00000004\.png: frame 4 follows frame 2, expected frame 3"


def foreign_class(root: Path) -> str:
    (root / "rgb" / "1").rename(root / "rgb" / "9")
    return r"class folder '9', expected CK\+'s codes 0 to 7"


def no_flow_of_one(root: Path) -> str:
    shutil.rmtree(root / "flow" / "1" / "S001_001" / "x_flow")
    return r"x_flow: no such folder"


def no_number(root: Path) -> str:
    folder = root / "rgb" / "1" / "S001_001"
    (folder / "S001_001_00000001.png").rename(folder / "peak.png")
    return r"peak\.png: no frame number at the end of its name"


@pytest.mark.parametrize(
    "fault", [missing_plane, gap_in_frames, foreign_class, no_flow_of_one, no_number]
)
def test_every_fault_of_a_tree_is_named_or_skipped(
    fault: Callable[[Path], str], trees: Path, tmp_path: Path
) -> None:
    shutil.copytree(trees, tmp_path / "out")
    words = fault(tmp_path / "out")
    with pytest.raises(SourceError, match=words):
        scan_tree(tmp_path / "out")
    assert scan_tree(tmp_path / "out", on_error="skip").skipped


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


def test_the_commands_prepare_and_build_from_the_tree(release: Path, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("ckshard"))
    for words in (
        ["prepare", str(release), str(tmp_path / "trees"), "--flow-method", "dis"],
        ["build", str(tmp_path / "trees"), str(tmp_path / "dataset"), "--size", "64x48", "--yes"],
        ["verify", str(tmp_path / "dataset")],
    ):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert "all promises hold" in done.stdout
