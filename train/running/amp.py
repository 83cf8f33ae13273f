"""Automatic mixed precision: where bf16 or fp16 is used, and the step of an accumulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean
from train.device import DTYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did.

    Args:
        grad_norm: Norm of all gradients before clipping, also where it is not finite.
        is_taken: Whether the weights moved; only fp16 skips steps, when its loss scale was too
            large.
    """

    grad_norm: float
    is_taken: bool


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context for the forward pass: bf16, fp16, or nothing for fp32."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Return the loss scaler; it does nothing unless the precision is fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def load_scale(scaler: torch.amp.GradScaler, state: dict[str, Any], *, origin: Path) -> None:
    """Restore a scaler of which the checkpoint holds the state.

    Raises:
        InputError: If it is not the state of one.
    """
    numbers = [value for value in state.values() if type(value) in (int, float)]
    if state.keys() != scaler.state_dict().keys() or len(numbers) < len(state):
        raise InputError(f"{origin}: scaler: is no state of a gradient scaler")
    if not all(0 <= value < 1e30 for value in numbers) or not state["scale"] > 0:
        raise InputError(f"{origin}: scaler: {clean(state)}, expected positive numbers")
    scaler.load_state_dict(state)


def optimizer_step(
    parameters: Iterable[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_grad: float,
) -> StepResult:
    """Finish an accumulation: unscale, clip, step if the gradients are finite, zero the gradients.

    With fp16 a step of non-finite gradients is skipped and the scale halved; the caller decides
    what it means otherwise. It waits for the device once, to read the norm.

    Args:
        parameters: The trained parameters, with accumulated gradients.
        optimizer: Their optimizer.
        scaler: From :func:`make_scaler`.
        clip_grad: Largest norm of all gradients; 0 does not clip.
    """
    scaler.unscale_(optimizer)
    limit = clip_grad if clip_grad > 0 else float("inf")
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    is_finite = norm < float("inf")  # False for NaN too
    if is_finite or scaler.is_enabled():
        # It leaves the weights alone where the scaler found a non-finite gradient.
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(grad_norm=norm, is_taken=is_finite)
