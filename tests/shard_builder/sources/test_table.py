"""A table of clips: what its rows may name, every fault by line, and the table that list writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shard_builder.errors import InputError, SourceError
from shard_builder.sources.detect import scan_source
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.sequence import FaceSequence, Source
from tests.ckplus_release import write_small_release
from tests.face_sets import SETS, write_frames, write_images, write_video
from tests.programs import ckshard


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "p1.avi", num_frames=12)
    write_video(root / "p2.mp4")
    write_frames(root / "frames", "img{}.jpg", first=95)
    write_frames(root / "mixed", "a_{}.png")
    write_frames(root / "mixed", "b_{}.png", first=3)
    write_images(root / "stills" / name for name in ("x.png", "y.png"))
    (root / "notes.txt").write_text("")
    (root / "empty").mkdir()
    return root


def scan(root: Path, tmp_path: Path, text: str, **options: object) -> Source:
    (tmp_path / "table.csv").write_text(text)
    return scan_source(tmp_path / "table.csv", ScanOptions(root=root, **options))  # type: ignore[arg-type]


def test_a_row_names_a_video_a_folder_or_an_image(root: Path, tmp_path: Path) -> None:
    source = scan(
        root,
        tmp_path,
        "Subject;PATH;Label;fold\nA;p1.avi;joy;train\nA;frames;sad;val\nB;mixed/b_5.png;joy;\n"
        f"B;{root}/p2.mp4;sad;test\n",
    )
    assert {s.source: (len(s.frames), s.emotion, s.subject, s.fold) for s in source.sequences} == {
        "p1.avi": (1, "joy", "A", "train"),
        "frames": (6, "sad", "A", "val"),
        "mixed/b_5.png": (6, "joy", "B", ""),
        "p2.mp4": (1, "sad", "B", "test"),
    }
    assert [s.place for s in source.sequences if s.source == "frames"] == [
        f"{tmp_path / 'table.csv'}, line 3"
    ]


def test_onset_apex_and_offset_are_numbers_in_the_names_or_positions(
    root: Path, tmp_path: Path
) -> None:
    head = "path,label,subject,onset,apex,offset\n"

    def positions(row: str, **options: object) -> tuple[object, ...]:
        (s,) = scan(root, tmp_path, head + row, **options).sequences
        return s.onset, s.apex, s.offset, s.expected_num_frames

    assert positions("frames,joy,A,96,98.0,99\n") == (1, 3, 4, 4)
    assert positions("frames,joy,A,,97,\n") == (None, 2, None, 6)
    assert positions("frames,joy,A,1,3,4\n", frames_from_0=True) == (1, 3, 4, 4)
    assert positions("p1.avi,joy,A,2,5,9\n") == (2, 5, 9, 8)
    assert positions("mixed/b_3.png,joy,A,4,n/a,6\n") == (0, None, 2, 3)


def test_one_video_may_hold_several_clips(root: Path, tmp_path: Path) -> None:
    source = scan(
        root, tmp_path, "path,label,subject,onset,offset\np1.avi,joy,A,0,5\np1.avi,sad,A,6,11\n"
    )
    assert [(s.key, s.onset, s.offset) for s in source.sequences] == [
        ("p1-0-5", 0, 5),
        ("p1-6-11", 6, 11),
    ]


def test_rows_that_name_images_of_one_sequence_are_stills(root: Path, tmp_path: Path) -> None:
    rows = "".join(f"mixed/{run}_{n}.png,joy,{run}\n" for run in "ab" for n in (4, 5))
    source = scan(root, tmp_path, "path,label,subject\n" + rows)
    assert len(source.sequences) == 4 and all(s.is_still for s in source.sequences)
    source = scan(root, tmp_path, "path,label,subject\nstills/x.png,joy,A\nstills/y.png,joy,A\n")
    assert all(s.is_still for s in source.sequences)


HEAD = "path,label,subject\np2.mp4,joy,A\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "nowhere.avi,joy,A\n", r"table\.csv, line 3: 'nowhere\.avi' is not in"),
        (HEAD + ",joy,A\n", r"line 3: no path"),
        (HEAD + "p1.avi,,A\n", r"line 3: .*p1\.avi: no label"),
        (HEAD + "p1.avi,joy,\n", r"line 3: .*p1\.avi: no subject"),
        (HEAD + "notes.txt,joy,A\n", r"line 3: .*notes\.txt is neither a folder nor"),
        (HEAD + "empty,joy,A\n", r"line 3: .*empty: no images in this folder"),
        (HEAD + "mixed,joy,A\n", r"line 3: .*2 kinds of image names \(a_1\.png, b_3\.png"),
        (HEAD + "p2.mp4,sad,A\n", r"line 3: names the clip of .*line 2 again"),
        (HEAD + "p1.avi,joy\n", r"line 3: 2 fields, expected 3"),
        ("path,label\np1.avi,joy\n", r"nothing says whose face .*no_subjects=True"),
        ("path,subject\np1.avi,A\n", r"line 1: no column label"),
        ("path,label,subject\n", r"has no rows"),
        (
            "path,label,subject,key\np1.avi,joy,A,k\np2.mp4,joy,A,k\n",
            r"line 3: key 'k' is that of .*line 2",
        ),
        (
            "path,label,subject,onset\np1.avi,joy,A,0\np1.avi,sad,B,4\n",
            r"line 3: 'p1\.avi' is of 'B', but of 'A' in .*line 2",
        ),
        (
            "path,label,subject,apex\nframes,joy,A,94\n",
            r"line 2: .*apex 94 is the number of no frame, expected 95 to 100",
        ),
        (
            "path,label,subject,apex\np1.avi,joy,A,12\n",
            r"line 2: .*apex 12, expected 0 to 11 \(12 frames, counted from 0\)",
        ),
        (
            "path,label,subject,onset,offset\nframes,joy,A,99,98\n",
            r"line 2: .*onset 99, offset 98, expected onset <= apex <= offset",
        ),
    ],
)
def test_every_fault_of_a_table_has_its_line(
    text: str, words: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        scan(root, tmp_path, text)


def test_a_missing_file_ends_the_command_with_one_line(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(HEAD + "nowhere.avi,joy,A\n")
    done = ckshard("build", table, tmp_path / "dataset", "--root", root)
    assert done.returncode == 2 and "table.csv, line 3: 'nowhere.avi' is not in" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "dataset").exists()
    skipped = scan(root, tmp_path, table.read_text(), on_error="skip").skipped
    assert [(skip.path, "line 3" in skip.reason) for skip in skipped] == [("nowhere.avi", True)]


def facts(sequence: FaceSequence) -> tuple[object, ...]:
    apex = None if sequence.apex is None else sequence.apex - (sequence.onset or 0)
    return (
        *(sequence.key, sequence.subject, sequence.session, sequence.emotion, sequence.code),
        *(sequence.frames[sequence.kept], sequence.expected_num_frames, apex, sequence.fold),
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CK+48", {"layout": "**/{label}/{subject}_*_*.png"}),
        ("MEAD", {"layout": "{subject}/video/front/{label}/{level}/*.mp4"}),
        ("AFEW", {"layout": "{fold}_AFEW/{label}/*.avi", "no_subjects": True}),
        ("JAFFE", {"layout": "**/{subject}.{label}?.*.tiff"}),
        (
            "CASME II",
            {
                "layout": "**/sub{subject}/{clip}/*{frame}.jpg",
                "labels": "CODING.csv",
                "columns": "emotion=Estimated Emotion,onset=OnsetFrame,apex=ApexFrame",
            },
        ),
        ("CK+", {}),
    ],
)
def test_a_build_from_what_list_wrote_is_the_same(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    root = tmp_path / "clips"
    if name == "CK+":
        write_small_release(root)
    else:
        SETS[name](root)
    first = scan_source(root, ScanOptions(**options))  # type: ignore[arg-type]
    flags = []
    for option, value in options.items():
        flags += [f"--{option.replace('_', '-')}", *([] if value is True else [str(value)])]
    done = ckshard("list", root, *flags)
    assert done.returncode == 0 and f"--root {root}" in done.stderr
    second = scan(root, tmp_path, done.stdout, no_subjects=not first.has_subjects)
    assert [facts(s) for s in first.sequences] == [facts(s) for s in second.sequences]


def test_a_name_that_no_table_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    write_video(tmp_path / "p1.avi")
    (tmp_path / "p1.avi").rename(tmp_path / "caf\udce9_joy.avi")
    done = ckshard("list", tmp_path, "--layout", "{subject}_{label}.avi")
    assert done.returncode == 2 and r"caf\xe9_joy.avi: its name is not UTF-8" in done.stderr


def test_list_writes_the_whole_table_or_nothing(tmp_path: Path) -> None:
    for name in ("a_joy.avi", "p1.avi"):
        write_video(tmp_path / name)
    (tmp_path / "p1.avi").rename(tmp_path / "caf\udce9_joy.avi")
    done = ckshard("list", tmp_path, "--layout", "{subject}_{label}.avi")
    assert done.returncode == 2 and not done.stdout


def test_a_pipe_in_an_images_place_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        os.mkfifo(tmp_path / f"f_{number}.png")
    with pytest.raises(SourceError, match=r"f_1\.png: is not a regular file"):
        scan(tmp_path, tmp_path, "path,label,subject\nf_1.png,joy,A\n")
    with pytest.raises(SourceError, match=r"f_1\.png: is not a regular file"):
        scan_source(tmp_path, ScanOptions(layout="{subject}_{label}.png"))


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".png", "b/" * 3000 + "x.avi"])
def test_a_path_that_is_too_long_is_refused_with_its_line(
    name: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"(?s)line 3: .* is not in"):
        scan(root, tmp_path, f"path,label,subject\np1.avi,joy,A\n{name},sad,B\n")
