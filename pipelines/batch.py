"""What a loader hands over, and what it asks an engine for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipelines.plan.permutation import Int64
from pipelines.plan.plan import PlanTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One rank's part of a global batch. Its tensors stay valid until the next batch is asked for:
    buffers are reused.

    Args:
        images: (N, C, 224, 224) channels_last, in the dtype and on the device that were asked for.
            ``uint8`` holds levels with flips done (x flow turned to 255 - x); floats are
            normalised: rgb by ImageNet's mean and deviation, flow by 0.5 and 0.226.
        labels: Class indices, ``int64`` (N,), on the device.
        valid: False for padding that repeats a sample so that all ranks have equal batches,
            ``bool`` (N,), on the device.
        keys: Keys of the samples.
        positions: Positions in the epoch, ``int64`` (N,).
        global_size: Valid samples in the batch over all ranks.
    """

    images: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor
    keys: tuple[str, ...]
    positions: Int64
    global_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One rank's part of a global batch as the plan has it.

    Args:
        table: The plan at this rank's positions, padding included.
        valid: False for padding, ``bool`` (N,).
        epoch: Epoch that the plan is of.
        global_size: Valid samples over all ranks.
    """

    table: PlanTable
    valid: npt.NDArray[np.bool_]
    epoch: int
    global_size: int
