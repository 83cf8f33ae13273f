"""Folds by subjects: nobody is on both sides."""

from __future__ import annotations

from collections.abc import Iterable

from shard_builder.checks import is_integer
from shard_builder.errors import InputError

USUAL_FOLDS = 10


def choose_num_folds(subjects: Iterable[str], folds: int | None) -> int:
    """Return the number of folds by subjects: as given, else 10 or fewer where subjects are fewer.

    >>> choose_num_folds(["S005", "S010", "S011"], None)
    3
    """
    return min(USUAL_FOLDS, len(set(subjects))) if folds is None else folds


def subject_folds(subjects: Iterable[str], *, num_folds: int) -> dict[str, int]:
    """Map each subject to its fold: ids ascending, fold = index mod ``num_folds``.

    Raises:
        InputError: If there are fewer subjects than folds, or fewer than two folds.

    Source: the field's 10-fold subject-independent protocol on CK+; it reproduces Emotion-FAN's
        published fold file.
    """
    ordered = sorted(set(subjects))
    if len(ordered) < 2:
        raise InputError(
            f"subject-kfold: the dataset has {len(ordered)} subject, expected two or more"
        )
    if not is_integer(num_folds) or not 2 <= num_folds <= len(ordered):
        raise InputError(
            f"folds={num_folds!r}, expected 2 to {len(ordered)} (the number of subjects)"
        )
    return {subject: index % num_folds for index, subject in enumerate(ordered)}
