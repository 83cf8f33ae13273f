"""Classifier heads: Dropout and Linear, or the original's, for its checkpoints and comparisons."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

ORIGINAL_NUM_OUTPUTS = 8
"""CK+'s codes 0..7; code 0 (neutral) is never trained."""


class Head(nn.Sequential):
    """What stands in the place of a net's own classifier."""


def make_head(num_features: int, num_classes: int, *, dropout: float) -> Head:
    """Make Dropout and Linear."""
    return Head(nn.Dropout(dropout), nn.Linear(num_features, num_classes))


class BatchNormOfLogits(nn.BatchNorm1d):
    """BatchNorm1d that takes a batch of one, which has no variance, with its running statistics."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Normalise (N, classes) logits."""
        if not self.training or len(logits) > 1:
            return super().forward(logits)
        own = (self.running_mean, self.running_var, self.weight, self.bias)
        return functional.batch_norm(logits, *own, training=False, eps=self.eps)


def make_original_head(stream: str, num_features: int, *, dropout: float) -> Head:
    """Make the original's head: Dropout, Linear(8); for rgb also BatchNorm1d(8), Linear(8, 8).

    Source: flow_resnet.py:104-163 and rgb_resnet.py:113-161 of two_stream_for_emotion_recognition.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["dropout"] = nn.Dropout(dropout)
    layers["fc_action"] = nn.Linear(num_features, ORIGINAL_NUM_OUTPUTS)
    if stream == "rgb":  # no ReLU between, as in the original
        layers["bn_final"] = BatchNormOfLogits(ORIGINAL_NUM_OUTPUTS)
        layers["fc_final"] = nn.Linear(ORIGINAL_NUM_OUTPUTS, ORIGINAL_NUM_OUTPUTS)
    return Head(layers)
