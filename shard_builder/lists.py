"""Lists and tables that people write: any common encoding, ``,`` ``;`` or tab, any case of the
column names; every fault has its line.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from shard_builder.errors import InputError, counted

MAX_LIST_BYTES = 1 << 28
DELIMITERS = ",;\t"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LATIN_1_LETTERS = {*range(0xC0, 0x100)} - {0xD7, 0xF7}
BINARY_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table.

    Args:
        file: The table.
        line: Line in the file that the row begins on, from 1.
        values: Text by role, without blanks around it; a role whose column the table lacks is
            absent.
    """

    file: Path
    line: int
    values: Mapping[str, str]

    @property
    def place(self) -> str:
        """``table.csv, line 7``: what the messages about this row begin with."""
        return place(self.file, self.line)

    def get(self, role: str) -> str:
        """Return a value, empty if the table has no such column."""
        return self.values.get(role, "")


def place(path: Path, line: int) -> str:
    """Return ``path, line 7``."""
    return f"{path}, line {line}"


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines, without their ends.

    UTF-8, UTF-16 and UTF-32 are told by their byte order mark or their zeros, Latin-1 by lone
    accented letters among plain ones. Nothing else is guessed: a multi-byte encoding such as GBK
    would turn into wrong names without a word.

    Args:
        path: A regular file, of at most ``MAX_LIST_BYTES``.

    Raises:
        InputError: If the file cannot be read, is too large, or its encoding cannot be told; then
            the message names the line.
    """
    data = _read_bytes(path)
    text = _decode(path, data)
    lines = re.split(r"\r\n|\n|\r", text)
    for number, line in enumerate(lines, start=1):
        if BINARY_CONTROL.search(line):
            raise InputError(
                f"{place(path, number)}: holds control characters, expected text (UTF-8)"
            )
    return lines[:-1] if lines and not lines[-1] else lines


def read_table(
    path: Path, roles: Mapping[str, Collection[str]], *, required: Collection[str] = ()
) -> list[Row]:
    """Read a table whose first line names the columns.

    The delimiter is the one that finds the most columns; names are compared without case and
    blanks around them. Empty lines are left out.

    Args:
        path: The file.
        roles: What is wanted of it: role -> names its column may have.
        required: Roles that must have a column.

    Raises:
        InputError: If the file cannot be read (:func:`read_lines`), a required column is missing or
            a wanted one occurs twice, or a row has more or fewer fields than there are columns.
    """
    lines = read_lines(path)
    if lines and re.fullmatch(r"sep=.", lines[0], re.IGNORECASE):  # Excel's own first line
        lines[0] = ""
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise InputError(f"{path}: is empty, expected a table whose first line names its columns")
    delimiter, columns, role_of = _read_header(path, first + 1, lines[first], roles)
    missing = [role for role in required if role not in role_of.values()]
    if missing:
        wanted = " or ".join(roles[missing[0]])
        raise InputError(
            f"{place(path, first + 1)}: no column {wanted}; its columns are {', '.join(columns)}"
        )
    rows = []
    for number, fields in _read_records(path, lines, first + 1, delimiter):
        if len(fields) != len(columns):
            raise InputError(
                f"{place(path, number)}: {counted(len(fields), 'field')}, expected {len(columns)}"
                f" ({', '.join(columns)})"
            )
        values = {role: fields[index].strip() for index, role in role_of.items()}
        rows.append(Row(file=path, line=number, values=values))
    return rows


def has_header(path: Path, roles: Mapping[str, Collection[str]], *, required: str) -> bool:
    """Tell whether a file's first line names a column for the role ``required``."""
    line = next((line for line in read_lines(path) if line.strip()), "")
    names = {name.casefold() for name in roles[required]}
    return any(
        field.strip().casefold() in names
        for delimiter in DELIMITERS
        for field in _split_line(line, delimiter)
    )


def _read_bytes(path: Path) -> bytes:
    try:
        # A pipe in a list's place would be waited for; one opened without blocking is only seen.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: is not a regular file, expected a list or table")
            if status.st_size > MAX_LIST_BYTES:
                raise InputError(
                    f"{path}: {status.st_size} bytes, expected a list of at most {MAX_LIST_BYTES}"
                )
            return file.read(MAX_LIST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None and len(data) % 2 == 0 and data.count(0) > len(data) // 4:
        encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    if encoding is None and _is_latin_1(data):
        encoding = "latin-1"
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{place(path, line)}: its encoding cannot be told (byte 0x{data[error.start]:02x} at"
            f" {error.start} is not {(encoding or 'utf-8').upper()}), expected UTF-8; save the file"
            " as UTF-8"
        ) from None


def _is_latin_1(data: bytes) -> bool:
    """Whether all bytes beyond ASCII are lone accented letters, and the text is not UTF-8.

    Two in a row are what one character of a multi-byte encoding, or a word in another alphabet,
    looks like.
    """
    high = [index for index, byte in enumerate(data) if byte >= 0x80]
    return (
        bool(high)
        and all(data[index] in LATIN_1_LETTERS for index in high)
        and all(later - earlier > 1 for earlier, later in pairwise(high))
    )


def _split_line(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _read_header(
    path: Path, number: int, line: str, roles: Mapping[str, Collection[str]]
) -> tuple[str, list[str], dict[int, str]]:
    """Return the delimiter, the column names, and the role of each wanted column by position."""
    role_by_name = {name.casefold(): role for role, names in roles.items() for name in names}
    splits = {delimiter: _split_line(line, delimiter) for delimiter in DELIMITERS}

    def rank(delimiter: str) -> tuple[int, int]:
        columns = splits[delimiter]
        return sum(c.strip().casefold() in role_by_name for c in columns), len(columns)

    delimiter = max(DELIMITERS, key=rank)
    columns = [column.strip() for column in splits[delimiter]]
    role_of = {
        index: role_by_name[column.casefold()]
        for index, column in enumerate(columns)
        if column.casefold() in role_by_name
    }
    for role in set(role_of.values()):
        named = [columns[index] for index, other in role_of.items() if other == role]
        if len(named) > 1:
            raise InputError(
                f"{place(path, number)}: columns {' and '.join(named)} are both the {role},"
                " expected one"
            )
    return delimiter, columns, role_of


def _read_records(
    path: Path, lines: Sequence[str], begin: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the records after ``begin`` lines; a quoted field may hold
    line breaks.
    """
    reader = csv.reader((line + "\n" for line in lines[begin:]), delimiter=delimiter, strict=True)
    number = begin + 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield number, fields
            number = begin + reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{place(path, number)}: cannot be taken apart ({error})") from None
