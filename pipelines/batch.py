"""What a loader hands over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipelines.plan.permutation import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One rank's part of a global batch.

    Its tensors are valid until the next batch is asked for: their memory is used again. What is to
    stay longer, such as ``[batch.clone() for batch in loader]``, is cloned.

    Args:
        images: (N, C, 224, 224) channels_last, in the dtype and on the device that were asked for.
            ``uint8`` holds levels with flips done (x flow turned to 255 - x); floats are
            normalised: rgb by ImageNet's mean and deviation, flow by 0.5 and 0.226.
        labels: Class indices, ``int64`` (N,), on the device.
        valid: False for padding that repeats a sample so that all ranks have equal batches,
            ``bool`` (N,), on the device.
        keys: Keys of the samples.
        positions: Positions in the epoch, ``int64`` (N,).
        epoch: Epoch, from 0.
        global_size: Valid samples in the batch over all ranks.
    """

    images: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor
    keys: tuple[str, ...]
    positions: Int64
    epoch: int
    global_size: int

    def clone(self) -> Batch:
        """Return a copy with memory of its own."""
        return replace(
            self, images=self.images.clone(), labels=self.labels.clone(), valid=self.valid.clone()
        )

    copy = clone  # as NumPy calls it
