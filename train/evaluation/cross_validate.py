"""``cktrain cv``: every fold trained and tested once, by however many processes and hosts share the
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.dataset import Dataset, open_dataset
from shard_builder.errors import InputError
from shard_builder.split import Split, subject_folds, write_split
from train.running.train_run import run_train, split_of
from train.config import TrainConfig
from train.evaluation.cv_summary import CV_SPLITS, fold_dir, is_finished
from train.evaluation.evaluate import check_unseen, score_sequences, write_test
from train.evaluation.fold_lock import claim
from train.prediction.stream_model import check_fits, load_stream_model

SELECTIONS = ("fixed", "inner")


@dataclass(frozen=True, slots=True, kw_only=True)
class CvOptions:
    """How a cross-validation is run.

    Args:
        split: ``subject-kfold``, or ``original-random``: the original's random sequence split,
            drawn with the fold's number as its seed.
        num_folds: Folds in all.
        only: The folds this process takes; None takes all.
        select: ``fixed`` tests the last epoch; ``inner`` leaves the next fold out of training too,
            and chooses the epoch on it.
        views: ``ten`` or ``original``.
    """

    split: str = "subject-kfold"
    num_folds: int = 10
    only: tuple[int, ...] | None = None
    select: str = "fixed"
    views: str = "ten"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--split", self.split, CV_SPLITS),
            ("--select", self.select, SELECTIONS),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r}, expected one of {', '.join(choices)}")
        if self.num_folds < 2:
            raise InputError(f"--folds {self.num_folds}, expected 2 or more")
        for fold in self.only or ():
            if not 0 <= fold < self.num_folds:
                raise InputError(f"--only {fold}, expected folds 0 to {self.num_folds - 1}")
        if self.select == "inner" and (self.split != "subject-kfold" or self.num_folds < 3):
            raise InputError("--select inner needs --split subject-kfold and at least 3 folds")


def run_folds(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    options: CvOptions,
    *,
    given: Collection[str],
    on_fold: Callable[[int, str], None],
) -> int:
    """Train and test the folds that are not finished; returns the exit code of the first that was
    stopped, else 0.

    Args:
        config: Training options; split, folds and fold are replaced.
        dataset: Dataset folder.
        out: Cross-validation folder.
        options: Which folds.
        given: Names of the training options that the user gave.
        on_fold: Called with each fold's number and what became of it.

    Raises:
        InputError: If options do not fit, or a fold was begun with others.
    """
    for fold in options.only or range(options.num_folds):
        folder = fold_dir(out, config.stream, options.split, fold)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if is_finished(folder):
            on_fold(fold, "finished already, kept")
            continue
        with claim(folder.with_suffix(".lock")) as holder:
            if holder is not None:
                on_fold(fold, f"left to process {holder.pid} on {holder.host}")
                continue
            on_fold(fold, "training")
            code = _run_fold(config, dataset, folder, options, fold, given)
            if code:
                return code
            on_fold(fold, "finished")
    return 0


def _run_fold(
    config: TrainConfig,
    dataset: Path,
    folder: Path,
    options: CvOptions,
    fold: int,
    given: Collection[str],
) -> int:
    with open_dataset(dataset) as opened:
        outer, trained = fold_splits(config, opened, options, fold)
    split_file = folder.with_suffix(".split.json")
    write_split(split_file, trained)
    config = replace(config, split=str(split_file))
    code = run_train(config, dataset, folder, resume=True, given=given, quiet=True)
    if code == 0:
        checkpoint = "best" if options.select == "inner" else "last"
        test_fold(folder, dataset, outer.val, options, checkpoint=checkpoint, device=config.device)
    return code


def fold_splits(
    config: TrainConfig, dataset: Dataset, options: CvOptions, fold: int
) -> tuple[Split, Split]:
    """Return a fold's split, and the one to train with: the same, or with an inner validation fold
    in the place of the test fold.
    """
    if options.split == "original-random":
        outer = split_of(replace(config, split="original-random", seed=fold), dataset)
        return outer, outer
    outer = split_of(
        replace(config, split="subject-kfold", folds=options.num_folds, fold=fold), dataset
    )
    if options.select == "fixed":
        return outer, outer
    fold_of = subject_folds(dataset.subjects, num_folds=options.num_folds)
    subject_of = dict(zip(dataset.keys, dataset.subjects, strict=True))
    inner = (fold + 1) % options.num_folds
    is_inner = {key: fold_of[subject_of[key]] == inner for key in outer.train}
    trained = Split(
        kind="subject-kfold",
        parameters={"num_folds": options.num_folds, "fold": fold, "inner_fold": inner},
        train=tuple(key for key in outer.train if not is_inner[key]),
        val=tuple(key for key in outer.train if is_inner[key]),
    )
    return outer, trained


def test_fold(
    folder: Path,
    dataset: Path,
    keys: Sequence[str],
    options: CvOptions,
    *,
    checkpoint: str,
    device: str,
) -> None:
    """Score a fold's held-out sequences and write its test folder; a leaking split is tested too,
    for that is what it measures.
    """
    model = load_stream_model(folder, checkpoint=checkpoint, device=device)
    with open_dataset(dataset) as opened:
        check_fits(model, opened)
        if options.split == "subject-kfold":
            check_unseen([model], opened, keys)
        scores = score_sequences(
            model, opened, keys, views=options.views, batch_size=4, workers=None
        )
    write_test(
        folder / "test",
        [scores],
        class_names=model.class_names,
        views=options.views,
        checkpoint=checkpoint,
    )


test_fold.__test__ = False  # type: ignore[attr-defined]  # its name begins with test_, and pytest would collect it
