"""Validation: every sequence of the part exactly once, on any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from train.running.amp import autocast
from train.running.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Figures of one pass.

    Args:
        loss: Mean cross entropy.
        accuracy: Fraction of sequences classified correctly.
        confusion: Counts (classes, classes), row = true class.
    """

    loss: float
    accuracy: float
    confusion: torch.Tensor


@torch.inference_mode()
def validate(session: Session) -> Validation:
    """Run the net over the validation part: centre window, centre crop, padding left out."""
    model = session.tested_model.eval()
    num_classes = len(session.output_of_class)
    loss = torch.zeros((), dtype=torch.float64, device=session.device)
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.float64, device=session.device)
    assert session.val_loader is not None
    for batch in session.val_loader:
        with autocast(session.device, session.precision):
            outputs = model(batch.images)
        outputs, labels = outputs.float(), batch.labels
        # Padding counts 0 times: to leave it out, the host would have to know where it is.
        losses = functional.cross_entropy(
            outputs, session.output_of_class[labels], reduction="none"
        )
        loss += torch.where(batch.valid, losses, 0).sum()
        predicted = outputs[:, session.output_of_class].argmax(dim=1)
        confusion.index_add_(0, labels * num_classes + predicted, batch.valid.double())
    total = session.ranks.sum(torch.cat([loss[None], confusion])).cpu()
    counts = total[1:].view(num_classes, num_classes)
    num = float(counts.sum())
    return Validation(
        loss=float(total[0]) / num,
        accuracy=float(counts.trace()) / num,
        confusion=counts.to(torch.int64),
    )
