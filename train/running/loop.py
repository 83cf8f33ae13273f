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

from pipelines.batch import Batch
from shard_builder.errors import TrainingError
from train.running.amp import autocast, optimizer_step
from train.running.board import add_confusion, add_inputs
from train.running.checkpoint import BEST_NAME, LAST_NAME, write_checkpoint
from train.running.optimizer import learning_rate, set_learning_rate, set_training_mode
from train.running.run_folder import RunFolder
from train.running.session import Session
from train.running.stall import StallTimer, StallTimes
from train.running.stop import StopSignal
from train.running.validate import Validation, validate

SAVE_INTERVAL_S = 30.0
"""last.pt follows a validation no more often: ResNet-152 with momentum is 460 MB, an epoch of CK+
on a GPU under a second."""
Report = Callable[[dict[str, Any]], None]


def train(session: Session, folder: RunFolder, stop: StopSignal, *, on_row: Report) -> StallTimes:
    """Train until the last epoch or a stop signal; a checkpoint is written in either case.

    Args:
        session: The run, fresh or loaded from a checkpoint.
        folder: Where it writes.
        stop: Asked after each step.
        on_row: Called with each row of metrics.jsonl, and with partial rows for the progress bar.

    Raises:
        TrainingError: If the loss or a gradient is not finite; the weights are those before the
            step.
    """
    config, progress, loader = session.config, session.progress, session.train_loader
    timer, total = StallTimer(session.device), StallTimes()
    while progress.epoch < config.epochs:
        set_learning_rate(session.optimizer, lr := learning_rate(config, progress.epoch))
        set_training_mode(session.model, config)
        for batch, window_samples, ends_window in accumulation(timer.iterate(loader), session):
            if progress.step == 0 and progress.meter[2] == 0:
                add_inputs(folder, batch.images, stream=config.stream)
            with nullcontext() if ends_window else without_sync(session.net):
                sums = forward_backward(session, batch, window_samples)
            if ends_window:
                row = finish_step(session, sums)
                if progress.step % config.log_every == 0:
                    folder.log(row)
                on_row(row)
                if session.ranks.any(stop.number is not None, session.device):
                    save(session, folder, LAST_NAME)
                    return total + timer.take()
        times = timer.take()
        total += times
        validation = validate(session) if is_validated(session) else None
        on_row(finish_epoch(session, folder, times, validation, lr=lr))
    return total


def accumulation(batches: Iterable[Batch], session: Session) -> Iterator[tuple[Batch, int, bool]]:
    """Yield each batch with the samples of its accumulation over all ranks, and whether it is the
    last one of it.

    The last accumulation of an epoch may be smaller; its gradients are weighted by its own samples.
    """
    loader, config = session.train_loader, session.config
    window = config.batch_size * config.iter_size
    for batch in batches:
        stop = loader.state_dict()["position"]
        begin = (stop - batch.global_size) // window * window
        num_samples = min(window, loader.num_samples - begin)
        reseed(config.seed, session.progress.epoch, stop, session.ranks.rank)
        yield batch, num_samples, stop == begin + num_samples


def reseed(seed: int, epoch: int, position: int, rank: int) -> None:
    """Seed dropout from the place in the run, so that no generator's state has to be saved to
    repeat it.
    """
    torch.manual_seed(
        int(
            np.random.SeedSequence([seed, epoch, position, rank]).generate_state(1, np.uint64)[0]
            >> 1
        )
    )


def without_sync(net: torch.nn.Module) -> Any:
    """Return a context in which ranks keep their gradients to themselves: only the last batch of a
    step exchanges them.
    """
    return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()


def forward_backward(session: Session, batch: Batch, window_samples: int) -> torch.Tensor:
    """Add a batch's gradients; return loss, correct and samples of this epoch so far, on the
    device, ``float64`` (3,).
    """
    with autocast(session.device, session.precision):
        outputs = session.net(batch.images)
    outputs = outputs.float()
    losses = functional.cross_entropy(
        outputs, session.output_of_class[batch.labels], reduction="none"
    )
    losses = losses * session.class_weights[batch.labels] * batch.valid
    # DDP divides by the number of ranks.
    loss = losses.sum() * (session.ranks.world_size / window_samples)
    session.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        correct = (outputs[:, session.output_of_class].argmax(dim=1) == batch.labels) & batch.valid
        session.window_sums += torch.stack([losses.sum(), correct.sum(), batch.valid.sum()])
    return session.window_sums


def finish_step(session: Session, sums: torch.Tensor) -> dict[str, Any]:
    """Step, check that loss and gradients were finite, and return the step's row."""
    progress = session.progress
    window = session.ranks.sum(sums.clone()).tolist()
    sums.zero_()
    if not np.isfinite(window[0]):
        raise TrainingError(not_finite("loss", window[0], session))
    result = optimizer_step(
        session.model.parameters(),
        session.optimizer,
        session.scaler,
        clip_grad=session.config.clip_grad,
    )
    if not result.is_taken:
        if not session.scaler.is_enabled():
            raise TrainingError(not_finite("gradient norm", result.grad_norm, session))
        progress.num_skipped_steps += 1
    progress.step += 1
    progress.meter = [before + new for before, new in zip(progress.meter, window, strict=True)]
    return {
        "kind": "step",
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "loss": window[0] / window[2],
        "accuracy": window[1] / window[2],
        "grad_norm": result.grad_norm if result.is_taken else None,
        "lr": session.optimizer.param_groups[-1]["lr"],
    }


def not_finite(what: str, value: float, session: Session) -> str:
    """Say where training broke and what usually helps."""
    progress = session.progress
    return (
        f"{what} is {value} in epoch {progress.epoch + 1}, step {progress.step + 1}, expected a"
        " finite number; the step was not taken\n  Try a smaller --lr, --clip-grad 20, or"
        " --precision fp32. The last checkpoint is untouched."
    )


def is_validated(session: Session) -> bool:
    """Return whether the epoch in progress ends with a validation: every ``val_every``, and the
    last.
    """
    done = session.progress.epoch + 1
    return done % session.config.val_every == 0 or done == session.config.epochs


def finish_epoch(
    session: Session,
    folder: RunFolder,
    times: StallTimes,
    validation: Validation | None,
    *,
    lr: float,
) -> dict[str, Any]:
    """Write the epoch's row and its checkpoints, then go to the next epoch."""
    progress, config = session.progress, session.config
    loss, correct, num = progress.meter
    row: dict[str, Any] = {
        "kind": "epoch",
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "loss": loss / num,
        "accuracy": correct / num,
        "val_loss": validation.loss if validation else None,
        "val_accuracy": validation.accuracy if validation else None,
        "lr": lr,
        **times.to_record(),
        "num_skipped_steps": progress.num_skipped_steps,
        "num_damaged": len(session.train_loader.errors),
    }
    progress.epoch += 1
    progress.meter = [0.0, 0.0, 0.0]
    session.train_loader.set_epoch(progress.epoch)
    folder.log(row)
    if validation:
        add_confusion(folder, validation.confusion, session.dataset.class_names, step=progress.step)
        if (validation.accuracy, -validation.loss) > (progress.best_accuracy, -progress.best_loss):
            progress.best_accuracy, progress.best_loss = validation.accuracy, validation.loss
            progress.best_epoch = progress.epoch
            save(session, folder, BEST_NAME)
    if config.save_every and progress.epoch % config.save_every == 0:
        save(session, folder, LAST_NAME, also=folder.path / f"epoch-{progress.epoch:04d}.pt")
    elif validation and (
        progress.epoch == config.epochs or folder.seconds_since_save() > SAVE_INTERVAL_S
    ):
        save(session, folder, LAST_NAME)
    return row


def save(session: Session, folder: RunFolder, name: str, *, also: Path | None = None) -> None:
    """Write a checkpoint on the first rank; best.pt holds no optimizer, for it is used, not resumed
    from.
    """
    if folder.is_writer:
        content = session.to_checkpoint(with_optimizer=name != BEST_NAME)
        write_checkpoint(folder.path / name, content, also=also)
        if name == LAST_NAME:
            folder.note_save()
