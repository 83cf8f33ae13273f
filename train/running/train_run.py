"""One run in its folder: new or resumed, trained until its last epoch or a stop signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from models.weights import weights_sha256
from pipelines.dataset import Dataset, open_dataset
from pipelines.engines.cutter import CUTTER
from shard_builder.errors import InputError, TrainingError
from shard_builder.files import FULL, disk_fault, folder_inside
from shard_builder.format.manifest import manifest_sha256
from shard_builder.lock import locked
from shard_builder.provenance import command_line, git_revision, package_versions
from shard_builder.split import Split, make_split
from train.config import TrainConfig
from train.device import choose_device, device_name, make_deterministic
from train.distributed import join_ranks, named_failure, ranks_of_environment
from train.figures import draw_curves, save_figure
from train.running.checkpoint import LAST_NAME, read_checkpoint
from train.running.loop import train
from train.running.run_folder import (
    CONFIG_NAME,
    FIGURES_NAME,
    RunFolder,
    check_new,
    create_run,
    read_metrics,
    read_run,
    update_run,
)
from train.running.session import Session, open_session
from train.running.stall import StallTimes
from train.running.step import NotFiniteError, Row
from train.running.stop import StopSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How a training ended.

    Args:
        exit_code: 0, or 143 or 130 after a signal that came before the last epoch was done.
        times: What computing and waiting for data took.
    """

    exit_code: int
    times: StallTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRun:
    """A run folder and the session in it, from :func:`open_run`.

    Args:
        session: The run in memory.
        folder: Where it writes.
        is_resumed: Whether the folder held a run.
        has_checkpoint: Whether it was resumed from a checkpoint; else it begins again.
        changed: Options that now have another value than the run was begun with: both, by name.
    """

    session: Session
    folder: RunFolder
    is_resumed: bool
    has_checkpoint: bool
    changed: Mapping[str, tuple[object, object]]

    def train(self, *, on_row: Callable[[Row], None] = lambda _row: None) -> TrainingResult:
        """Train until the last epoch or a stop signal, then draw the curves.

        Args:
            on_row: Called with each row of metrics.jsonl, and with those of the steps between.

        Raises:
            TrainingError: If training cannot go on.
        """
        session, path, config = self.session, self.folder.path, self.session.config
        try:
            with StopSignal(ends_waits=session.ranks.world_size == 1) as stop:
                times = train(session, self.folder, stop, on_row=on_row)
        except NotFiniteError as error:
            raise TrainingError(f"{error} {_kept(path)}.") from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise TrainingError(
                f"{error.filename or path}: {disk_fault(error)}\n"
                f"  {_kept(path)}. Free some space, then resume with resume=True."
            ) from None
        rows = read_metrics(path, keep=lambda row: row["kind"] == "epoch")
        if rows and self.folder.is_writer:
            title = f"{config.arch}, {config.stream} stream"
            save_figure(
                draw_curves(rows, title=title),
                folder_inside(path, FIGURES_NAME, make=True) / "curves.png",
            )
        return TrainingResult(exit_code=0 if session.is_finished else stop.exit_code, times=times)


def _kept(path: Path) -> str:
    last = path / LAST_NAME
    return f"{last} is whole" if last.is_file() else "No checkpoint had been written yet"


@contextmanager
def open_run(
    config: TrainConfig,
    dataset: Path,
    out: Path,
    *,
    resume: bool,
    given: Collection[str] = (),
    take_over: bool = False,
) -> Iterator[TrainRun]:
    """Open a run folder for training, on this rank.

    Args:
        config: The configuration; on resume, only the values named in ``given`` replace those the
            run was begun with.
        dataset: Dataset folder.
        out: Run folder.
        resume: Resume the run in it; one that is not there is begun.
        given: Names of the options that the user gave.
        take_over: See :func:`shard_builder.lock.locked`.

    Raises:
        InputError: If the options do not fit the dataset or the run, the dataset's files have other
            sizes than its manifest says, or another process writes the run.
        TrainingError: If another rank cannot be reached.
    """
    begun = config
    if resume and "device" not in given and os.path.lexists(out / CONFIG_NAME):
        begun = read_run(out)[0].options  # ranks must have met before they read more
    ranks = ranks_of_environment()
    if config.deterministic or begun.deterministic:
        make_deterministic()  # before CUDA starts
    device = choose_device(begun.device, local_rank=ranks.local_rank, world_size=ranks.world_size)
    with (
        open_dataset(dataset) as opened,
        join_ranks(device) as ranks,
        named_failure(ranks),
        locked(out, take_over=take_over) if ranks.is_first else nullcontext(),
    ):
        opened.check_sizes()
        opened.stream(config.stream)  # an error where the dataset has no such stream
        is_resumed = resume and os.path.lexists(out / CONFIG_NAME)
        has_checkpoint = is_resumed and os.path.lexists(out / LAST_NAME)
        changed: dict[str, tuple[object, object]] = {}
        if is_resumed:
            config, split, changed = resumed_options(config, opened, out, given)
        else:
            check_new(out)
            split = split_of(config, opened)
        ranks.wait_for_all()  # no rank may find the folder that another has just made
        with (
            closing(
                open_session(config, opened, split, ranks, pretrained=not has_checkpoint)
            ) as session,
            closing(RunFolder(out, is_writer=ranks.is_first)) as folder,
        ):
            if is_resumed:
                _restore(session, folder, has_checkpoint=has_checkpoint)
                if ranks.is_first:
                    update_run(out, run_record(session))
            elif ranks.is_first:
                create_run(out, run_record(session), split)
            ranks.wait_for_all()
            yield TrainRun(
                session=session,
                folder=folder,
                is_resumed=is_resumed,
                has_checkpoint=has_checkpoint,
                changed=changed,
            )


def run_train(
    config: TrainConfig, dataset: Path, out: Path, *, resume: bool, given: Collection[str] = ()
) -> int:
    """Train in silence; see :func:`open_run`. Returns the exit code."""
    with open_run(config, dataset, out, resume=resume, given=given) as run:
        return run.train().exit_code


def split_of(config: TrainConfig, dataset: Dataset) -> Split:
    """Make the split that the options name.

    Raises:
        InputError: If it does not fit the dataset.
    """
    return make_split(
        dataset,
        config.split,
        folds=config.folds,
        fold=config.fold,
        subject=config.subject,
        seed=config.seed,
    )


def resumed_options(
    config: TrainConfig, dataset: Dataset, out: Path, given: Collection[str]
) -> tuple[TrainConfig, Split, dict[str, tuple[object, object]]]:
    """Return the options and the split that a run was begun with; those given now may change some:
    old and new value of each that they change, by name, come third.

    Raises:
        InputError: If another option was given with another value than the run was begun with, or
            another dataset.
    """
    record, split = read_run(out)
    begun_with = record.dataset
    if manifest_sha256(dataset.path) != begun_with.manifest_sha256:
        raise InputError(
            f"resume=True: {dataset.address} is another dataset than the run was begun with"
            f" ({begun_with.path}), expected the same\n  Start another run in another folder."
        )
    begun = record.options
    if config.stream != begun.stream:
        raise InputError(f"{out}: is a run of the {begun.stream} stream, expected {config.stream}")
    now = replace(begun, **{name: getattr(config, name) for name in given})
    now.check_resumes(begun)
    if "split" in given and split_of(now, dataset).sha256() != split.sha256():
        raise InputError(
            f"split={now.split!r}: other sequences than the run was begun with\n"
            "  Leave it out to resume, or start another run in another folder."
        )
    is_needed = Path(now.weights).exists() or not os.path.lexists(out / LAST_NAME)
    if is_needed and weights_sha256(now.weights) != record.weights_sha256:
        raise InputError(
            f"weights={now.weights!r}: another file than the run was begun with (SHA-256"
            f" {record.weights_sha256})\n  Start another run in another folder."
        )
    names = [field.name for field in fields(now)]
    values = {name: (getattr(begun, name), getattr(now, name)) for name in names}
    return now, split, {name: (old, new) for name, (old, new) in values.items() if old != new}


def run_record(session: Session) -> dict[str, Any]:
    """Return what config.json holds."""
    dataset, split = session.dataset, session.split
    return {
        "stream": session.config.stream,
        "options": session.config.to_record(),
        "precision": session.precision,
        "device": str(session.device),
        "device_name": device_name(session.device),
        "cutter": CUTTER,
        "world_size": session.ranks.world_size,
        "dataset": {"path": dataset.place, "manifest_sha256": manifest_sha256(dataset.path)},
        "split": {
            "kind": split.kind,
            "parameters": dict(split.parameters),
            "sha256": split.sha256(),
            "num_train": len(split.train),
            "num_val": len(split.val),
            "num_test": len(split.test),
        },
        "weights_sha256": weights_sha256(session.config.weights),
        "classes": list(dataset.class_names),
        "num_parameters": sum(parameter.numel() for parameter in session.model.parameters()),
        "command": command_line(),
        "git_revision": git_revision(),
        "versions": package_versions(),
    }


def _restore(session: Session, folder: RunFolder, *, has_checkpoint: bool) -> None:
    """Load the last checkpoint, if there is one; forget what was written after it."""
    last = folder.path / LAST_NAME
    if has_checkpoint:
        session.load_checkpoint(read_checkpoint(last), path=last)
        if session.epoch > session.config.epochs:
            raise InputError(
                f"epochs={session.config.epochs}, but {session.epoch} are done, expected as many or"
                " more"
            )
    notice = folder.forget_after(epoch=session.epoch + 1, step=session.progress.step)
    if notice:
        session.notices += (notice,)
