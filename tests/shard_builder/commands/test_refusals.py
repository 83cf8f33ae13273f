"""``ckshard build``: bad input ends with one clear line, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ckplus_release import write_sequence, write_small_release
from tests.face_sets import write_video
from tests.programs import assert_refused, ckshard, digests

SMALL = ("--size", "64x48", "--flow-method", "dis")


def test_a_missing_source_is_one_clear_line(tmp_path: Path) -> None:
    assert_refused(
        ckshard("build", tmp_path / "nowhere", tmp_path / "dataset"), "nowhere", "no such folder"
    )
    assert not (tmp_path / "dataset").exists()


def test_a_source_without_sequences_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(
        ckshard("build", tmp_path / "empty", tmp_path / "dataset"), "empty", "S005_001_00000001.png"
    )
    assert not (tmp_path / "dataset").exists()


def test_a_dataset_that_is_there_is_refused_and_kept(small_release: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    assert ckshard("build", small_release, dataset, *SMALL).returncode == 0
    before = digests(dataset)
    assert_refused(ckshard("build", small_release, dataset), "--overwrite")
    assert digests(dataset) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    for words in ([], ["--overwrite"]):
        assert_refused(ckshard("build", small_release, foreign, *words), "foreign")
        assert (foreign / "thesis.tex").read_text() == "years of work"
    done = ckshard("build", small_release, dataset, "--overwrite", *SMALL, "--codec", "png")
    assert done.returncode == 0, done.stderr
    assert json.loads((dataset / "manifest.json").read_text())["streams"]["flow"]["codec"] == "png"


def test_a_label_outside_the_classes_is_one_clear_line(tmp_path: Path) -> None:
    write_small_release(tmp_path / "CK+")
    write_sequence(tmp_path / "CK+", "S007_001", emotion="   8.0000000e+00\n")
    assert_refused(
        ckshard("build", tmp_path / "CK+", tmp_path / "dataset"),
        "S007_001_00000006_emotion.txt",
        "0..7",
    )
    assert not (tmp_path / "dataset").exists()


def test_an_unreadable_image_is_one_clear_line_and_leaves_no_dataset(tmp_path: Path) -> None:
    write_small_release(tmp_path / "CK+")
    images, _ = write_sequence(tmp_path / "CK+", "S007_001", emotion="7")
    broken = images / "S007_001_00000004.png"
    broken.write_bytes(broken.read_bytes()[:200])  # the header is whole, the pixels are not
    command = ("build", tmp_path / "CK+", tmp_path / "dataset", *SMALL)
    assert_refused(ckshard(*command), "S007_001_00000004.png", "--on-error skip")
    assert not (tmp_path / "dataset" / "manifest.json").exists()
    skipped = ckshard(*command, "--on-error", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert "1 sequence skipped" in skipped.stdout
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["num_sequences"] == 6 and manifest["source"]["num_skipped"] == 1
    assert "S007_001" in (tmp_path / "dataset" / "skipped.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--codec", "webp"], "--codec webp, expected one of"),
        (["--quality", "0"], "--quality 0"),
        (["--size", "340"], "--size 340, expected WIDTHxHEIGHT"),
        (["--size", "340x250"], "--size (height) 250, expected a multiple of 8"),
        (["--streams", "rgb,depth"], "--streams rgb,depth, expected rgb, flow or both"),
        (["--bound-px", "0"], "--bound-px 0"),
        (["--workers", "-1"], "--workers -1"),
        (["--flow-method", "tvl1"], "--flow-method tvl1"),
        (["--frames", "first"], "--frames first"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    words: list[str], expected: str, small_release: Path, tmp_path: Path
) -> None:
    assert_refused(ckshard("build", small_release, tmp_path / "dataset", *words), expected)
    assert not (tmp_path / "dataset").exists()


def test_a_video_that_ends_before_its_offset_is_refused_with_its_line(tmp_path: Path) -> None:
    write_video(tmp_path / "p1.avi", num_frames=12)
    data = (tmp_path / "p1.avi").read_bytes()
    (tmp_path / "p2.avi").write_bytes(data[:-400])  # its header still says 12 frames
    table = tmp_path / "table.csv"
    table.write_text("path,label,subject,offset\np1.avi,joy,A,11\np2.avi,sad,B,11\n")
    command = ("build", table, tmp_path / "dataset", *SMALL, "--yes")
    assert_refused(ckshard(*command), "table.csv, line 3: offset 11", "ends after 11 frames")
    table.write_text(table.read_text().replace("B,11", "B,10"))
    assert ckshard(*command).returncode == 0
