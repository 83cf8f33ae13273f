"""``cktrain rgb`` and ``cktrain flow``: a run folder, new or resumed, and the training in it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.dataset import Dataset, open_dataset
from shard_builder.console import make_console
from shard_builder.errors import InputError
from shard_builder.format.manifest import manifest_sha256
from shard_builder.provenance import command_line, git_revision, package_versions
from shard_builder.split import Split, leak_warning, make_split
from train.config import TrainConfig
from train.device import choose_device, device_name
from train.distributed import join_ranks, named_failure
from train.running.checkpoint import BEST_NAME, LAST_NAME, read_checkpoint
from train.running.display import training_display
from train.running.figures import write_curves
from train.running.loop import train
from train.running.run_folder import (
    CONFIG_NAME,
    FIGURES_NAME,
    RunFolder,
    check_new,
    create_run,
    read_metrics,
    read_run,
)
from train.running.session import Session, open_session
from train.running.stop import StopSignal


def run_train(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    *,
    resume: bool,
    given: Collection[str] = (),
    quiet: bool = False,
) -> int:
    """Train one stream; returns the exit code: 0, or 143 or 130 after a signal.

    Args:
        config: The configuration; on resume, only the values named in ``given`` replace those the
            run was begun with.
        dataset: Dataset folder.
        out: Run folder.
        resume: Go on with it; one that is not there is begun.
        given: Names of the options that the user gave.
        quiet: Print nothing.

    Raises:
        InputError: If the options do not fit the dataset or the run.
        TrainingError: If training cannot go on.
    """
    use_cuda = (
        choose_device(config.device, local_rank=int(os.environ.get("LOCAL_RANK", "0"))).type
        == "cuda"
    )
    with (
        open_dataset(dataset) as opened,
        join_ranks(use_cuda=use_cuda) as ranks,
        named_failure(ranks),
    ):
        opened.stream(config.stream)
        is_resumed = resume and (out / CONFIG_NAME).is_file()
        if is_resumed:
            config, split = resumed_run(config, out, given)
        else:
            check_new(out)
            split = split_of(config, opened)
        ranks.wait_for_all()  # no rank may find the folder that another has just made
        session = open_session(config, opened, split, ranks)
        try:
            return _train_in(session, out, is_resumed=is_resumed, quiet=quiet)
        finally:
            session.close()


def resumed_run(
    config: TrainConfig, out: Path, given: Collection[str]
) -> tuple[TrainConfig, Split]:
    """Return the configuration and the split of a run, with the options that were given now and may
    change.

    Raises:
        InputError: If another option was given with another value than the run was begun with.
    """
    record, split = read_run(out)
    begun = TrainConfig(**record["options"])
    if config.stream != begun.stream:
        raise InputError(
            f"--out {out}: is a run of the {begun.stream} stream, expected {config.stream}"
        )
    now = replace(begun, **{name: getattr(config, name) for name in given})
    now.check_resumes(begun)
    return now, split


def split_of(config: TrainConfig, dataset: Dataset) -> Split:
    """Make the split that the options describe."""
    return make_split(
        dataset,
        config.split,
        folds=config.folds,
        fold=config.fold,
        subject=config.subject,
        seed=config.seed,
    )


def run_record(session: Session) -> dict[str, Any]:
    """Return what config.json holds."""
    dataset, split = session.dataset, session.split
    return {
        "stream": session.config.stream,
        "options": session.config.to_record(),
        "precision": session.precision,
        "device": str(session.device),
        "device_name": device_name(session.device),
        "world_size": session.ranks.world_size,
        "dataset": {"path": str(dataset.path), "manifest_sha256": manifest_sha256(dataset.path)},
        "split": {
            "kind": split.kind,
            "parameters": dict(split.parameters),
            "sha256": split.sha256(),
            "num_train": len(split.train),
            "num_val": len(split.val),
        },
        "classes": list(dataset.class_names),
        "num_parameters": sum(parameter.numel() for parameter in session.model.parameters()),
        "command": command_line(),
        "git_revision": git_revision(),
        "versions": package_versions(),
    }


def _train_in(session: Session, out: Path, *, is_resumed: bool, quiet: bool) -> int:
    ranks, config = session.ranks, session.config
    console = make_console(quiet=quiet or not ranks.is_first)
    if not is_resumed and ranks.is_first:
        create_run(out, run_record(session), session.split)
    ranks.wait_for_all()
    folder = RunFolder(out, is_writer=ranks.is_first)
    if is_resumed and (out / LAST_NAME).is_file():
        session.load_checkpoint(read_checkpoint(out / LAST_NAME))
    progress = session.progress
    if is_resumed:
        folder.forget_after(epoch=progress.epoch + 1, step=progress.step)
    for line in opening_lines(session, out, is_resumed=is_resumed):
        console.print(line, highlight=False)
    steps = -(-session.train_loader.num_samples // (config.batch_size * config.iter_size))
    display = training_display(
        console, first_epoch=progress.epoch, epochs=config.epochs, steps=steps
    )
    try:
        with StopSignal() as stop, display as show:
            times = train(session, folder, stop, on_row=show)
    finally:
        folder.close()
    if ranks.is_first:
        rows = read_metrics(out, keep=lambda row: row["kind"] == "epoch")
        if rows:
            write_curves(
                out / FIGURES_NAME / "curves.png",
                rows,
                title=f"{config.arch}, {config.stream} stream",
            )
        for line in closing_lines(
            session, out, stop, verdict=times.verdict() if times.num_samples else ""
        ):
            console.print(line, highlight=False)
    return stop.exit_code if progress.epoch < config.epochs else 0


def opening_lines(session: Session, out: Path, *, is_resumed: bool) -> list[str]:
    """Say what is about to be trained, on what, and what is odd about it."""
    config, ranks, split = session.config, session.ranks, session.split
    subject_of = dict(zip(session.dataset.keys, session.dataset.subjects, strict=True))
    on = f"{device_name(session.device)}, {session.precision}" + (
        f", {ranks.world_size} ranks" if ranks.world_size > 1 else ""
    )
    sides = [
        f"{len(keys)} sequences of {len({subject_of[key] for key in keys})} subjects"
        for keys in (split.train, split.val)
    ]
    effective = config.batch_size * config.iter_size
    lines = [
        f"{config.stream} stream: {config.arch} on {on}",
        f"training on {sides[0]}, validating on {sides[1]} ({split.kind})",
        (
            f"batch {config.batch_size} x {config.iter_size} = {effective} samples a step, lr"
            f" {config.lr:g}, {config.epochs} epochs -> {out}"
        ),
    ]
    if is_resumed:
        lines.append(f"resumed after epoch {session.progress.epoch}, step {session.progress.step}")
    if session.train_loader.num_short:
        lines.append(
            f"notice: {session.train_loader.num_short} training sequences have fewer than"
            f" {config.stack_length} pairs; their last pair is repeated"
        )
    if warning := leak_warning(split, subject_of):
        lines.append(f"[bold red]{warning}[/]")
    return lines + list(session.notices)


def closing_lines(session: Session, out: Path, stop: StopSignal, *, verdict: str) -> list[str]:
    """Say how it ended, which epoch was best and what bounded the run."""
    progress = session.progress
    lines = []
    if progress.epoch < session.config.epochs:
        lines.append(
            f"stopped in epoch {progress.epoch + 1}, step {progress.step}; {out / LAST_NAME} is"
            " saved, go on with --resume"
        )
    if progress.best_epoch:
        lines.append(
            f"best validation accuracy {100 * progress.best_accuracy:.1f} % after epoch"
            f" {progress.best_epoch} ({out / BEST_NAME}); chosen and measured on the same"
            " sequences, so optimistic"
        )
    if progress.num_skipped_steps:
        lines.append(f"{progress.num_skipped_steps} steps skipped by the fp16 loss scaler")
    return [*lines, verdict] if verdict else lines
