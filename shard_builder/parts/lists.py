"""Lists that say which sequences of a dataset are in which part."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from shard_builder.errors import InputError
from shard_builder.lists import place, read_lines
from shard_builder.sources.labels import LIST_COLUMNS, find_lists, read_label_list
from shard_builder.sources.matching import Names


def keys_of_list(keys: Collection[str], path: Path) -> set[str]:
    """Return the keys that a list in the original's form names, ``path count label`` a line.

    A key is the last part of a path that is one of ``keys`` (the original's flow lists end in
    ``/x_flow``). A path that is in no dataset is an error: a silently shorter validation list would
    change the protocol.

    Raises:
        InputError: If the file cannot be read, or a line has no known key.
    """
    known, listed = set(keys), set()
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        name = " ".join(fields[:-2]) if len(fields) >= 3 else fields[0]
        named = [part for part in name.replace("\\", "/").split("/") if part in known]
        if not named:
            raise InputError(
                f"{place(path, number)}: {line.strip()!r} names no sequence of the dataset,"
                " expected 'path count label'"
            )
        listed.add(named[-1])
    return listed


def folds_of_lists(text: str, sources: Sequence[str], subjects: Sequence[str]) -> list[str]:
    """Return each sequence's part by lists with ``{fold}`` in their names.

    Args:
        text: ``lists/{fold}_list.txt``; see :func:`shard_builder.sources.labels.find_lists`.
        sources: What each sequence is called in what the dataset was built from.
        subjects: Whose it is.

    Raises:
        InputError: If a line names no sequence or several, or one is in two parts.
    """
    names = Names(sources, subjects)
    folds = [""] * len(sources)
    for path, fold in find_lists(Path(), text):
        for row in read_label_list(path, LIST_COLUMNS):
            name = row.get("clip")
            index = names.find(name, subject=row.get("subject"), place=row.place)
            if index is None:
                raise InputError(f"{row.place}: {name!r} names no sequence of the dataset")
            if folds[index] not in ("", fold):
                raise InputError(f"{row.place}: {name!r} is in {fold!r} and in {folds[index]!r}")
            folds[index] = fold
    return folds
