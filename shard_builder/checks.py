"""Fields of options records, and checks of arguments and targets, which quote what does not fit."""

from __future__ import annotations

import errno
import numbers
import operator
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, get_args

from shard_builder.errors import InputError
from shard_builder.files import unwritable

OWN_SUFFIXES = {".tar", ".idx", ".arrow", ".pt", ".jsonl", ".parquet"}
OWN_NAMES = {"manifest.json", "config.json", "split.json", "test.json", "cv.json", "protocol.json"}
"""Of datasets and runs; no page, figure or record of a measurement is called so."""
# A ``Path`` writes the two slashes as one: a command whose argument is a path takes both.
ADDRESS = re.compile(r"(s3|gs|az|https?|file):/{1,3}(?=[^/])(.*)", re.DOTALL)
"""What names no place by a path."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Declare a field of an options record.

    Args:
        default: Its value unless given.
        help: What it is, for the command line and for readers.
        metadata: What else is to be known of it; ``flag`` if the flag is not called as the field.
    """
    return field(default=default, metadata={"help": help, **metadata})


def check_choice(argument: str, value: object, choices: Any) -> None:
    """Make sure that a value is one of the choices: those of a ``Literal`` type, or a list.

    Raises:
        InputError: If it is not.

    >>> check_choice("codec", "bmp", ("jpg", "png"))
    Traceback (most recent call last):
    shard_builder.errors.InputError: codec='bmp', expected one of jpg, png
    """
    names = get_args(choices) or tuple(choices)
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{argument}={value!r}, expected one of {', '.join(names)}")


def is_integer(value: object) -> bool:
    """Return whether a value is an integer, Python's or NumPy's, and no bool."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_flag(argument: str, value: object) -> None:
    """Make sure that a value is True or False.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(value, bool):
        raise InputError(f"{argument}={value!r}, expected True or False")


def check_integer(argument: str, value: object, *, low: int, high: int) -> None:
    """Make sure that a value is an integer (Python's or NumPy's; no bool) in ``low..high``.

    Raises:
        InputError: If it is not.
    """
    if not is_integer(value) or not low <= operator.index(value) <= high:  # type: ignore[arg-type]
        raise InputError(f"{argument}={value!r}, expected an integer from {low} to {high}")


def check_number(argument: str, value: object, *, low: float, high: float) -> None:
    """Make sure that a value is a real number (no bool, not nan) in ``low..high``.

    Raises:
        InputError: If it is not.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{argument}={value!r}, expected a number from {low} to {high}")


def check_keys(argument: str, keys: object) -> list[str]:
    """Return several keys as a list; one string would be taken for its letters.

    Raises:
        InputError: If they are one string, or one of them is none.
    """
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise InputError(f"{argument}={keys!r}, expected several keys\n  Pass [{keys!r}].")
    found = list(keys)
    for key in found:
        if not isinstance(key, str):
            raise InputError(f"{argument}: {key!r} is no key, expected strings such as 'S005_001'")
    return found


def set_plain(record: object, kind: type[int] | type[float], *names: str) -> None:
    """Make checked fields of a frozen record Python's own numbers: JSON knows no NumPy's."""
    for name in names:
        object.__setattr__(record, name, kind(getattr(record, name)))


def check_path(place: Path | str) -> None:
    """Make sure that what is written is no address: it would become folders called ``s3:``.

    Raises:
        InputError: If it is one.
    """
    if ADDRESS.fullmatch(str(place)):
        raise InputError(
            f"{place}: is an address, expected a path of this machine\n"
            "  ckshard push copies a dataset to a store; all else is written here."
        )


def check_targets(*targets: Path | None, inputs: Sequence[Path] = ()) -> None:
    """Make sure that files can be written once all work is done, and make their folders.

    Args:
        targets: The files; one that is there is going to be replaced.
        inputs: What is read meanwhile.

    Raises:
        InputError: If a target is an address, a folder, an input or a file that a dataset or a run
            is made of, or its folder cannot be written.
    """
    for target in targets:
        if target is None:
            continue
        check_path(target)
        if target.is_dir():
            raise InputError(f"{target}: is a folder, expected the name of a file to write")
        if target.exists() and any(other.exists() and target.samefile(other) for other in inputs):
            raise InputError(f"{target}: is the input, expected another file to write")
        if target.exists() and _is_part_of_another(target):
            raise InputError(
                f"{target}: belongs to the dataset or the run in that folder, expected another name"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(target.parent, os.W_OK):
                raise OSError(errno.EACCES, "its folder is read-only")
        except OSError as error:
            raise unwritable(target, error) from None


def _is_part_of_another(path: Path) -> bool:
    is_inside = any((path.parent / name).exists() for name in ("manifest.json", "config.json"))
    return is_inside and (path.name in OWN_NAMES or path.suffix in OWN_SUFFIXES)
