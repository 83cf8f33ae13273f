"""Every fold trained and tested once, by however many processes and hosts share the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

from pipelines.dataset import Dataset, open_dataset
from shard_builder.errors import InputError, counted
from shard_builder.files import folder_inside
from shard_builder.lock import LockedError, locked
from shard_builder.parts.official import numbered_folds
from shard_builder.parts.subjects import USUAL_FOLDS, choose_num_folds, subject_folds
from shard_builder.split import Split, folds_notice, make_split, write_split
from train.config import TrainConfig
from train.evaluation.cv_options import CvOptions
from train.evaluation.cv_proof import FoldResult, begin, read_result
from train.evaluation.cv_protocol import SET_BY_CV, Protocol, fold_dir, make_protocol
from train.evaluation.evaluate import check_unseen, score_sequences, write_evaluation
from train.prediction.stream_model import check_fits, load_stream_model
from train.running.classes import count_classes
from train.running.train_run import run_train

Splits = Mapping[int, tuple[Split, Split]]
"""By fold: the split that it is tested on, and the one it is trained on."""


def run_folds(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    options: CvOptions,
    *,
    take_over: bool = False,
    on_notice: Callable[[str], None] = lambda _text: None,
    on_fold: Callable[[int, str], None] = lambda _fold, _text: None,
) -> int:
    """Train and test the folds that are not finished.

    What is in the folder is compared first: a fold counts as finished if it proves by hash that it
    has the same dataset, split and options.

    Args:
        config: Training options; split, folds and fold are replaced.
        dataset: Dataset folder.
        out: Cross-validation folder.
        options: Which folds.
        take_over: See :func:`shard_builder.lock.locked`.
        on_notice: Called with what is worth a notice, before anything is trained.
        on_fold: Called with each fold's number and what happens to it.

    Returns:
        The exit code of the first fold that was stopped, else 0.

    Raises:
        InputError: If options do not fit, something in the folder was made with another dataset,
            split or option, or a fold would test a class that it cannot train.
    """
    with open_dataset(dataset) as opened:
        opened.check_sizes()
        opened.stream(config.stream)  # an error where the dataset has no such stream
        numbers = folds_of(opened, options)
        options.check_numbers(numbers)
        splits = {fold: fold_splits(opened, options, fold) for fold in numbers}
        check_folds(opened, splits, untrained=config.untrained)
        protocol = make_protocol(opened, config, options, splits)
        if notice := folds_notice(splits[numbers[0]][0], folds=options.folds):
            on_notice(notice)
    begin(out, protocol, take_over=take_over)
    for fold in options.only or numbers:
        folder = fold_dir(out, protocol.stream, protocol.split, fold)
        if isinstance(result := read_result(folder, protocol, fold), FoldResult):
            on_fold(fold, f"finished already, kept: {result}")
            continue
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder, take_over=take_over))
            except LockedError as error:
                advice = "" if error.holder.can_be_asked else "; has it died? Then --take-over"
                on_fold(fold, f"left to {error.holder}{advice}")
                continue
            if isinstance(result := read_result(folder, protocol, fold), FoldResult):
                on_fold(fold, f"finished meanwhile, kept: {result}")  # by another process
                continue
            on_fold(fold, f"training ({result})")
            if code := _run_fold(config, dataset, folder, protocol, fold, splits[fold]):
                return code
            on_fold(fold, f"finished: {read_result(folder, protocol, fold)}")
    return 0


def folds_of(dataset: Dataset, options: CvOptions) -> tuple[int, ...]:
    """Return the numbers of all folds.

    Raises:
        InputError: If there are fewer than two official folds.
    """
    if options.split == "subject-kfold":
        return tuple(range(choose_num_folds(dataset.subjects, options.folds)))
    if options.split == "original-random":
        return tuple(range(options.folds or USUAL_FOLDS))
    numbers = tuple(numbered_folds(dataset.folds))
    if len(numbers) < 2:
        raise InputError(
            f"split='fold': the dataset names {counted(len(numbers), 'official fold')}, expected"
            " two or more"
        )
    return numbers


def check_folds(dataset: Dataset, splits: Splits, *, untrained: str) -> None:
    """Make sure, before anything is trained, that no fold tests a class that it cannot train.

    Raises:
        InputError: If one does; the message names the class and whose it is.
    """
    if untrained == "wrong":
        return
    subject_of = dict(zip(dataset.keys, dataset.subjects, strict=True))
    for fold, (tested, trained) in splits.items():
        counts = (count_classes(dataset, keys) for keys in (trained.train, tested.val))
        for name, num_train, num_test in zip(dataset.class_names, *counts, strict=True):
            if num_test and not num_train:
                own = dataset.class_names.index(name)
                labels = dataset.labels[dataset.rows_of(tested.val)]
                subjects = {
                    subject_of[k] for k, n in zip(tested.val, labels, strict=True) if n == own
                }
                raise InputError(
                    f"class {name}: fold {fold} tests its {counted(num_test, 'sequence')} (subject"
                    f" {', '.join(sorted(subjects)[:3])}) and none is left to train on; nothing was"
                    f" trained\n  Build the dataset without it (--classes '{name}='), or pass"
                    " untrained='wrong': such sequences count as wrong."
                )


def _run_fold(
    config: TrainConfig,
    dataset: Path,
    folder: Path,
    protocol: Protocol,
    fold: int,
    splits: tuple[Split, Split],
) -> int:
    tested, trained = splits
    split_file = folder.with_suffix(".split.json")
    write_split(split_file, trained)
    config = replace(config, split=str(split_file), folds=len(protocol.folds), fold=fold)
    given = {entry.name for entry in fields(config)} - SET_BY_CV
    if code := run_train(config, dataset, folder, resume=True, given=given):
        return code
    evaluate_fold(folder, dataset, tested.val, protocol, device=config.device)
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
    num_folds = choose_num_folds(dataset.subjects, options.folds)
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
    folder: Path, dataset: Path, keys: Sequence[str], protocol: Protocol, *, device: str
) -> None:
    """Score a fold's held-out sequences and write its test folder."""
    model = load_stream_model(folder, checkpoint=protocol.checkpoint, device=device)
    with open_dataset(dataset) as opened:
        check_fits(model, opened)
        if protocol.split == "subject-kfold":  # others may leak: one measures it, one is official
            check_unseen([model], opened, keys)
        scores = score_sequences(model, opened, keys, views=protocol.views)
    write_evaluation(
        folder_inside(folder, "test"),
        [scores],
        dataset=opened,
        class_names=model.class_names,
        views=protocol.views,
        checkpoint=protocol.checkpoint,
        origin=[model.origin()],
    )
