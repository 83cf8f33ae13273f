"""Fields of options records, and checks of single arguments, which quote what does not fit."""

from __future__ import annotations

import numbers
import operator
from dataclasses import field
from typing import Any, get_args

from shard_builder.errors import InputError


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


def check_integer(argument: str, value: object, *, low: int, high: int) -> None:
    """Make sure that a value is an integer (Python's or NumPy's; no bool) in ``low..high``.

    Raises:
        InputError: If it is not.
    """
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_integer or not low <= operator.index(value) <= high:  # type: ignore[arg-type]
        raise InputError(f"{argument}={value!r}, expected an integer from {low} to {high}")


def check_number(argument: str, value: object, *, low: float, high: float) -> None:
    """Make sure that a value is a real number (no bool, not nan) in ``low..high``.

    Raises:
        InputError: If it is not.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise InputError(f"{argument}={value!r}, expected a number from {low} to {high}")
