"""Late fusion: the spatial and the temporal stream vote with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Probs = npt.NDArray[np.float64]
Value = TypeVar("Value")

NUM_GRID_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionWeights:
    """How much each stream's probabilities count, and where the numbers come from.

    Args:
        rgb: Weight of the spatial stream, >= 0.
        flow: Weight of the temporal stream, >= 0; only the ratio matters, one of them must be
            positive.
        origin: ``default`` (TSN's 1:1.5), ``validation`` (searched on sequences that are not
            tested) or ``given``.
    """

    rgb: float = 1.0
    flow: float = 1.5
    origin: Literal["default", "validation", "given"] = "default"

    def __post_init__(self) -> None:
        if not (self.rgb >= 0 and self.flow >= 0 and 0 < self.rgb + self.flow < float("inf")):
            raise ValueError(
                f"fusion weights rgb {self.rgb}, flow {self.flow},"
                " expected finite, not negative, one positive"
            )


DEFAULT_WEIGHTS = FusionWeights()
"""rgb : flow = 1 : 1.5. Source: README of github.com/yjxiong/temporal-segment-networks."""


def deciding(by_stream: Mapping[str, Value]) -> Value:
    """Return what decides: the value of ``fused``, or that of the only stream."""
    return by_stream["fused"] if "fused" in by_stream else next(iter(by_stream.values()))


def softmax(logits: npt.NDArray[np.floating[Any]]) -> Probs:
    """Turn logits into probabilities along the last axis, ``float64``, safe for large logits."""
    shifted = np.asarray(logits, np.float64)
    exponents = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def late_fusion(*, rgb: Probs, flow: Probs, weights: FusionWeights = DEFAULT_WEIGHTS) -> Probs:
    """Average the streams' probabilities.

    Args:
        rgb: Probabilities of the spatial stream, shape (..., classes), rows summing to 1.
        flow: Probabilities of the temporal stream, same shape.
        weights: How much each counts.

    Returns:
        Probabilities of the same shape, ``float64``.

    Raises:
        ValueError: If the shapes differ or a row does not sum to 1 (logits are not fused: the
            streams' scales differ).

    Source: weighted averaging of scores, Simonyan and Zisserman 2014, section 5.

    >>> late_fusion(rgb=np.array([1.0, 0.0]), flow=np.array([0.0, 1.0])).round(3).tolist()
    [0.4, 0.6]
    """
    if rgb.shape != flow.shape:
        raise ValueError(
            f"probabilities of shape {rgb.shape} (rgb) and {flow.shape} (flow),"
            " expected equal shapes"
        )
    for name, probs in (("rgb", rgb), ("flow", flow)):
        sums = probs.sum(axis=-1)
        if not np.allclose(sums, 1.0, atol=1e-4):
            raise ValueError(f"{name} rows sum to {sums.min():.4g}..{sums.max():.4g}, expected 1")
    fused = (weights.rgb * rgb + weights.flow * flow) / (weights.rgb + weights.flow)
    return np.asarray(fused, np.float64)


def search_weights(*, rgb: Probs, flow: Probs, labels: npt.NDArray[np.int64]) -> FusionWeights:
    """Find the weights with the highest accuracy on validation sequences.

    The share of flow goes over 0, 0.01, ..., 1. Among equally accurate shares the least log loss
    decides, so that a plateau of accuracy, wide on a few dozen sequences, still has one best point.

    Args:
        rgb: Probabilities of the spatial stream, shape (n, classes).
        flow: Probabilities of the temporal stream, same shape and order.
        labels: True classes, ``int64`` (n,). Never those of the sequences that are reported.

    Returns:
        The weights, ``rgb + flow = 1``, origin ``validation``.

    Raises:
        ValueError: If there is no sequence or the lengths differ.
    """
    if not len(labels) or len(labels) != len(rgb):
        raise ValueError(
            f"{len(rgb)} rows of probabilities and {len(labels)} labels,"
            " expected equally many, at least one"
        )

    def quality(weights: FusionWeights) -> tuple[float, float]:
        probs = late_fusion(rgb=rgb, flow=flow, weights=weights)
        of_true_class = np.maximum(probs[np.arange(len(labels)), labels], 1e-12)
        return float((probs.argmax(axis=1) == labels).mean()), float(np.log(of_true_class).mean())

    shares = np.arange(NUM_GRID_STEPS + 1) / NUM_GRID_STEPS
    grid = [FusionWeights(rgb=1 - s, flow=s, origin="validation") for s in shares.tolist()]
    return max(reversed(grid), key=quality)  # among equals the larger share of flow
