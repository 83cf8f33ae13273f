"""Every fold trained and tested once, by however many processes and hosts share the folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.dataset import Dataset, open_dataset
from shard_builder.errors import InputError
from shard_builder.files import folder_inside
from shard_builder.parts.official import numbered_folds
from shard_builder.split import Split, make_split, subject_folds, write_split
from train.config import TrainConfig
from train.evaluation.cv_options import CvOptions
from train.evaluation.cv_summary import fold_dir, is_finished
from train.evaluation.evaluate import check_unseen, score_sequences, write_evaluation
from train.evaluation.fold_lock import claim
from train.prediction.stream_model import check_fits, load_stream_model
from train.running.classes import count_classes
from train.running.train_run import run_train


def run_folds(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    options: CvOptions,
    *,
    given: Collection[str],
    on_fold: Callable[[int, str], None],
) -> int:
    """Train and test the folds that are not finished.

    Args:
        config: Training options; split, folds and fold are replaced.
        dataset: Dataset folder.
        out: Cross-validation folder.
        options: Which folds.
        given: Names of the training options that the user gave.
        on_fold: Called with each fold's number and what happens to it.

    Returns:
        The exit code of the first fold that was stopped, else 0.

    Raises:
        InputError: If options do not fit, a fold was begun with others, or one would test a class
            that it cannot train.
    """
    with open_dataset(dataset) as opened:
        numbers = folds_of(opened, options)
        check_folds(opened, options, numbers, untrained=config.untrained)
    for fold in options.only or numbers:
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
            if code := _run_fold(config, dataset, folder, options, fold, given):
                return code
            on_fold(fold, "finished")
    return 0


def folds_of(dataset: Dataset, options: CvOptions) -> tuple[int, ...]:
    """Return the numbers of all folds.

    Raises:
        InputError: If there are fewer than two official folds, or ``only`` names another.
    """
    if options.split != "fold":
        return tuple(range(options.folds))
    numbers = tuple(numbered_folds(dataset.folds))
    if len(numbers) < 2:
        raise InputError(
            f"split='fold': the dataset names {len(numbers)} official folds, expected two or more"
        )
    if unknown := set(options.only) - set(numbers):
        known = ", ".join(map(str, numbers))
        raise InputError(f"only={min(unknown)}, expected some of the official folds {known}")
    return numbers


def check_folds(
    dataset: Dataset, options: CvOptions, numbers: Sequence[int], *, untrained: str
) -> None:
    """Make sure, before anything is trained, that no fold tests a class that it cannot train.

    Raises:
        InputError: If one does; the message names the class and whose it is.
    """
    if untrained == "wrong":
        return
    subject_of = dict(zip(dataset.keys, dataset.subjects, strict=True))
    for fold in numbers:
        tested, trained = fold_splits(dataset, options, fold)
        counts = (count_classes(dataset, keys) for keys in (trained.train, tested.val))
        for name, num_train, num_test in zip(dataset.class_names, *counts, strict=True):
            if num_test and not num_train:
                own = dataset.class_names.index(name)
                labels = dataset.labels[dataset.rows_of(tested.val)]
                subjects = {
                    subject_of[k] for k, n in zip(tested.val, labels, strict=True) if n == own
                }
                raise InputError(
                    f"class {name}: fold {fold} tests its {num_test} sequences (subject"
                    f" {', '.join(sorted(subjects)[:3])}) and none is left to train on; nothing was"
                    f" trained\n  Build the dataset without it (--classes '{name}='), or pass"
                    " untrained='wrong': such sequences count as wrong."
                )


def _run_fold(
    config: TrainConfig,
    dataset: Path,
    folder: Path,
    options: CvOptions,
    fold: int,
    given: Collection[str],
) -> int:
    with open_dataset(dataset) as opened:
        tested, trained = fold_splits(opened, options, fold)
    split_file = folder.with_suffix(".split.json")
    write_split(split_file, trained)
    config = replace(config, split=str(split_file))
    if code := run_train(config, dataset, folder, resume=True, given=given):
        return code
    evaluate_fold(folder, dataset, tested.val, options, device=config.device)
    return 0


def fold_splits(dataset: Dataset, options: CvOptions, fold: int) -> tuple[Split, Split]:
    """Return the split that a fold is tested on, and the one it is trained on.

    They are the same, unless the epoch is chosen on an inner fold: then that one is validated.
    """
    if options.split == "original-random":
        outer = make_split(dataset, "original-random", seed=fold)
        return outer, outer
    if options.split == "fold":
        outer = make_split(dataset, "fold", fold=fold)
        return outer, outer
    num_folds = options.folds
    outer = make_split(dataset, "subject-kfold", folds=num_folds, fold=fold)
    if options.select == "fixed":
        return outer, outer
    fold_of = subject_folds(dataset.subjects, num_folds=num_folds)
    subject_of = dict(zip(dataset.keys, dataset.subjects, strict=True))
    inner = (fold + 1) % num_folds
    val = tuple(key for key in outer.train if fold_of[subject_of[key]] == inner)
    trained = Split(
        kind="subject-kfold",
        parameters={"num_folds": num_folds, "fold": fold, "inner_fold": inner},
        train=tuple(set(outer.train) - set(val)),
        val=val,
    )
    return outer, trained


def evaluate_fold(
    folder: Path, dataset: Path, keys: Sequence[str], options: CvOptions, *, device: str
) -> None:
    """Score a fold's held-out sequences and write its test folder."""
    checkpoint = "best" if options.select == "inner" else "last"
    model = load_stream_model(folder, checkpoint=checkpoint, device=device)
    with open_dataset(dataset) as opened:
        check_fits(model, opened)
        if options.split == "subject-kfold":  # others may leak: one measures it, one is official
            check_unseen([model], opened, keys)
        scores = score_sequences(model, opened, keys, views=options.views)
    write_evaluation(
        folder_inside(folder, "test"),
        [scores],
        class_names=model.class_names,
        views=options.views,
        checkpoint=checkpoint,
        origin=[model.origin()],
    )
