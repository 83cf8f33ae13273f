"""Lists and tables as people save them: encodings, delimiters, column names; faults by line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shard_builder.errors import InputError
from shard_builder.lists import has_header, read_lines, read_table

ROLES = {"video": ("video", "path"), "subject": ("subject",), "fold": ("fold",)}
TEXT = "video,subject\nsäd/André.mp4,Zoë\nb.mp4,B\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_common_encodings_and_line_ends_read_the_same(
    encoding: str, end: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    rows = read_table(path, ROLES, required=("video", "subject"))
    assert [dict(row.values) for row in rows] == [
        {"video": "säd/André.mp4", "subject": "Zoë"},
        {"video": "b.mp4", "subject": "B"},
    ]
    assert rows[1].place == f"{path}, line 3"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("video,subject\na.mp4,A\n怒り.mp4,B\n", "gbk"),
        ("video,subject\na.mp4,A\n怒り.mp4,B\n", "shift_jis"),
        ("video,subject\na.mp4,A\n분노.mp4,B\n", "euc-kr"),
        ("video,subject\na.mp4,A\nфжюя.mp4,B\n", "cp1251"),
        ("video,subject\na.mp4,A\nθψφξ.mp4,B\n", "iso8859-7"),
        ("video,subject\na.mp4,A\nšťastný.mp4,B\n", "iso8859-2"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_refused_by_line(
    text: str, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"list\.csv, line 3: its encoding cannot be told"):
        read_lines(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    for read in (read_lines, lambda path: read_table(path, ROLES)):
        try:
            read(path)
        except InputError as error:
            assert "list.csv" in str(error)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["Video{d}SUBJECT{d}x", " path {d}Subject{d}x"])
def test_delimiters_and_column_names_in_any_case(
    delimiter: str, header: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    line = f'"a{delimiter}b.mp4"{delimiter} A {delimiter}'
    path.write_text(f"\n{header.format(d=delimiter)}\n{line}\n\n")
    (row,) = read_table(path, ROLES)
    assert dict(row.values) == {"video": f"a{delimiter}b.mp4", "subject": "A"} and row.line == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("file,who\na,b\n", r"line 1: no column video or path; its columns are file, who"),
        ("video,subject\na\n", r"line 2: 1 field, expected 2 \(video, subject\)"),
        ("video,subject\na,b\n\nc,d,e\n", r"line 4: 3 fields, expected 2"),
        ('video,subject\na,b\n"c,d\ne,f\n', r"line 3: cannot be taken apart"),
        ('video,subject\n"a\nb",c\nd\n', r"line 4: 1 field"),
        ("video,path,subject\na,b,c\n", r"line 1: columns video and path are both the video"),
        ("video,subject\na,b\nc\0,d\n", r"line 3: holds control characters"),
    ],
)
def test_every_fault_of_a_table_has_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(path, ROLES, required=("video", "subject"))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "nowhere"):
        with pytest.raises(InputError, match=r"not a regular file|cannot be read"):
            read_lines(tmp_path / name)


def test_a_header_is_told_from_a_first_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for text, expected in (("Video;x\n", True), ("happy/video 3\n", False), ("", False)):
        path.write_text(text)
        assert has_header(path, ROLES, required="video") is expected
