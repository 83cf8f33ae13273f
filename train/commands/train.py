"""``cktrain rgb`` and ``cktrain flow``: train a stream; say what is trained and how it went."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shard_builder.commands.options import TakeOverOption
from shard_builder.console import make_console
from shard_builder.errors import counted
from train.commands.display import training_display
from train.commands.options import DatasetArgument, training_config, with_training_options

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.running.train_run import TrainingResult, TrainRun


@with_training_options()
def train_stream(
    context: typer.Context,
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Run folder: a new one, or with --resume that run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in --out, exactly where it was.")
    ] = False,
    take_over: TakeOverOption = False,
    **options: Any,
) -> None:
    """Train the stream that the command is called by."""
    config, given = training_config(context, str(context.info_name), options)
    raise typer.Exit(
        run_stream(config, dataset, out, resume=resume, given=given, take_over=take_over)
    )


def run_stream(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    *,
    resume: bool,
    given: Collection[str],
    take_over: bool,
) -> int:
    """Train a stream and say what is trained and how it went; return the exit code."""
    from train.running.train_run import open_run

    with open_run(config, dataset, out, resume=resume, given=given, take_over=take_over) as run:
        console = make_console(quiet=not run.session.ranks.is_first)
        for line in opening_lines(run):
            console.print(line)
        if resume and not run.is_resumed:
            console.print(f"notice: no run in {out} yet: it is begun")
        with training_display(console, run.session) as show:
            result = run.train(on_row=show)
        for line in closing_lines(run, result):
            console.print(line)
    return result.exit_code


def opening_lines(run: TrainRun) -> list[str]:
    """Say what is about to be trained, on what, and what is odd about it."""
    from shard_builder.split import folds_notice, leak_warning
    from train.device import device_name

    session = run.session
    config, split, num_ranks = session.config, session.split, session.ranks.world_size
    subject_of = dict(zip(session.dataset.keys, session.dataset.subjects, strict=True))
    has_subjects = session.dataset.manifest.has_subjects

    def size(keys: Collection[str]) -> str:
        text, subjects = counted(len(keys), "sequence"), {subject_of[key] for key in keys}
        return f"{text} of {counted(len(subjects), 'subject')}" if has_subjects else text

    lines = [
        f"{config.stream} stream: {config.arch} on {device_name(session.device)},"
        f" {session.precision}" + (f", {num_ranks} ranks" if num_ranks > 1 else ""),
        f"training on {size(split.train)}, validating on {size(split.val)} ({split.kind})",
        *([f"held out for cktrain test: {size(split.test)}"] if split.test else []),
        f"batch {config.batch_size} x {config.iter_size} = {counted(config.step_size, 'sample')} a"
        f" step, lr {config.lr:g}, {counted(config.epochs, 'epoch')} -> {run.folder.path}",
    ]
    if run.is_resumed and not run.has_checkpoint:
        lines.append("no checkpoint had been written yet: training begins again")
    elif run.is_resumed:
        lines.append(f"resumed after epoch {session.epoch}, step {session.progress.step}")
    lines += [
        f"notice: --{name.replace('_', '-')} {new} from here on, {old} before"
        for name, (old, new) in run.changed.items()
    ]
    if num_short := session.train_loader.num_short:
        lines.append(
            f"notice: {counted(num_short, 'training sequence has', 'training sequences have')}"
            f" fewer than {config.stack_length} pairs; the last one is repeated"
        )
    num_unused = len(session.dataset.keys) - len({*split.train, *split.val, *split.test})
    if num_unused:
        lines.append(
            f"notice: {counted(num_unused, 'sequence is', 'sequences are')} in no part of the split"
        )
    if config.split == split.kind and (notice := folds_notice(split, folds=config.folds)):
        lines.append(notice)
    if warning := leak_warning(split, subject_of, has_subjects=has_subjects):
        lines.append(warning)
    return [*lines, *session.notices]


def closing_lines(run: TrainRun, result: TrainingResult) -> list[str]:
    """Say how it ended, which epoch was best and what bounded the run."""
    from train.running.checkpoint import BEST_NAME, LAST_NAME
    from train.running.stall import bound_by

    session, progress, path = run.session, run.session.progress, run.folder.path
    lines = []
    if session.is_finished and session.epoch < session.config.epochs:
        lines.append(
            f"stopped early after epoch {session.epoch}: the validation loss has not fallen below"
            f" {progress.least_loss:.4f} in {counted(progress.num_not_lower, 'validation')}"
        )
    elif not session.is_finished:
        lines.append(
            f"stopped in epoch {session.epoch + 1}, step {progress.step};"
            f" {path / LAST_NAME} is saved, resume with --resume"
        )
    if progress.best_epoch:
        lines.append(
            f"best validation accuracy {100 * progress.best_accuracy:.1f} % after epoch"
            f" {progress.best_epoch} ({path / BEST_NAME});"
            " chosen and measured on the same sequences, so optimistic"
        )
    if progress.num_skipped_steps:
        lines.append(
            f"{counted(progress.num_skipped_steps, 'step')} skipped by the fp16 loss scaler"
        )
    if (times := result.times).num_samples:
        bound, store = bound_by(times.data_wait_pct), session.dataset.store
        advice = "; try --cache ram, --workers, or a dataset built with --codec raw"
        wait_s = times.start_s + times.wait_s
        if bound == "data" and store is not None and 2 * store.total_wait_s > wait_s:
            bound, advice = "the store", "; try --shard-cache, more --read-ahead, or ckshard pull"
        lines.append(
            f"This run is bound by {bound}: {times.data_wait_pct:.1f} % of the time went into"
            f" waiting for data ({times.samples_per_s:.1f} samples/s)"
            f"{'' if bound.startswith('compute') else advice}."
            f" Besides, the first batch took {times.start_s:.1f} s, and {times.between_s:.1f} s"
            " went by between epochs (validation, checkpoints)."
        )
        if store is not None and (figures := store.last_figures):
            lines.append(
                "The store in the last epoch:"
                f" {counted(int(figures['store_requests']), 'request')},"
                f" {figures['store_mb_per_s']:.1f} MB/s, latency {figures['store_p50_ms']:.1f} ms"
                f" (99 %: {figures['store_p99_ms']:.1f} ms),"
                f" {counted(int(figures['store_retries']), 'retry', 'retries')}."
            )
    return lines
