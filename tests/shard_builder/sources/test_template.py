"""Templates of paths: what they match, what they refuse, and the clips that come of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shard_builder.errors import InputError, SourceError
from shard_builder.sources.detect import scan_source
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.sequence import Source
from shard_builder.sources.template import Layout
from tests.face_sets import write_frames, write_images, write_video


def scan(root: Path, layout: str, **options: object) -> Source:
    return scan_source(root, ScanOptions(layout=layout, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "path", "fields"),
    [
        (
            "Actor_{subject}/*-*-{label}-*-*-*-*.mp4",
            "Actor_01/02-01-05-01-01-01-01.mp4",
            {"subject": "01", "label": "05"},
        ),
        ("**/{subject}/{label}/{frame}.jpeg", "a/b/P1/Joy/007.JPEG", "P1 Joy 007"),
        ("**/{subject}/{label}/{frame}.jpeg", "P1/Joy/7.jpeg", "P1 Joy 7"),
        ("{label}/**/*", "joy/a/b/c.avi", {"label": "joy"}),
        ("{label}/**/*", "joy/c.avi", {"label": "joy"}),
        ("*{frame}.jpg", "reg_img97.jpg", {"frame": "97"}),
        ("{clip}_{frame}.jpg", "a_1_22.jpg", {"clip": "a_1", "frame": "22"}),
        ("{subject}.{label}?.*.tiff", "KA.AN1.39.tiff", {"subject": "KA", "label": "AN"}),
        ("{s}/{s}_{label}.avi", "x/x_joy.avi", {"s": "x", "label": "joy"}),
        ("{subject} x/{label}.avi", "a b x/c+d.avi", {"subject": "a b", "label": "c+d"}),
        ("./{label}/*.avi", "joy/x.avi", {"label": "joy"}),
    ],
)
def test_a_path_is_taken_apart(layout: str, path: str, fields: object) -> None:
    if isinstance(fields, str):
        fields = dict(zip(("subject", "label", "frame"), fields.split(), strict=True))
    assert Layout(layout).take_apart(path) == fields


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("{label}/*.avi", "joy/a/x.avi"),
        ("{label}/*.avi", "x.avi"),
        ("{s}/{s}_{label}.avi", "x/y_joy.avi"),
        ("{label}/?.avi", "joy/ab.avi"),
        ("{label}/*.avi", "joy/x.mp4"),
        ("*{frame}.jpg", "img.jpg"),
        ("a+/{label}.avi", "aa/joy.avi"),
    ],
)
def test_another_path_does_not_match(layout: str, path: str) -> None:
    assert Layout(layout).take_apart(path) is None


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("{subject}_{label}.avi", "in two ways, subject 'a' or 'a_b'"),
        ("*_{label}_*.avi", "in two ways, label 'b' or"),
    ],
)
def test_a_path_that_comes_apart_in_two_ways_is_refused(layout: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        Layout(layout).take_apart("a_b_c_d.avi" if "*" in layout else "a_b_c.avi")


@pytest.mark.parametrize(
    "layout",
    ["", "/a/{label}.avi", "a//b", "../{label}", "{label", "{}", "{1a}", "{a}{label}", "*{label}"],
)
def test_a_template_that_cannot_be_understood_is_quoted(layout: str) -> None:
    with pytest.raises(InputError, match="layout='" + re.escape(layout)):
        Layout(layout)


def test_frames_are_grouped_by_all_but_their_number_and_ordered_by_it(tmp_path: Path) -> None:
    write_frames(tmp_path / "joy" / "mixed", "p1_{}.jpg", first=8)
    write_frames(tmp_path / "joy" / "mixed", "p2_{}.jpg", first=8)
    write_frames(tmp_path / "sad" / "alone", "p1_{}.jpg", first=8)
    source = scan(tmp_path, "{label}/*/{subject}_{frame}.jpg")
    assert [(s.key, s.subject, s.source) for s in source.sequences] == [
        ("joy_mixed_p1", "p1", "joy/mixed/p1_8.jpg"),
        ("joy_mixed_p2", "p2", "joy/mixed/p2_8.jpg"),
        ("sad_alone", "p1", "sad/alone"),
    ]
    names = [path.name for path in source.sequences[0].frames]
    assert names == [f"p1_{number}.jpg" for number in range(8, 14)]


def test_a_template_of_folders_takes_the_images_in_them(tmp_path: Path) -> None:
    for label in ("joy", "sad"):
        write_frames(tmp_path / label / "p1_a", "x{}.png")
        write_video(tmp_path / label / "p2_b.avi")
    source = scan(tmp_path, "{label}/{subject}_*")
    assert [(s.source, s.subject, s.is_video) for s in source.sequences] == [
        ("joy/p1_a", "p1", False),
        ("joy/p2_b.avi", "p2", True),
        ("sad/p1_a", "p1", False),
        ("sad/p2_b.avi", "p2", True),
    ]


def test_stills_are_sequences_of_one_image(tmp_path: Path) -> None:
    for label in ("joy", "sad"):
        write_images(tmp_path / label / f"p{number}_x.jpg" for number in (1, 2))
    source = scan(tmp_path, "{label}/{subject}_*.jpg")
    assert len(source.sequences) == 4 and all(s.is_still for s in source.sequences)


def test_files_that_do_not_match_are_counted(tmp_path: Path) -> None:
    write_video(tmp_path / "joy" / "p1_a.avi")
    write_video(tmp_path / "extra.avi")
    (tmp_path / "joy" / "._p1_b.avi").write_bytes(b"")
    (tmp_path / "joy" / "notes.txt").write_text("")
    source = scan(tmp_path, "{label}/{subject}_*.avi")
    assert source.left_out == {"files that the layout does not match, such as extra.avi": 1}


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1, 2, 4, 5), "4.jpg: frame 4 follows frame 2, expected frame 3"),
        ((10, 15, 20, 30), "30.jpg: frame 30 follows frame 20, expected frame 25"),
        ((1,), "p1: 1 frame, expected at least 2"),
    ],
)
def test_a_gap_is_a_fault_of_its_clip(numbers: tuple[int, ...], words: str, tmp_path: Path) -> None:
    layout = "{label}/{subject}/{frame}.jpg"
    write_images(tmp_path / "joy" / "p1" / f"{number}.jpg" for number in numbers)
    write_images(tmp_path / "joy" / "p2" / f"{number}.jpg" for number in (5, 10, 15))
    with pytest.raises(SourceError, match=re.escape(words)):
        scan(tmp_path, layout)
    source = scan(tmp_path, layout, on_error="skip")
    assert [s.key for s in source.sequences] == ["joy_p2"] and len(source.skipped) == 1
    if len(numbers) > 1:
        assert len(scan(tmp_path, layout, allow_gaps=True).sequences) == 2


def test_two_images_of_one_number_are_a_fault(tmp_path: Path) -> None:
    write_images(tmp_path / "joy" / "p1" / name for name in ("1.jpg", "2.jpg", "02.jpg"))
    with pytest.raises(SourceError, match=r"second image of frame 2 .*the first is 02\.jpg"):
        scan(tmp_path, "{label}/{subject}/{frame}.jpg")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "{subject}_*.avi"}, "has no {label}"),
        ({"layout": "{label}_*.avi"}, "nothing says whose face a clip shows"),
        ({"labels": "list.txt"}, "need layout="),
        ({"layout": "{label}_*.avi", "root": Path()}, "root=... is for sources of the kind table"),
        ({"match": "{clip}"}, "needs labels="),
        ({"layout": "x", "no_subjects": True, "subject_pattern": "(x)"}, "expected one of them"),
    ],
)
def test_options_that_do_not_fit_are_named(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    write_video(tmp_path / "joy_p1.avi")
    with pytest.raises(InputError, match=re.escape(words)):
        scan_source(tmp_path, ScanOptions(**options))  # type: ignore[arg-type]


def test_names_in_any_script_keep_apart_and_stay_in_the_source_column(tmp_path: Path) -> None:
    for subject in ("李", "王"):
        for label in ("快乐", "悲伤"):
            write_video(tmp_path / label / f"{subject}_1.avi")
    source = scan(tmp_path, "{label}/{subject}_*.avi")
    assert len({s.key for s in source.sequences}) == 4
    assert all(s.key.isascii() for s in source.sequences)
    assert {s.source for s in source.sequences} >= {"快乐/李_1.avi", "悲伤/王_1.avi"}


def test_a_name_that_is_not_utf8_works(tmp_path: Path) -> None:
    write_video(tmp_path / "joy" / "plain.avi")
    (tmp_path / "joy" / "plain.avi").rename(tmp_path / "joy" / "caf\udce9_1.avi")
    (sequence,) = scan(tmp_path, "{label}/{subject}_*.avi").sequences
    assert (sequence.subject, sequence.source) == (r"caf\xe9", r"joy/caf\xe9_1.avi")
