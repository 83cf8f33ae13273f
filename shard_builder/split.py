"""Which sequences train and which validate: data beside the dataset, so no shard is rebuilt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from shard_builder.checks import check_choice, check_integer, check_keys
from shard_builder.errors import InputError, counted
from shard_builder.files import write_atomically
from shard_builder.parts.lists import folds_of_lists, keys_of_list
from shard_builder.parts.official import numbered_folds, sides_of_folds
from shard_builder.parts.subjects import USUAL_FOLDS, choose_num_folds, subject_folds
from shard_builder.untrusted.records import read_record
from shard_builder.untrusted.text import clean

MOST_BYTES = 1 << 27
SplitKind = Literal["subject-kfold", "loso", "original-random", "fold", "list"]


class LabelledSequences(Protocol):
    """What a split is made of, of each row. An open dataset is one."""

    @property
    def keys(self) -> Sequence[str]:
        """Key of each row."""

    @property
    def subjects(self) -> Sequence[str]:
        """Subject of each row."""

    @property
    def labels(self) -> Sequence[int] | npt.NDArray[np.int64]:
        """Class index of each row."""

    @property
    def folds(self) -> Sequence[str]:
        """Official fold or part of each row."""

    @property
    def sources(self) -> Sequence[str]:
        """Path of each row in what the dataset was built from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Keys of the training and of the validation sequences; both streams use the same one.

    Args:
        kind: ``subject-kfold``, ``loso`` (leave one subject out), ``original-random``, ``fold``
            (official parts) or ``list``.
        parameters: What it was made with, for instance ``{"num_folds": 10, "fold": 0}``.
        train: Keys, sorted.
        val: Keys, sorted; none of them in ``train``.
        test: Keys, sorted, in neither of them: held out of everything but ``cktrain test``.

    Raises:
        InputError: If the kind is unknown or a key is on two sides.
    """

    kind: SplitKind
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, SplitKind)
        for side in ("train", "val", "test"):
            keys = check_keys(side, getattr(self, side))
            object.__setattr__(self, side, tuple(sorted(keys)))
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            if both := set(getattr(self, one)) & set(getattr(self, other)):
                raise InputError(
                    f"{counted(len(both), 'sequence is', 'sequences are')} in {one} and in {other},"
                    f" the first is {clean(min(both))}"
                )

    def to_json(self) -> str:
        """Return the split as JSON text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """Hash the keys on all sides; equal for equal splits, however they were made."""
        sides = [self.train, self.val, *([self.test] if self.test else [])]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def make_split(
    dataset: LabelledSequences,
    kind: SplitKind | str | Path = "subject-kfold",
    *,
    folds: int | None = None,
    fold: int = 0,
    subject: str = "",
    seed: int = 0,
) -> Split:
    """Split the sequences of a dataset into training and validation.

    Args:
        dataset: An open dataset, or anything else with the same columns.
        kind: ``subject-kfold``, ``loso`` (leave one subject out), ``original-random`` (the
            original's own; subjects leak), ``fold`` (the official parts that the source names), or
            a file: JSON of an earlier split, a list in the original's form, or lists of parts with
            ``{fold}`` in their name (``{fold}_list.txt``).
        folds: For ``subject-kfold``: number of folds; None takes 10, or as many as there are
            subjects if that is fewer.
        fold: For ``subject-kfold``: the fold to validate on, from 0; for official folds its number.
        subject: For ``loso``: the subject to validate on.
        seed: For ``original-random``.

    Raises:
        InputError: If an argument is out of range, or a file does not fit the dataset.
    """
    keys, subjects = dataset.keys, dataset.subjects
    if kind == "subject-kfold":
        num_folds = choose_num_folds(subjects, folds)
        return split_subject_kfold(keys, subjects, num_folds=num_folds, fold=fold)
    if kind == "loso":
        if not subject:
            raise InputError(
                "kind='loso' needs the subject to validate on, for instance"
                f" subject={min(subjects)!r}"
            )
        return split_leave_one_subject_out(keys, subjects, subject=subject)
    if kind == "original-random":
        labels = _integers("labels", dataset.labels)
        check_integer("seed", seed, low=0, high=(1 << 64) - 1)
        return split_original_random(keys, labels, seed=seed)
    if kind == "fold":
        check_integer("fold", fold, low=0, high=1 << 62)
        return split_official(keys, dataset.folds, fold=fold)
    if "{fold}" in str(kind):
        official = folds_of_lists(str(kind), dataset.sources, subjects)
        return split_official(keys, official, fold=fold)
    path = Path(kind)
    if not path.is_file():
        raise InputError(
            f"kind={str(kind)!r}, expected subject-kfold, loso, original-random, fold or a file"
            " with a split's JSON or 'path count label' lines"
        )
    if path.suffix != ".json":
        return split_from_list(keys, path)
    split = read_split(path)
    if unknown := {*split.train, *split.val, *split.test} - set(keys):
        raise InputError(
            f"{path}: {counted(len(unknown), 'sequence is', 'sequences are')} not in the dataset,"
            f" the first is {clean(min(unknown))}"
        )
    return split


def _integers(name: str, values: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
    found = np.asarray(values)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(
            f"{name} of shape {found.shape} and dtype {found.dtype}, expected integers (n,)"
        )
    return [int(value) for value in found]


def folds_notice(split: Split, *, folds: int | None) -> str:
    """Say that there are fewer folds by subjects than usual; empty if there are not, or if their
    number was given.
    """
    num_folds = split.parameters.get("num_folds", USUAL_FOLDS)
    if folds is not None or split.kind != "subject-kfold" or num_folds == USUAL_FOLDS:
        return ""
    return f"notice: {num_folds} subjects, so {num_folds} folds in place of {USUAL_FOLDS}"


def split_subject_kfold(
    keys: Sequence[str], subjects: Sequence[str], *, num_folds: int, fold: int
) -> Split:
    """Validate on one fold of the subjects, train on the others."""
    fold_of = subject_folds(subjects, num_folds=num_folds)
    check_integer("fold", fold, low=0, high=num_folds - 1)
    val = {key for key, subject in zip(keys, subjects, strict=True) if fold_of[subject] == fold}
    return _split("subject-kfold", {"num_folds": num_folds, "fold": fold}, keys, val)


def split_leave_one_subject_out(
    keys: Sequence[str], subjects: Sequence[str], *, subject: str
) -> Split:
    """Validate on one subject, train on all others."""
    if subject not in subjects:
        known = sorted(set(subjects))
        raise InputError(
            f"subject={subject!r} is not in the dataset, expected one of {known[0]} ..."
            f" {known[-1]} ({len(known)})"
        )
    val = {key for key, other in zip(keys, subjects, strict=True) if other == subject}
    return _split("loso", {"subject": subject}, keys, val)


def split_original_random(
    keys: Sequence[str], labels: Sequence[int], *, seed: int, fraction: float = 0.1
) -> Split:
    """Draw ``int(n * fraction)`` sequences of each class for validation; subjects leak.

    Source: two_stream_for_emotion_recognition, datasets/split.py (there without a seed, and once
        per stream).
    """
    generator = np.random.Generator(np.random.Philox(seed))
    label_of = dict(zip(keys, labels, strict=True))
    val: set[str] = set()
    for label in sorted(set(labels)):
        members = sorted(key for key in keys if label_of[key] == label)
        drawn = generator.permutation(len(members))[: int(len(members) * fraction)]
        val |= {members[index] for index in drawn}
    if not val:
        raise InputError(
            f"original-random: no class has {round(1 / fraction)} sequences, so none is left for"
            " validation"
        )
    return _split("original-random", {"seed": seed}, keys, val)


def split_official(keys: Sequence[str], folds: Sequence[str], *, fold: int) -> Split:
    """Split by official parts or folds; see :func:`shard_builder.parts.official.sides_of_folds`."""
    sides = sides_of_folds(folds, fold=fold)
    train, val, test = (
        tuple(key for key, own in zip(keys, sides, strict=True) if own == side)
        for side in ("train", "val", "test")
    )
    parameters = {"fold": fold} if numbered_folds(folds) else {}
    return Split(kind="fold", parameters=parameters, train=train, val=val, test=test)


def split_from_list(keys: Sequence[str], path: Path) -> Split:
    """Validate on the sequences of a list in the original's form, and train on all others.

    Raises:
        InputError: As :func:`shard_builder.parts.lists.keys_of_list`, or if nothing is left to
            train on.
    """
    val = keys_of_list(keys, path)
    if not val or val == set(keys):
        raise InputError(
            f"{path}: {len(val)} of {counted(len(keys), 'sequence')}, expected some for validation"
            " and some to train on"
        )
    return _split("list", {"list": path.name}, keys, val)


def _split(
    kind: SplitKind, parameters: Mapping[str, int | str], keys: Sequence[str], val: set[str]
) -> Split:
    train = tuple(key for key in keys if key not in val)
    return Split(kind=kind, parameters=parameters, train=train, val=tuple(val))


def leaking_subjects(split: Split, subject_of: Mapping[str, str]) -> tuple[str, ...]:
    """Return the subjects that train and validate or test as well, sorted."""
    train, others = (
        {subject_of[key] for key in side} for side in (split.train, split.val + split.test)
    )
    return tuple(sorted(train & others))


def leak_warning(split: Split, subject_of: Mapping[str, str], *, has_subjects: bool = True) -> str:
    """Return a loud line if a face may be on both sides, else an empty one."""
    if not has_subjects:
        return (
            "WARNING: the source names no subjects, so the same face may be in training and in"
            " validation. Accuracy on this split is not accuracy on new people."
        )
    leaking = leaking_subjects(split, subject_of)
    if not leaking:
        return ""
    num_val = sum(subject_of[key] in leaking for key in split.val + split.test)
    return (
        f"WARNING: {counted(len(leaking), 'subject is', 'subjects are')} in training AND in"
        f" validation; {num_val} of {counted(len(split.val + split.test), 'validation sequence')}"
        " show a known face. Accuracy on this split is not accuracy on new people."
    )


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON."""
    write_atomically(path, split.to_json().encode())


def read_split(path: Path) -> Split:
    """Read a split from JSON.

    Raises:
        InputError: If the file is missing or is not a split.
    """
    advice = "Write one: ckshard split DATASET"
    return read_record(path, Split, most_bytes=MOST_BYTES, what="a split", advice=advice)
