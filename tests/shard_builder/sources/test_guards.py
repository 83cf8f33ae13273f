"""What build understood is printed first; what is absurd stops before any flow is computed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shard_builder.errors import InputError
from shard_builder.sources.detect import scan_source
from shard_builder.sources.guards import check_plausible
from shard_builder.sources.options import ScanOptions
from tests.ckplus_release import write_sequence
from tests.face_sets import SETS, write_images, write_video
from tests.programs import ckshard

SMALL = ("--size", "64x48", "--flow-method", "dis")


def build(root: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return ckshard("build", root, root.parent / "dataset", *SMALL, *words)


def write_clips(root: Path, *names: str) -> None:
    for name in names:
        write_video(root / name)


LAYOUT = ("--layout", "{label}/{subject}_*.avi")


@pytest.mark.parametrize(
    ("names", "words", "reason"),
    [
        (["joy/a_1.avi", "joy/b_1.avi"], LAYOUT, "there is only one class, 'joy'"),
        (["A/A_1.avi", "B/B_1.avi", "B/B_2.avi"], LAYOUT, "every class has a subject of its own"),
        (
            ["joy/1_x.avi", "joy/2_x.avi", "sad/3_x.avi", "sad/4_x.avi"],
            LAYOUT,
            "every subject shows one class only",
        ),
        (
            ["Train_AFEW/a_1.avi", "Train_AFEW/b_1.avi", "Val_AFEW/a_1.avi", "Val_AFEW/b_1.avi"],
            LAYOUT,
            "classes are called Train_AFEW, Val_AFEW, which are the parts of a split",
        ),
        (
            ["Joy/a_1.avi", "joy/b_1.avi", "sad/a_1.avi", "sad/b_1.avi", "Joy/b_2.avi"],
            LAYOUT,
            "the classes 'Joy' and 'joy' differ in case only",
        ),
        (["joy/a_1.avi", "sad/a_1.avi"], LAYOUT, "there is only one subject, 'a'"),
        (
            ["joy/a_1.avi", "joy/b_1.avi", "sad/a_1.avi"],
            LAYOUT,
            "class 'sad' has one subject only, 'a', which no cross-validation can hold out"
            " (--classes 'sad=' leaves the class out)",
        ),
    ],
)
def test_what_is_absurd_stops_unless_yes(
    names: list[str], words: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    write_clips(tmp_path / "clips", *names)
    done = build(tmp_path / "clips", *words)
    assert done.returncode == 2 and reason in done.stderr and "--yes" in done.stderr
    assert not (tmp_path / "dataset").exists()
    assert build(tmp_path / "clips", *words, "--yes").returncode == 0
    assert (tmp_path / "dataset" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("names", "options", "reason"),
    [
        (
            ["train/joy/a_1.avi", "test/joy/a_1.avi", "train/sad/a_1.avi", "test/sad/a_1.avi"],
            {"layout": "{subject}/{label}/*.avi"},
            "subjects are called test, train, which are the parts of a split",
        ),
        (
            [f"{s}/{e}/take{t}/1.avi" for s in "ab" for e in ("joy", "sad") for t in "12"],
            {"layout": "{label}/*/{subject}/*.avi"},
            "a/joy/take1/1.avi is of class 'a', but the folders called joy, sad name expressions",
        ),
        (
            [f"{s}/{e}/1.avi" for s in ("Jörg", "Zoë") for e in ("wach", "müde")],
            {"no_subjects": True},
            "its class may be 'Zoë' or 'müde'; say which by layout='{label}/**/*.mp4'",
        ),
        (
            [f"Actor_0{a}/02-01-0{e}-01-01-01-0{a}.mp4" for a in "12" for e in "35"],
            {"no_subjects": True},
            "where no layout is given; this resembles RAVDESS: --layout '**/Actor_{subject}/02-*",
        ),
    ],
)
def test_swapped_parts_of_a_path_are_absurd(
    names: list[str], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    write_clips(tmp_path, *names)
    with pytest.raises(InputError, match=re.escape(reason)):
        check_plausible(scan_source(tmp_path, ScanOptions(**options)))


def test_any_level_of_folders_may_be_the_class(tmp_path: Path) -> None:
    write_clips(tmp_path, *(f"{s}/{e}/1.avi" for s in "ab" for e in ("joy", "sad")))
    check_plausible(scan_source(tmp_path, ScanOptions(layout="{subject}/{label}/*.avi")))
    merged = ScanOptions(layout="{subject}/{label}/*.avi", classes="joy=x,sad=y")
    check_plausible(scan_source(tmp_path, merged))


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("RAVDESS", ["--subject-pattern", r"-(\d+)\.mp4"], "every class has a subject of its own"),
        ("MEAD", ["--subject-pattern", r"/([MW]\d+)/"], "every class has a subject of its own"),
        ("AFEW", ["--no-subjects"], "which are the parts of a split"),
        ("CREMA-D", ["--subject-pattern", r"/(\d{4})_"], "there is only one class, 'VideoFlash'"),
        ("eNTERFACE'05", ["--subject-pattern", r"/subject (\d+)/"], "there is only one class"),
    ],
)
def test_the_wrong_guesses_stop_and_name_the_recipe(
    name: str, words: list[str], reason: str, tmp_path: Path
) -> None:
    """Videos in folders of any meaning were read as videos in class folders, without a word."""
    SETS[name](tmp_path / "clips")
    done = build(tmp_path / "clips", *words)
    assert done.returncode == 2 and reason in done.stderr
    assert f"resembles {name}: --layout" in done.stderr
    assert not (tmp_path / "dataset").exists()


def test_a_class_of_one_subject_in_a_table_has_its_line(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", "a1.avi", "a2.avi", "b1.avi")
    table = tmp_path / "clips" / "table.csv"
    table.write_text("path,label,subject\na1.avi,joy,a\na2.avi,sad,a\nb1.avi,joy,b\n")
    done = ckshard("build", table, tmp_path / "dataset")
    first = done.stderr.splitlines()[0]
    assert done.returncode == 2
    assert f"{table}, line 3: class 'sad' has one subject only, 'a'" in first


def test_a_release_is_looked_at_too(tmp_path: Path) -> None:
    for key, code in (("S001_001", "1"), ("S002_001", "1"), ("S001_002", "5")):
        write_sequence(tmp_path / "clips", key, emotion=code)
    done = build(tmp_path / "clips")
    assert done.returncode == 2 and "class 'happy' has one subject only, 'S001'" in done.stderr
    assert build(tmp_path / "clips", "--classes", "happy=,anger", "--yes").returncode == 0


def test_stills_numbered_as_frames_are_stop(tmp_path: Path) -> None:
    for label in ("joy", "sad"):
        for subject in ("a", "b"):
            write_images(tmp_path / "clips" / label / subject / f"{n}.jpg" for n in range(8))
    done = build(tmp_path / "clips", "--layout", "{label}/{subject}/*.jpg")
    assert done.returncode == 2 and "numbered in runs of 8" in done.stderr
    assert "{frame}" in done.stderr


def test_what_was_understood_is_printed_first(tmp_path: Path) -> None:
    write_clips(
        tmp_path / "clips",
        *(
            f"{part}/{label}/{s}_1.avi"
            for part in ("train", "test")
            for label in ("joy", "sad")
            for s in ("ann", "bob", "cid", "dan")
        ),
        "extra.avi",
    )
    done = build(tmp_path / "clips", "--layout", "{fold}/{label}/{subject}_*.avi")
    assert done.returncode == 0, done.stderr
    for words in (
        "16 labelled sequences of 2 classes, 0 unlabelled, 0 skipped",
        "4 subjects: ann, bob, cid, ...",
        "official parts: test 8, train 8",
        "left out (1): files that the layout does not match, such as extra.avi",
        "for instance test/joy/ann_1.avi: class joy, subject ann, 6 frames, part test, key"
        " test_joy_ann_1",
    ):
        assert words in done.stdout
    assert done.stdout.index("16 labelled") < done.stdout.index("joy ") < done.stdout.index("built")


def test_without_subjects_it_says_what_that_means(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", "joy/1.avi", "joy/2.avi", "sad/1.avi", "sad/2.avi")
    asked = build(tmp_path / "clips", "--layout", "{label}/*.avi")
    assert asked.returncode == 2 and "--no-subjects" in asked.stderr
    assert "the same face may train and validate" in asked.stderr
    done = build(tmp_path / "clips", "--layout", "{label}/*.avi", "--no-subjects")
    assert done.returncode == 0 and "accuracy is not accuracy on new people" in done.stdout


def test_stills_become_an_rgb_only_dataset(tmp_path: Path) -> None:
    SETS["JAFFE"](tmp_path / "clips")
    layout = ("--layout", "**/{subject}.{label}?.*.tiff")
    done = build(tmp_path / "clips", *layout)
    assert done.returncode == 0 and "stills have no flow: an rgb-only dataset" in done.stdout
    assert not list((tmp_path / "dataset").glob("flow-*"))
    verified = ckshard("verify", tmp_path / "dataset")
    assert verified.returncode == 0, verified.stdout
    refused = build(tmp_path / "clips", *layout, "--streams", "flow", "--overwrite")
    assert refused.returncode == 2 and "--streams flow, but these are stills" in refused.stderr
