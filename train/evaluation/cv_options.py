"""How a cross-validation is run; the command line is made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from shard_builder.checks import check_choice, check_integer, option
from shard_builder.errors import InputError

CvSplit = Literal["subject-kfold", "original-random", "fold"]
CV_SPLITS: tuple[CvSplit, ...] = get_args(CvSplit)
Selection = Literal["fixed", "inner"]
Views = Literal["ten", "original"]
LEAST_INNER_FOLDS = 3
MOST_FOLDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CvOptions:
    """Options of a cross-validation; the help text of each field says what it is.

    ``original-random`` draws the original's random sequence split with the fold's number as its
    seed; ``fold`` takes the numbered folds that the dataset names. ``inner`` leaves the next fold
    out of training too, and chooses the epoch on it.

    Raises:
        InputError: If a value cannot be; the message quotes it.
    """

    split: CvSplit = option(
        "subject-kfold", "fold: the official ones; original-random to measure its leak."
    )
    folds: int | None = option(
        None, "Number of folds; 10, or one a subject if fewer, unless given. Not of official ones."
    )
    only: tuple[int, ...] = option(
        (), "Folds of this process, such as 0,3; else all that are free."
    )
    select: Selection = option(
        "fixed", "fixed tests the last epoch; inner chooses it on a further fold left out."
    )
    views: Views = option("ten", "original: the original's own sampling.")

    def __post_init__(self) -> None:
        check_choice("split", self.split, CvSplit)
        check_choice("select", self.select, Selection)
        check_choice("views", self.views, Views)
        if self.folds is not None and self.folds < 2:
            raise InputError(f"folds={self.folds}, expected 2 or more")
        if self.folds is not None and self.folds > MOST_FOLDS:
            raise InputError(f"folds={self.folds}, expected {MOST_FOLDS} or less")
        if self.folds is not None and self.split == "fold":
            raise InputError(
                f"folds={self.folds} with split='fold': the dataset names its folds\n"
                "  Leave one of them out."
            )
        if self.folds is not None:
            self.check_numbers(range(self.folds))

    def check_numbers(self, numbers: Sequence[int]) -> None:
        """Make sure that the other options fit the folds that there are.

        Args:
            numbers: The number of each.

        Raises:
            InputError: If ``only`` names another, or there are too few to select a fold.
        """
        if self.split == "fold":
            if unknown := set(self.only) - set(numbers):
                known = ", ".join(map(str, numbers))
                raise InputError(
                    f"only={min(unknown)}, expected some of the official folds {known}"
                )
        else:
            for fold in self.only:
                check_integer("only", fold, low=0, high=len(numbers) - 1)
        is_short = self.split != "subject-kfold" or len(numbers) < LEAST_INNER_FOLDS
        if self.select == "inner" and is_short:
            raise InputError(
                f"select='inner' needs split='subject-kfold' and at least {LEAST_INNER_FOLDS} folds"
            )
