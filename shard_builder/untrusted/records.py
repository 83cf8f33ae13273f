"""JSON records of a folder: one schema each, checked by msgspec, one line for what is wrong.

A schema is a dataclass; its annotations say types and ranges, its ``__post_init__`` the rest.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from shard_builder.errors import InputError
from shard_builder.files import read_regular
from shard_builder.untrusted.text import clean

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
"""A number of things; what holds them is compared where they are read."""
MOST_MESSAGE = 400
MOST_BYTES = 1 << 26
"""Of a record, unless its reader says otherwise."""


def parse_record(
    data: bytes,
    schema: type[T],
    *,
    place: str,
    error: type[InputError] = InputError,
    what: str = "",
    advice: str = "",
) -> T:
    """Parse a JSON document into its schema.

    Args:
        data: UTF-8.
        schema: A dataclass, or another type of msgspec's.
        place: What the message begins with: the file, or file and line.
        error: Raised in the place of ``InputError``.
        what: It should be, to name in the message: ``a split``.
        advice: A second line: what to do.

    Raises:
        InputError: If it is not JSON, names a key twice, nests too deep, or a field is missing or
            not as the schema says; the message names the field.
    """
    try:
        record = msgspec.json.decode(data, type=schema, strict=True)
        json.loads(data, object_pairs_hook=_refuse_repeated)
    except msgspec.ValidationError as fault:
        reason = _field_first(str(fault), data)
    except (ValueError, UnicodeError) as fault:
        reason = f"is not JSON ({clean(fault)})"
    except RecursionError:
        reason = "nests too deep, expected a record"
    else:
        return record
    reason = f"is not {what}: {reason}" if what else reason
    raise error(f"{place}: {reason}{_as_line(advice)}")


def read_record(
    path: Path,
    schema: type[T],
    *,
    most_bytes: int = MOST_BYTES,
    error: type[InputError] = InputError,
    what: str = "",
    advice: str = "",
) -> T:
    """Read a JSON file into its schema; see :func:`parse_record`.

    Raises:
        InputError: Also if it is no regular file or larger than ``most_bytes``.
    """
    data = read_regular(path, most_bytes=most_bytes, error=error)
    return parse_record(data, schema, place=str(path), error=error, what=what, advice=advice)


def convert_record(value: Any, schema: type[T], *, place: str, advice: str = "") -> T:
    """Check plain Python values against a schema; see :func:`parse_record`."""
    try:
        return msgspec.convert(value, schema, strict=True)
    except (msgspec.ValidationError, RecursionError) as fault:
        raise InputError(f"{place}: {_field_first(str(fault), value)}{_as_line(advice)}") from None


def check_version(
    data: bytes,
    *,
    format: str,
    versions: Collection[int],
    place: str,
    what: str,
    error: type[InputError] = InputError,
) -> int:
    """Make sure that a JSON record is of a format and a version that are known.

    Args:
        data: The record.
        format: What its field ``format`` says.
        versions: What its field ``version`` may say.
        place: Of the record.
        what: It should be, and what wrote it: ``manifest of ckshard``.
        error: Raised in the place of ``InputError``.

    Returns:
        Its version.

    Raises:
        InputError: If it is of another.
    """
    try:
        header = msgspec.json.decode(data, type=_Header)
    except (ValueError, RecursionError):  # the whole message stands in one place
        header = parse_record(data, _Header, place=place, error=error)
    if header.format != format:
        raise error(f"{place}: not a {what}, expected format {format!r}")
    if isinstance(header.version, bool) or header.version not in list(versions):
        known = " or ".join(map(str, sorted(versions)))
        raise error(
            f"{place}: version {clean(repr(header.version))}, expected {known}\n"
            f"  Use the {what.split()[-1]} that wrote it."
        )
    return int(header.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    format: Any = None
    version: Any = None


def read_lines(path: Path, schema: type[T], *, most_bytes: int = MOST_BYTES) -> list[T]:
    """Read JSON lines; what follows the last line break is left out.

    Raises:
        InputError: If a line is not as its schema says; the message names file, line and field.
    """
    lines, _ = split_lines(read_regular(path, most_bytes=most_bytes))
    return [
        parse_record(line, schema, place=f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
    ]


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole lines of a text, and what follows the last line break."""
    *lines, rest = data.split(b"\n")
    return lines, rest


def _field_first(fault: str, record: Any) -> str:
    """Turn msgspec's ``Expected `int`, got `bool` - at `$.a.b``` into ``a.b: true, expected ...``.

    Args:
        fault: The message.
        record: The JSON text, or the value.
    """
    what, separator, where = fault.rpartition(" - at `")
    if not separator:
        return clean(fault, most=MOST_MESSAGE)
    path = where.rstrip("`").removeprefix("key in ").removeprefix("$")
    what = f"{what[:1].lower()}{what[1:]}".replace("`", "")
    found = _quoted(record, path)
    return clean(f"{path.removeprefix('.') or 'record'}: {found}{what}", most=MOST_MESSAGE)


def _quoted(record: Any, path: str) -> str:
    """Return the value at a path that names no unknown key, as text with a comma."""
    try:
        value = json.loads(record) if isinstance(record, bytes) else record
        for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
            value = value[name] if name else value[int(index)]
        return f"{clean(json.dumps(value), most=40)}, "
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _as_line(advice: str) -> str:
    return f"\n  {advice}" if advice else ""


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {key!r} appears twice")
