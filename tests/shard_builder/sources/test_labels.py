"""Labels, subjects and parts from the set's own lists; classes renamed, merged and chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shard_builder.errors import InputError, SourceError
from shard_builder.sources.detect import scan_source
from shard_builder.sources.options import ScanOptions
from shard_builder.sources.sequence import Source
from tests.face_sets import write_frames, write_images, write_video

LAYOUT = "clips/{subject}/{clip}/img_{frame}.jpg"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for subject in ("01", "02"):
        for clip in ("c 7", "0008"):
            write_frames(tmp_path / "clips" / subject / clip, "img_{}.jpg")
    return tmp_path


def scan(root: Path, text: str | bytes, name: str = "list.txt", **options: object) -> Source:
    data = text if isinstance(text, bytes) else text.encode()
    (root / name).write_bytes(data)
    chosen = {"layout": LAYOUT, "labels": name, **options}
    return scan_source(root, ScanOptions(**chosen))  # type: ignore[arg-type]


def labels_of(source: Source) -> dict[str, str]:
    return {sequence.source: sequence.emotion for sequence in source.sequences}


EXPECTED = {"clips/01/0008": "joy", "clips/01/c 7": "sad", "clips/02/0008": "sad"}


@pytest.mark.parametrize(
    "text",
    [
        "01/8 joy\n01/c 7 sad\n02/0008 sad\n",
        "01/8 6 joy\n/data/clips/01/c 7 6 sad\n\n02/0008/ 6 sad\n",
        "01/8,joy\n01/c 7,sad\n02\\0008,sad\n",
        "01/8\t6\tjoy\n01/c 7\t6\tsad\n02/0008\t6\tsad\n",
        "Video_Name;label\n01/8;joy\n01/c 7;sad\n02/0008;sad\n",
        "subject,clip,x,emotion\n1,8,,joy\n1,c 7,,sad\n2,8,,sad\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_form_of_a_list_is_read(text: str, encoding: str, clips: Path) -> None:
    source = scan(clips, text.encode(encoding))
    assert labels_of(source) == EXPECTED
    assert source.left_out == {"clips that no list names": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("01/8 joy\n01/9 sad\n", r"list\.txt, line 2: no clip '01/9' in"),
        ("8 joy\n", r"list\.txt, line 1: '8' names 2 clips .*name more of the path"),
        (
            "01/8 joy\n01/0008 sad\n",
            r"line 2: '01/0008' has the label 'sad', but 'joy' in .*line 1",
        ),
        ("01/8 5 joy\n", r"line 1: '01/8' has the number of frames 5, but 6 are in"),
        ("01/8,6,joy,x\n01/c 7,6,sad,x\n", r"line 1: 4 fields"),
        ("clip,label,subject\n01/8,joy,2\n", r"line 2: '01/8' is of subject '2', but .* '01'"),
        ("clip,label\n01/8,\n", r"line 2: .*no label"),
        ("clip,label,apex\n01/8,joy,7\n", r"line 2: .*apex 7 is the number of no frame"),
        ("clip,label,apex\n01/8,joy,x\n", r"line 2: .*apex 'x', expected the number of a frame"),
        ("clip,label,onset,apex\n01/8,joy,4,2\n", r"onset 4, apex 2, expected onset <= apex"),
        ("\n", r"list\.txt: is empty"),
        (b"01/8 joy\n\xff\xc3\xa9 sad\n", r"list\.txt, line 2: its encoding cannot be told"),
    ],
)
def test_every_fault_of_a_list_has_its_line(text: str | bytes, words: str, clips: Path) -> None:
    with pytest.raises(InputError, match=words):
        scan(clips, text)


def test_a_line_without_a_clip_is_skipped_and_named_on_request(clips: Path) -> None:
    source = scan(clips, "01/8 joy\n01/9 sad\n", on_error="skip")
    assert labels_of(source) == {"clips/01/0008": "joy"}
    (skipped,) = source.skipped
    assert "line 2" in skipped.reason and skipped.key == "01/9"


def test_the_name_of_a_list_is_the_part(clips: Path) -> None:
    (clips / "val_list.txt").write_text("02/8 sad\n")
    source = scan(clips, "01/8 joy\n", "train_list.txt", labels="{fold}_list.txt")
    assert {s.source: s.fold for s in source.sequences} == {
        "clips/01/0008": "train",
        "clips/02/0008": "val",
    }
    (clips / "val_list.txt").write_text("02/8 sad\n01/8 joy\n")
    with pytest.raises(SourceError, match=r"val_list\.txt, line 2: .*the fold 'val', but 'train'"):
        scan(clips, "01/8 joy\n", "train_list.txt", labels="{fold}_list.txt")
    with pytest.raises(InputError, match=r"labels='nowhere\.txt': no such file"):
        scan(clips, "", labels="nowhere.txt")


def test_columns_of_other_names_and_numbers_as_in_the_files(clips: Path) -> None:
    text = "Nr,Film,Kind,First,Peak\n1,01/8,joy,2,4\n2,01/c 7,sad,,/\n"
    source = scan(clips, text, columns="clip=Film,emotion=Kind,onset=First,apex=Peak")
    first, second = source.sequences
    assert (first.onset, first.apex, first.offset, first.expected_num_frames) == (1, 3, None, 5)
    assert (second.onset, second.apex) == (None, None)
    counted = scan(
        clips, text, columns="clip=Film,emotion=Kind,onset=First,apex=Peak", frames_from_0=True
    )
    assert (counted.sequences[0].onset, counted.sequences[0].apex) == (2, 4)
    for columns in ("film=Film", "clip", "clip=Film,video=Film"):
        with pytest.raises(InputError, match=re.escape(f"columns='{columns}'")):
            scan(clips, text, columns=columns)


def test_a_list_of_codes_must_agree_with_the_folders(tmp_path: Path) -> None:
    for label in ("joy", "sad"):
        for number in (1, 2):
            write_video(tmp_path / label / f"p{number}_x.avi")
    lines = ["joy/p1_x 0", "joy/p2_x 0", "sad/p1_x 1", "sad/p2_x 1"]
    layout = "{label}/{subject}_*.avi"
    source = scan(tmp_path, "\n".join(lines), layout=layout)
    assert set(labels_of(source).values()) == {"joy", "sad"}
    with pytest.raises(SourceError, match=r"line 4: .*label '0' and by the layout 'sad'"):
        scan(tmp_path, "\n".join([*lines[:3], "sad/p2_x 0"]), layout=layout)
    only_names = "\n".join(line.split()[0] for line in lines[:3])
    assert len(scan(tmp_path, only_names, layout=layout).sequences) == 3


def test_match_says_how_a_list_names_a_clip(tmp_path: Path) -> None:
    write_images(tmp_path / f"{part}_{n:05d}_aligned.jpg" for part in ("a", "b") for n in (1, 2))
    layout = "{part}_{number}_aligned.jpg"
    text = "a_00001.jpg 1\na_00002.jpg 2\nb_00001.jpg 2\nb_00002.jpg 1\n"
    source = scan(tmp_path, text, layout=layout, match="{part}_{number}", no_subjects=True)
    assert labels_of(source)["b_00001_aligned.jpg"] == "2" and not source.has_subjects
    with pytest.raises(InputError, match=r"match='\{nr\}': expected names of the layout: \{part\}"):
        scan(tmp_path, text, layout=layout, match="{nr}", no_subjects=True)


def class_counts(source: Source) -> dict[str, int]:
    names = [sequence.emotion for sequence in source.sequences]
    return {name: names.count(name) for _, name in source.classes}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for label in ("05", "10", "3", "Joy"):
        for subject in ("p1", "p2"):
            write_video(root / label / f"{subject}_x.avi")
    return root


@pytest.mark.parametrize(
    ("classes", "counts", "left_out"),
    [
        ("05=angry,3=happy", {"10": 2, "Joy": 2, "angry": 2, "happy": 2}, {}),
        ("positive=Joy|3", {"05": 2, "10": 2, "positive": 4}, {}),
        ("a=3|05,10=b", {"Joy": 2, "a": 4, "b": 2}, {}),
        ("3,Joy", {"3": 2, "Joy": 2}, {"05": 2, "10": 2}),
        ("05=,10=x", {"3": 2, "Joy": 2, "x": 2}, {"05": 2}),
        ("x=05|3,10", {"10": 2, "x": 4}, {"Joy": 2}),
        ("05=anger,3=fear,10=,Joy=", {"anger": 2, "fear": 2}, {"10": 2, "Joy": 2}),
    ],
)
def test_classes_are_renamed_merged_and_chosen(
    classes: str, counts: dict[str, int], left_out: dict[str, int], videos: Path
) -> None:
    source = scan_source(videos, ScanOptions(layout="{label}/{subject}_*.avi", classes=classes))
    assert class_counts(source) == counts
    assert source.left_out == {f"sequences of class {name}": n for name, n in left_out.items()}
    if set(counts) == {"anger", "fear"}:
        assert source.classes == ((1, "anger"), (4, "fear")), "CK+'s own codes"


def test_classes_are_in_the_order_of_their_numbers(videos: Path) -> None:
    source = scan_source(videos, ScanOptions(layout="{label}/{subject}_*.avi"))
    assert [name for _, name in source.classes] == ["3", "05", "10", "Joy"]


@pytest.mark.parametrize(
    "classes", ["joy=x", "angry=05", "happy", "3,3", "=x", "7=x,8=y", "3=,05=,10=,Joy="]
)
def test_classes_that_cannot_be_are_quoted(classes: str, videos: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"classes='{classes}'")):
        scan_source(videos, ScanOptions(layout="{label}/{subject}_*.avi", classes=classes))


def test_a_renamed_class_that_is_not_there_is_named(videos: Path) -> None:
    options = ScanOptions(layout="{label}/{subject}_*.avi", classes="05=angry,07=disgust")
    assert scan_source(videos, options).left_out == {"sequences of class 07, which is not there": 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "video,subject\np1_x.avi,A\np2_x.avi,B\nJoy/p1_x,C\n",
            r"line 4: 'Joy/p1_x' is of 'C', but",
        ),
        ("Video;Subject\np1_x.avi;A\n", r"p2_x\.avi: not in .*subjects\.csv"),
    ],
)
def test_faults_of_a_table_of_subjects(text: str, words: str, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "subjects.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        scan_source(videos, ScanOptions(subjects=tmp_path / "subjects.csv"))


def test_rows_of_a_table_of_subjects_without_a_clip_are_counted(
    videos: Path, tmp_path: Path
) -> None:
    lines = ["VIDEO;Subject", "p1_x.avi;A", "p2_x;B", "p3_x.avi;C", "p4_x.avi;C"]
    (tmp_path / "subjects.csv").write_bytes("\n".join(lines).encode("utf-16"))
    source = scan_source(videos, ScanOptions(subjects=tmp_path / "subjects.csv"))
    assert {s.subject for s in source.sequences} == {"A", "B"}
    assert source.left_out == {
        "rows of subjects.csv without a clip, such as 'p3_x.avi' (line 4)": 2
    }
