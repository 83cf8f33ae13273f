"""SGD as the original has it, and the learning rate of an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.build import stem_parameters
from models.weights import check_tensor
from shard_builder.errors import InputError
from train.config import TrainConfig

LR_DECAY = 0.1


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Make SGD with momentum and weight decay on all parameters; the stem is a group of its own."""
    stem = stem_parameters(model)
    in_stem = {id(parameter) for parameter in stem}
    others = [parameter for parameter in model.parameters() if id(parameter) not in in_stem]
    scales = ((stem, config.stem_lr_scale), (others, 1.0))
    groups = [{"params": parameters, "lr_scale": scale} for parameters, scale in scales]
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def load_momentum(optimizer: torch.optim.SGD, state: Any, *, origin: Path) -> None:
    """Restore the momentum of each parameter; rates and factors follow from the options.

    Raises:
        InputError: If it is not the state of this optimizer.
    """
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    buffers = state.get("state") if isinstance(state, dict) else None
    if not isinstance(buffers, dict) or not buffers.keys() <= set(range(len(parameters))):
        raise InputError(f"{origin}: optimizer: is no state of this optimizer")
    restored = {}
    for number, entry in buffers.items():
        buffer = entry.get("momentum_buffer") if isinstance(entry, dict) else entry
        if buffer is not None:
            place = f"{origin}: optimizer.state[{number}].momentum_buffer"
            check_tensor(buffer, like=parameters[number], place=place)
            buffer = buffer.clone()  # the file may be written anew
        restored[number] = {"momentum_buffer": buffer}
    optimizer.load_state_dict({"state": restored, "param_groups": own["param_groups"]})


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: divided by 10 at each of ``lr_steps``.

    Source: main_single_gpu.py of two_stream_for_emotion_recognition.
    """
    return float(config.lr * LR_DECAY ** sum(epoch >= step for step in config.lr_steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
