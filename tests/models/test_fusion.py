"""Late fusion and its weights."""

from __future__ import annotations

import numpy as np
import pytest

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, late_fusion, search_weights, softmax


def test_default_weights_are_one_to_one_and_a_half() -> None:
    assert (DEFAULT_WEIGHTS.rgb, DEFAULT_WEIGHTS.flow, DEFAULT_WEIGHTS.origin) == (
        1.0,
        1.5,
        "default",
    )
    fused = late_fusion(rgb=np.array([[0.9, 0.1]]), flow=np.array([[0.2, 0.8]]))
    assert fused == pytest.approx(np.array([[(0.9 + 1.5 * 0.2) / 2.5, (0.1 + 1.5 * 0.8) / 2.5]]))
    assert fused.sum() == pytest.approx(1.0)


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([1000.0, 1000.0, -1000.0])).tolist() == [0.5, 0.5, 0.0]


def test_logits_are_not_fused() -> None:
    with pytest.raises(ValueError, match="flow rows sum to 5"):
        late_fusion(rgb=np.array([[0.5, 0.5]]), flow=np.array([[2.0, 3.0]]))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) \(rgb\) and \(2, 2\) \(flow\)"):
        late_fusion(rgb=np.full((1, 2), 0.5), flow=np.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("rgb", "flow"), [(-1.0, 2.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_weights_check_themselves(rgb: float, flow: float) -> None:
    with pytest.raises(ValueError, match="fusion weights"):
        FusionWeights(rgb=rgb, flow=flow)


def test_search_turns_to_the_stream_that_is_right() -> None:
    labels = np.arange(60) % 3
    right = np.full((60, 3), 0.1)
    right[np.arange(60), labels] = 0.8
    wrong = np.roll(right, 1, axis=1)
    assert search_weights(rgb=wrong, flow=right, labels=labels).flow > 0.5
    assert search_weights(rgb=right, flow=wrong, labels=labels).rgb > 0.5
    assert search_weights(rgb=right, flow=wrong, labels=labels).origin == "validation"


def test_search_finds_weights_that_beat_either_stream() -> None:
    # rgb knows half of the sequences surely, flow the others; each is only mildly wrong where it
    # does not know.
    labels = np.zeros(40, np.int64)
    rgb = np.where(np.arange(40)[:, None] < 20, [[0.9, 0.1]], [[0.45, 0.55]])
    flow = np.where(np.arange(40)[:, None] >= 20, [[0.9, 0.1]], [[0.45, 0.55]])
    weights = search_weights(rgb=rgb, flow=flow, labels=labels)
    assert (late_fusion(rgb=rgb, flow=flow, weights=weights).argmax(1) == labels).all()
    assert 0.4 < weights.flow < 0.6


def test_search_needs_sequences() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        search_weights(rgb=np.zeros((0, 2)), flow=np.zeros((0, 2)), labels=np.zeros(0, np.int64))
