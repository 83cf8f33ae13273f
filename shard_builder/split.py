"""Which sequences train and which validate: data beside the dataset, so no shard is rebuilt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from shard_builder.checks import check_choice, check_integer
from shard_builder.errors import InputError
from shard_builder.files import write_atomically

SplitKind = Literal["subject-kfold", "loso", "original-random", "list"]


class LabelledSequences(Protocol):
    """What a split is made of: key, subject and label of each row. An open dataset is one."""

    @property
    def keys(self) -> Sequence[str]:
        """Key of each row."""

    @property
    def subjects(self) -> Sequence[str]:
        """Subject of each row."""

    @property
    def labels(self) -> Sequence[int] | npt.NDArray[np.int64]:
        """Class index of each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Keys of the training and of the validation sequences; both streams use the same one.

    Args:
        kind: ``subject-kfold``, ``loso`` (leave one subject out), ``original-random`` or ``list``.
        parameters: What it was made with, for instance ``{"num_folds": 10, "fold": 0}``.
        train: Keys, sorted.
        val: Keys, sorted; none of them in ``train``.

    Raises:
        InputError: If the kind is unknown or a key is on both sides.
    """

    kind: SplitKind
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    train: tuple[str, ...]
    val: tuple[str, ...]

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, SplitKind)
        object.__setattr__(self, "train", tuple(sorted(self.train)))
        object.__setattr__(self, "val", tuple(sorted(self.val)))
        if both := set(self.train) & set(self.val):
            raise InputError(
                f"{len(both)} sequences are in train and in val, the first is {min(both)}"
            )

    def to_json(self) -> str:
        """Return the split as JSON text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """Hash the keys on both sides; equal for equal splits, however they were made."""
        return hashlib.sha256(json.dumps([self.train, self.val]).encode()).hexdigest()


def make_split(
    dataset: LabelledSequences,
    kind: SplitKind | str | Path = "subject-kfold",
    *,
    folds: int = 10,
    fold: int = 0,
    subject: str = "",
    seed: int = 0,
) -> Split:
    """Split the sequences of a dataset into training and validation.

    Args:
        dataset: An open dataset, or anything else with keys, subjects and labels.
        kind: ``subject-kfold``, ``loso`` (leave one subject out), ``original-random`` (the
            original's own; subjects leak), or a file: JSON of an earlier split, or a list in the
            original's form.
        folds: For ``subject-kfold``: number of folds.
        fold: For ``subject-kfold``: the fold to validate on, from 0.
        subject: For ``loso``: the subject to validate on.
        seed: For ``original-random``.

    Raises:
        InputError: If an argument is out of range, or a file does not fit the dataset.
    """
    keys, subjects = dataset.keys, dataset.subjects
    if kind == "subject-kfold":
        return split_subject_kfold(keys, subjects, num_folds=folds, fold=fold)
    if kind == "loso":
        if not subject:
            raise InputError(
                "kind='loso' needs the subject to validate on, for instance"
                f" subject={min(subjects)!r}"
            )
        return split_leave_one_subject_out(keys, subjects, subject=subject)
    if kind == "original-random":
        labels = [int(label) for label in dataset.labels]
        return split_original_random(keys, labels, seed=seed)
    path = Path(kind)
    if not path.is_file():
        raise InputError(
            f"kind={str(kind)!r}, expected subject-kfold, loso, original-random or a file with a"
            " split's JSON or 'path count label' lines"
        )
    if path.suffix != ".json":
        return split_from_list(keys, path.read_text(encoding="utf-8"), name=path.name)
    split = read_split(path)
    if unknown := {*split.train, *split.val} - set(keys):
        raise InputError(
            f"{path}: {len(unknown)} sequences are not in the dataset, the first is {min(unknown)}"
        )
    return split


def subject_folds(subjects: Iterable[str], *, num_folds: int) -> dict[str, int]:
    """Map each subject to its fold: ids ascending, fold = index mod ``num_folds``.

    Raises:
        InputError: If there are fewer subjects than folds, or fewer than two folds.

    Source: the field's 10-fold subject-independent protocol on CK+; it reproduces Emotion-FAN's
        published fold file.
    """
    ordered = sorted(set(subjects))
    if not 2 <= num_folds <= len(ordered):
        raise InputError(
            f"folds={num_folds}, expected 2 to {len(ordered)} (the number of subjects)"
        )
    return {subject: index % num_folds for index, subject in enumerate(ordered)}


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


def split_from_list(keys: Sequence[str], text: str, *, name: str) -> Split:
    """Read validation sequences from a list in the original's form, ``path count label`` a line.

    All other sequences train. The key is the last part of the path that is one of ``keys`` (the
    original's flow lists end in ``/x_flow``). A path that is in no dataset is an error: a silently
    shorter validation list would change the protocol.

    Raises:
        InputError: If a line has no known key, or nothing is left to train on.
    """
    known, val = set(keys), set()
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        path = " ".join(fields[:-2]) if len(fields) >= 3 else fields[0]
        names = [part for part in path.replace("\\", "/").split("/") if part in known]
        if not names:
            raise InputError(
                f"{name}, line {number}: {line.strip()!r} names no sequence of the dataset,"
                " expected 'path count label'"
            )
        val.add(names[-1])
    if not val or val == known:
        raise InputError(
            f"{name}: {len(val)} of {len(known)} sequences, expected some for validation and some"
            " to train on"
        )
    return _split("list", {"list": name}, keys, val)


def _split(
    kind: SplitKind, parameters: Mapping[str, int | str], keys: Sequence[str], val: set[str]
) -> Split:
    train = tuple(key for key in keys if key not in val)
    return Split(kind=kind, parameters=parameters, train=train, val=tuple(val))


def leaking_subjects(split: Split, subject_of: Mapping[str, str]) -> tuple[str, ...]:
    """Return the subjects that are on both sides of a split, sorted."""
    train, val = ({subject_of[key] for key in side} for side in (split.train, split.val))
    return tuple(sorted(train & val))


def leak_warning(split: Split, subject_of: Mapping[str, str]) -> str:
    """Return a loud line if subjects are on both sides, else an empty one."""
    leaking = leaking_subjects(split, subject_of)
    if not leaking:
        return ""
    num_val = sum(subject_of[key] in leaking for key in split.val)
    return (
        f"WARNING: {len(leaking)} subjects are in training AND in validation; {num_val} of"
        f" {len(split.val)} validation sequences show a known face. Accuracy on this split is not"
        " accuracy on new people."
    )


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON."""
    write_atomically(path, split.to_json().encode())


def read_split(path: Path) -> Split:
    """Read a split from JSON.

    Raises:
        InputError: If the file is missing or is not a split.
    """
    advice = "  Write one: ckshard split DATASET"
    try:
        return Split(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected a split file\n{advice}"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is not a split ({error})\n{advice}") from None
