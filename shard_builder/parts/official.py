"""Official folds and parts of a set as the sides of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from shard_builder.errors import InputError
from shard_builder.sources.sequence import side_of_part
from shard_builder.sources.walk import natural_key

Side = Literal["train", "val", "test", ""]


def numbered_folds(folds: Sequence[str]) -> dict[int, str]:
    """Return the official folds that are not called train, val or test, by their numbers.

    A fold's number is the one in its name, ``3`` of ``set_3``; if names have none of their own, it
    is their place in order, from 0.

    >>> numbered_folds(["set_10", "set_2", "test", ""])
    {2: 'set_2', 10: 'set_10'}
    """
    names = sorted({name for name in folds if name and not side_of_part(name)}, key=natural_key)
    matches = [re.search(r"\d+", name) for name in names]
    numbers = [int(match[0]) for match in matches if match]
    if len(set(numbers)) < len(names):
        numbers = list(range(len(names)))
    return dict(zip(numbers, names, strict=True))


def sides_of_folds(folds: Sequence[str], *, fold: int) -> list[Side]:
    """Return the side that each sequence is on by its official fold or part.

    Of numbered folds, number ``fold`` validates and the others train. A part called test is held
    out; without a part called val, and without numbered folds, it validates. A sequence without a
    part is on no side.

    Args:
        folds: Official fold or part of each sequence; empty where there is none.
        fold: Number of the fold that validates, where there are numbered ones.

    Raises:
        InputError: If there are no parts or no such fold, or nothing trains or validates.
    """
    side_of: dict[str, Side] = {name: side_of_part(name) for name in set(folds) if name}
    if not side_of:
        raise InputError(
            "kind='fold', but the dataset names no official parts\n  Build it with {fold} in the"
            " layout or in the name of its lists, or with a column fold in the table."
        )
    numbered = numbered_folds(folds)
    if numbered and fold not in numbered:
        known = ", ".join(map(str, numbered))
        raise InputError(f"fold={fold}, expected one of the official folds {known}")
    side_of |= {name: "val" if number == fold else "train" for number, name in numbered.items()}
    if "val" not in side_of.values():
        side_of = {name: "val" if side == "test" else side for name, side in side_of.items()}
    sides: list[Side] = [side_of.get(name, "") for name in folds]
    if "train" not in sides or "val" not in sides:
        known = ", ".join(sorted(side_of))
        raise InputError(
            f"kind='fold': the official parts are {known}, expected one to train on and one to"
            " validate on"
        )
    return sides
