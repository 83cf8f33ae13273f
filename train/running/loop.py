"""The training loop, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from models.build import switch_to_training
from pipelines.batch import Batch
from shard_builder.errors import TrainingError
from train.running.amp import autocast, optimizer_step
from train.running.board import add_confusion, add_inputs
from train.running.checkpoint import BEST_NAME, LAST_NAME, write_checkpoint
from train.running.run_folder import RunFolder
from train.running.session import Session
from train.running.stall import StallTimer, StallTimes
from train.running.stop import StopSignal
from train.running.validate import Validation, validate

SAVE_INTERVAL_S = 30.0
"""last.pt follows a validation no more often: ResNet-152 with momentum is 460 MB, an epoch of CK+
on a GPU under a second."""
SAVE_AT_LEAST_S = 600.0
"""In between, last.pt is written this often: what a crash or a power cut may cost."""
Row = dict[str, Any]
"""A line of metrics.jsonl."""


def train(
    session: Session, folder: RunFolder, stop: StopSignal, *, on_row: Callable[[Row], None]
) -> StallTimes:
    """Train until the last epoch or a stop signal; a checkpoint is written in either case.

    Args:
        session: The run, fresh or loaded from a checkpoint.
        folder: Where it writes.
        stop: Asked after each step.
        on_row: Called with each row of metrics.jsonl, and with those of the steps between.

    Raises:
        TrainingError: If the loss or a gradient is not finite; the weights are those before the
            step.
    """
    config, progress = session.config, session.progress
    show = shown_while_anyone_looks(on_row, stop)
    timer, total = StallTimer(session.device), StallTimes()
    while not session.is_finished:
        switch_to_training(session.model)
        batches = timer.iterate(session.train_loader)
        for batch, num_samples, is_last in accumulations(batches, session):
            if progress.step == 0 and progress.meter[2] == 0:
                add_inputs(folder, batch.images, stream=config.stream)
            with nullcontext() if is_last else without_sync(session.net):
                forward_backward(session, batch, num_samples)
            if is_last:
                row = finish_step(session, folder)
                if progress.step % config.log_every == 0:
                    folder.log(row)
                show(row)
                if session.ranks.any(stop.number is not None, session.device):
                    save(session, folder, LAST_NAME)
                    return total + timer.take()
                if folder.seconds_since_save() > SAVE_AT_LEAST_S:
                    save(session, folder, LAST_NAME)
        times = timer.take()
        total += times
        validation = validate(session) if is_validated(session) else None
        show(finish_epoch(session, folder, times, validation))
    return total


def shown_while_anyone_looks(
    on_row: Callable[[Row], None], stop: StopSignal
) -> Callable[[Row], None]:
    """Return ``on_row`` that no longer fails once a stop is wished: with SIGHUP the terminal goes,
    and the checkpoint is still to be written.
    """

    def show(row: Row) -> None:
        try:
            on_row(row)
        except OSError:
            if stop.number is None:
                raise

    return show


def accumulations(batches: Iterable[Batch], session: Session) -> Iterator[tuple[Batch, int, bool]]:
    """Yield each batch, the samples of its accumulation over all ranks, and whether it ends it.

    An epoch's last accumulation may be smaller; its own samples weigh its gradients.
    """
    loader, config = session.train_loader, session.config
    for batch in batches:
        end = loader.position
        begin = (end - batch.global_size) // config.step_size * config.step_size
        num_samples = min(config.step_size, loader.num_samples - begin)
        reseed(config.seed, batch.epoch, end, session.ranks.rank)
        yield batch, num_samples, end == begin + num_samples


def reseed(seed: int, epoch: int, position: int, rank: int) -> None:
    """Seed dropout from the place in the run: then no generator's state is part of a checkpoint."""
    place = np.random.SeedSequence([seed, epoch, position, rank])
    torch.manual_seed(int(place.generate_state(1, np.uint64)[0] >> 1))


def without_sync(net: torch.nn.Module) -> Any:
    """Return a context in which ranks do not exchange gradients: a step's last batch does."""
    return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()


def forward_backward(session: Session, batch: Batch, num_samples: int) -> None:
    """Add a batch's gradients, and its loss, correct and samples to the session's sums.

    Args:
        session: The run.
        batch: This rank's part of a global batch.
        num_samples: Samples of the accumulation over all ranks.
    """
    with autocast(session.device, session.precision):
        outputs = session.net(batch.images)
    outputs, labels = outputs.float(), batch.labels
    losses = functional.cross_entropy(
        outputs,
        session.output_of_class[labels],
        reduction="none",
        label_smoothing=session.config.label_smoothing,
    )
    losses = losses * session.class_weights[labels] * batch.valid
    loss = losses.sum() * (session.ranks.world_size / num_samples)  # DDP divides by the ranks
    session.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        correct = (outputs[:, session.output_of_class].argmax(dim=1) == labels) & batch.valid
        # Summed on the device: reading a number for each batch would wait for it.
        session.step_sums += torch.stack([losses.sum(), correct.sum(), batch.valid.sum()])


def finish_step(session: Session, folder: RunFolder) -> Row:
    """Step, check that loss and gradients were finite, and return the step's row."""
    config, progress = session.config, session.progress
    sums = session.ranks.sum(session.step_sums.clone()).tolist()
    session.step_sums.zero_()
    loss, correct, num_samples = sums
    if not np.isfinite(loss):
        raise not_finite("loss", loss, session, folder)
    result = optimizer_step(
        session.model.parameters(), session.optimizer, session.scaler, clip_grad=config.clip_grad
    )
    if not result.is_taken:
        if not session.scaler.is_enabled():
            raise not_finite("gradient norm", result.grad_norm, session, folder)
        progress.num_skipped_steps += 1
    session.step_taken(has_moved=result.is_taken)
    progress.step += 1
    progress.meter = [before + new for before, new in zip(progress.meter, sums, strict=True)]
    return {
        "kind": "step",
        "epoch": session.epoch + 1,
        "step": progress.step,
        "loss": loss / num_samples,
        "accuracy": correct / num_samples,
        "grad_norm": result.grad_norm if result.is_taken else None,
        "lr": session.schedule.lr,
    }


def not_finite(what: str, value: float, session: Session, folder: RunFolder) -> TrainingError:
    """Return the error that says where training broke, what is kept and what usually helps."""
    last = folder.path / LAST_NAME
    kept = f"{last} is untouched" if last.is_file() else "No checkpoint had been written yet"
    return TrainingError(
        f"{what} is {value} in epoch {session.epoch + 1}, step {session.progress.step + 1},"
        " expected a finite number; the step was not taken\n"
        f"  Try a smaller lr, clip_grad=20, or precision='fp32'. {kept}."
    )


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
