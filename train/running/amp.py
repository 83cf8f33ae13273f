"""Automatic mixed precision: where bf16 or fp16 is used, and the step of an accumulation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from shard_builder.errors import InputError
from shard_builder.untrusted.text import clean
from train.device import DTYPES


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


def gradient_norm(
    parameters: Iterable[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_grad: float,
) -> torch.Tensor:
    """Unscale and clip accumulated gradients; the host does not wait for the device.

    Args:
        parameters: The trained parameters, with accumulated gradients.
        optimizer: Their optimizer.
        scaler: From :func:`make_scaler`.
        clip_grad: Largest norm of all gradients; 0 does not clip, and multiplies none.

    Returns:
        Norm of all gradients before clipping, ``float32`` (), on their device.
    """
    scaler.unscale_(optimizer)
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if clip_grad > 0:
        torch.nn.utils.clip_grads_with_norm_(trained, clip_grad, norm)
    return norm


def take_step(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, is_finite: bool
) -> None:
    """Step if the gradients are finite, adapt the scale of the loss, zero the gradients.

    Args:
        optimizer: The optimizer.
        scaler: From :func:`make_scaler`; it halves its scale after gradients that are not finite.
        is_finite: Whether the norm of the gradients is. It was read already: the scaler's own
            ``step`` would wait for the device once more.
    """
    if is_finite:
        optimizer.step()
        scaler.update()
    elif scaler.is_enabled():
        state = scaler.state_dict()
        scaler.update()
        # By itself it would not halve where each gradient is finite and only their norm is not.
        halved = {"scale": state["scale"] * state["backoff_factor"], "_growth_tracker": 0}
        scaler.load_state_dict(state | halved)
    optimizer.zero_grad(set_to_none=True)
