"""Steps of the optimizer: batches accumulated, one step, one look at its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pipelines.batch import Batch
from shard_builder.errors import TrainingError
from train.running.amp import autocast, gradient_norm, take_step
from train.running.session import Session

Row = dict[str, Any]
"""A line of metrics.jsonl."""


class NotFiniteError(TrainingError):
    """A loss or a gradient is not finite; the weights are those before the step."""


class Step(NamedTuple):
    """A step that was done: its row, and whether a rank had been asked to stop before it."""

    row: Row
    is_stopping: bool


def iter_steps(
    session: Session, batches: Iterable[Batch], *, is_asked_to_stop: Callable[[], bool]
) -> Iterator[Step]:
    """Train on batches of the session's training loader, a step at a time.

    Args:
        session: The run.
        batches: What is left of an epoch, or of endless whole ones; the loader's own or others of
            the same sizes.
        is_asked_to_stop: Asked once a step, on each rank.

    Raises:
        NotFiniteError: If the loss or a gradient is not finite.
    """
    for batch, num_samples, is_last in accumulations(batches, session):
        with nullcontext() if is_last else without_sync(session.net):
            forward_backward(session, batch, num_samples)
        if is_last:
            yield finish_step(session, is_stopping=is_asked_to_stop())


def accumulations(batches: Iterable[Batch], session: Session) -> Iterator[tuple[Batch, int, bool]]:
    """Yield each batch, the samples of its accumulation over all ranks, and whether it ends it.

    An epoch's last accumulation may be smaller; its own samples weigh its gradients.
    """
    loader, config = session.train_loader, session.config
    end = loader.position
    for batch in batches:
        position = end % loader.num_samples  # 0 at an epoch's very end: this is the next one's
        end = position + batch.global_size
        begin = position // config.step_size * config.step_size
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


def finish_step(session: Session, *, is_stopping: bool) -> Step:
    """Step, check that loss and gradients were finite, and return the step.

    Args:
        session: The run.
        is_stopping: Whether this rank is asked to stop.

    Raises:
        NotFiniteError: If the loss or a gradient is not finite; fp16 skips a step of such
            gradients.
    """
    progress, scaler = session.progress, session.scaler
    norm = gradient_norm(
        session.model.parameters(), session.optimizer, scaler, clip_grad=session.config.clip_grad
    )
    flag = torch.full((1,), float(is_stopping), dtype=torch.float64, device=session.device)
    sums = session.ranks.sum(torch.cat([session.step_sums, flag]))
    session.step_sums.zero_()
    *numbers, num_stopping, grad_norm = read_numbers(torch.cat([sums, norm.double()[None]]))
    loss, correct, num_samples = numbers
    is_finite = math.isfinite(grad_norm)
    if not math.isfinite(loss):
        raise not_finite("loss", loss, session)
    if not is_finite and not scaler.is_enabled():
        raise not_finite("gradient norm", grad_norm, session)
    take_step(session.optimizer, scaler, is_finite=is_finite)
    progress.num_skipped_steps += not is_finite
    session.step_taken(has_moved=is_finite)
    progress.step += 1
    progress.meter = [before + new for before, new in zip(progress.meter, numbers, strict=True)]
    row = {
        "kind": "step",
        "epoch": session.epoch + 1,
        "step": progress.step,
        "loss": loss / num_samples,
        "accuracy": correct / num_samples,
        "grad_norm": grad_norm if is_finite else None,
        "lr": session.schedule.lr,
    }
    return Step(row, num_stopping > 0)


def read_numbers(values: torch.Tensor) -> list[float]:
    """Return numbers of the device: the one place of a step where the host waits for it."""
    return values.tolist()


def not_finite(what: str, value: float, session: Session) -> NotFiniteError:
    """Return the error that says where training broke and what usually helps."""
    return NotFiniteError(
        f"{what} is {value} in epoch {session.epoch + 1}, step {session.progress.step + 1},"
        " expected a finite number; the step was not taken\n"
        "  Try a smaller lr, clip_grad=20, or precision='fp32'."
    )
