"""Optimizers, learning rates and averaged weights: torch's own, chosen by the configuration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.build import head_parameters, stem_parameters
from models.weights import check_tensor
from shard_builder.errors import InputError
from train.config import TrainConfig

LR_DECAY = 0.1
ONE_CYCLE_RISE = 0.3
"""Part of the steps in which the rate of one-cycle rises, unless a warm-up is given. Source:
OneCycleLR's own."""
WARMUP_START = 1e-3
STATES = {"sgd": ("momentum_buffer",), "adamw": ("step", "exp_avg", "exp_avg_sq")}
"""What each optimizer keeps of a parameter."""


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer; stem and head are groups of their own, the last group is the rest."""
    scales = (
        (stem_parameters(model), config.stem_lr_scale),
        (head_parameters(model), config.head_lr_scale),
    )
    grouped = {id(parameter) for parameters, _ in scales for parameter in parameters}
    others = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    groups = [
        {"params": parameters, "lr": config.lr * scale}
        for parameters, scale in (*scales, (others, 1.0))
    ]
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(groups, betas=betas, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Any, *, kind: str, origin: Path
) -> None:
    """Restore what the optimizer keeps of each parameter; rates follow from the options.

    Raises:
        InputError: If it is not the state of this optimizer.
    """
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries = state.get("state") if isinstance(state, dict) else None
    if not isinstance(entries, dict) or not entries.keys() <= set(range(len(parameters))):
        raise InputError(f"{origin}: optimizer: is no state of this optimizer")
    restored: dict[int, dict[str, torch.Tensor | None]] = {}
    for number, entry in entries.items():
        restored[number] = {}
        for name in STATES[kind]:
            value: Any = entry.get(name) if isinstance(entry, dict) else entry
            if value is not None or name != "momentum_buffer":  # none without momentum
                like = torch.zeros(()) if name == "step" else parameters[number]
                check_tensor(value, like=like, place=f"{origin}: optimizer.state[{number}].{name}")
                value = value.clone()  # the file may be written anew
            restored[number][name] = value
    optimizer.load_state_dict({"state": restored, "param_groups": own["param_groups"]})


class Schedule:
    """The learning rates of a run, step by step, by torch's schedulers.

    Attributes:
        lr: Rate of the latest step, without the factors of stem and head.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: TrainConfig, *, steps_per_epoch: int
    ) -> None:
        """Make it for an optimizer that has taken no step.

        Args:
            optimizer: From :func:`make_optimizer`.
            config: The options.
            steps_per_epoch: Optimizer steps.
        """
        self.lr = config.lr
        self._optimizer = optimizer
        num_steps = config.epochs * steps_per_epoch
        num_warmup = config.warmup_epochs * steps_per_epoch
        parts: list[lr_scheduler.LRScheduler] = []
        if config.schedule == "one-cycle":
            rise = config.warmup_epochs / config.epochs or ONE_CYCLE_RISE
            rise = rise if rise * num_steps > 1.5 else 0.0  # no rise in a single step
            rates = [group["lr"] for group in optimizer.param_groups]
            parts.append(
                lr_scheduler.OneCycleLR(
                    optimizer, rates, num_steps, pct_start=rise, cycle_momentum=False
                )
            )
        elif config.schedule == "cosine":
            parts.append(lr_scheduler.CosineAnnealingLR(optimizer, num_steps))
        else:
            milestones = [epoch * steps_per_epoch for epoch in config.lr_steps]
            parts.append(lr_scheduler.MultiStepLR(optimizer, milestones, LR_DECAY))
        if num_warmup and config.schedule != "one-cycle":
            parts.append(lr_scheduler.LinearLR(optimizer, WARMUP_START, total_iters=num_warmup))
        self._parts = parts
        self._num_steps = num_steps

    def advance(self, num_steps: int = 1) -> None:
        """Go on to the rates of the next step, or of one further on.

        A resumed run advances from its first step: the same arithmetic gives the same rates.
        """
        with warnings.catch_warnings():
            # A step that fp16 skipped counts, and one that was taken before the run was resumed.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(min(num_steps, self._num_steps + 1)):  # the rates stay after the last
                self.lr = self._optimizer.param_groups[-1]["lr"]
                for part in self._parts:
                    if part.last_epoch < self._num_steps - 1:
                        part.step()


def make_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """Make the exponential average of the weights and of BatchNorm's statistics; None without."""
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
