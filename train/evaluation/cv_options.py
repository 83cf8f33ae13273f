"""How a cross-validation is run; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from shard_builder.checks import check_choice, check_integer, option
from shard_builder.errors import InputError

CvSplit = Literal["subject-kfold", "original-random", "fold"]
CV_SPLITS: tuple[CvSplit, ...] = get_args(CvSplit)
Selection = Literal["fixed", "inner"]
Views = Literal["ten", "original"]


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
    folds: int = option(10, "Number of folds; official ones are as many as there are.")
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
        if self.folds < 2:
            raise InputError(f"folds={self.folds}, expected 2 or more")
        for fold in self.only if self.split != "fold" else ():
            check_integer("only", fold, low=0, high=self.folds - 1)
        if self.select == "inner" and (self.split != "subject-kfold" or self.folds < 3):
            raise InputError("select='inner' needs split='subject-kfold' and at least 3 folds")
