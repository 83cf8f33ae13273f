"""The training loop, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from models.build import switch_to_training
from pipelines.batch import Batch
from shard_builder.errors import DatasetError, TrainingError
from shard_builder.files import disk_fault
from train.running.board import add_confusion, add_inputs
from train.running.checkpoint import BEST_NAME, LAST_NAME, write_checkpoint
from train.running.run_folder import RunFolder
from train.running.session import Session
from train.running.stall import StallTimer, StallTimes
from train.running.step import Row, iter_steps
from train.running.stop import StopSignal
from train.running.validate import Validation, validate

SAVE_INTERVAL_S = 30.0
"""last.pt follows a validation no more often: ResNet-152 with momentum is 460 MB, an epoch of CK+
on a GPU under a second."""
SAVE_AT_LEAST_S = 600.0
"""In between, last.pt is written this often: what a crash or a power cut may cost."""


def train(
    session: Session, folder: RunFolder, stop: StopSignal, *, on_row: Callable[[Row], None]
) -> StallTimes:
    """Train until the last epoch or a stop signal; a checkpoint is written in either case, and
    where data cannot be read.

    Args:
        session: The run, fresh or loaded from a checkpoint.
        folder: Where it writes.
        stop: Asked before each step; it ends with that one.
        on_row: Called with each row of metrics.jsonl, and with those of the steps between.

    Raises:
        NotFiniteError: If the loss or a gradient is not finite; the weights are those before the
            step.
        DatasetError: If data cannot be read, and no signal ended the wait for it.
        TrainingError: If ``on_row`` cannot write; a checkpoint is saved before.
    """
    show = shown_while_anyone_looks(on_row, stop, save=lambda: save(session, folder, LAST_NAME))
    timer, total = StallTimer(session.device), StallTimes()
    while not session.is_finished:
        try:
            times, is_stopping = train_epoch(session, folder, stop, timer, on_row=show)
            total += times
            if is_stopping:
                return total
            validation = validate(session) if is_validated(session) else None
        except DatasetError:  # a store that fails: what was learned is not lost
            go_to_last_step(session)
            save(session, folder, LAST_NAME)
            if stop.number is None:
                raise
            return total + timer.take()
        show(finish_epoch(session, folder, times, validation))
    return total + timer.take()  # the time since the last step


def train_epoch(
    session: Session,
    folder: RunFolder,
    stop: StopSignal,
    timer: StallTimer,
    *,
    on_row: Callable[[Row], None],
) -> tuple[StallTimes, bool]:
    """Train to the epoch's end or a stop, which is saved; return times and whether it is one."""
    config, progress = session.config, session.progress
    switch_to_training(session.model)
    batches = with_inputs_shown(timer.iterate(session.train_loader), session, folder)
    for row, is_stopping in iter_steps(
        session, batches, is_asked_to_stop=lambda: stop.number is not None
    ):
        if progress.step % config.log_every == 0:
            folder.log(row)
        on_row(row)
        if is_stopping:
            save(session, folder, LAST_NAME)
            return timer.take(), True
        if folder.seconds_since_save() > SAVE_AT_LEAST_S:
            save(session, folder, LAST_NAME)
    return timer.take(), False


def go_to_last_step(session: Session) -> None:
    """Let the training loader go back to where the last step ended: its sum may be half done."""
    loader = session.train_loader
    position = loader.position
    if position < loader.num_samples:
        position -= position % session.config.step_size
    loader.load_state_dict(loader.state_dict() | {"position": position})


def with_inputs_shown(
    batches: Iterable[Batch], session: Session, folder: RunFolder
) -> Iterator[Batch]:
    """Yield the batches; the very first one of a run is drawn too."""
    for batch in batches:
        if session.progress.step == 0 and session.train_loader.position == batch.global_size:
            add_inputs(folder, batch.images, stream=session.config.stream)
        yield batch


def shown_while_anyone_looks(
    on_row: Callable[[Row], None], stop: StopSignal, *, save: Callable[[], None]
) -> Callable[[Row], None]:
    """Return ``on_row`` that costs no training where it fails: a pipe's reader has ended, the
    terminal is gone, the disk of a log is full. Once a stop is wished it fails silently, for the
    checkpoint is still to be written.
    """

    def show(row: Row) -> None:
        try:
            on_row(row)
        except OSError as error:
            if stop.number is None:
                save()
                raise TrainingError(
                    f"what training prints cannot be written ({disk_fault(error)})\n"
                    f"  {LAST_NAME} is saved at step {row['step']}: resume with --resume."
                ) from error

    return show


def is_validated(session: Session) -> bool:
    """Return whether this epoch ends with a validation: every ``val_every``, and the last."""
    done = session.epoch + 1
    return done % session.config.val_every == 0 or done == session.config.epochs


def finish_epoch(
    session: Session, folder: RunFolder, times: StallTimes, validation: Validation | None
) -> Row:
    """Write the epoch's row and its checkpoints, then go to the next epoch."""
    progress = session.progress
    loss, correct, num_samples = progress.meter
    row: Row = {
        "kind": "epoch",
        "epoch": session.epoch + 1,
        "step": progress.step,
        "loss": loss / num_samples,
        "accuracy": correct / num_samples,
        "val_loss": validation.loss if validation else None,
        "val_accuracy": validation.accuracy if validation else None,
        "lr": session.schedule.lr,
        **times.to_record(),
        "num_skipped_steps": progress.num_skipped_steps,
        "num_damaged": len(session.train_loader.errors),
        **(session.dataset.store.take_figures() if session.dataset.store else {}),
    }
    progress.meter = [0.0, 0.0, 0.0]
    session.train_loader.set_epoch(session.epoch + 1)  # a checkpoint from here on is one of it
    folder.log(row)
    if validation:
        is_lower = validation.loss < progress.least_loss
        progress.num_not_lower = 0 if is_lower else progress.num_not_lower + 1
        progress.least_loss = min(progress.least_loss, validation.loss)
        add_confusion(folder, validation.confusion, session.dataset.class_names, step=progress.step)
        if (validation.accuracy, -validation.loss) > (progress.best_accuracy, -progress.best_loss):
            progress.best_accuracy, progress.best_loss = validation.accuracy, validation.loss
            progress.best_epoch = session.epoch
            save(session, folder, BEST_NAME)
    save_last(session, folder, is_validated=validation is not None)
    return row


def save_last(session: Session, folder: RunFolder, *, is_validated: bool) -> None:
    """Save last.pt where an epoch's end asks for it; every ``save_every`` epochs it is kept."""
    done, config = session.epoch, session.config
    if config.save_every and done % config.save_every == 0:
        save(session, folder, LAST_NAME, also=folder.path / f"epoch-{done:04d}.pt")
    elif is_validated and (session.is_finished or folder.seconds_since_save() > SAVE_INTERVAL_S):
        save(session, folder, LAST_NAME)


def save(session: Session, folder: RunFolder, name: str, *, also: Path | None = None) -> None:
    """Write a checkpoint on the first rank; best.pt is never resumed, so without the optimizer."""
    if folder.is_writer:
        content = session.to_checkpoint(with_optimizer=name != BEST_NAME)
        write_checkpoint(folder.path / name, content, also=also)
        if name == LAST_NAME:
            folder.note_save()
