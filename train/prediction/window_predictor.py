"""A window that slides over frames: flow as they come, both models at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, Probs, deciding, late_fusion, softmax
from shard_builder.building.flow import make_flow_estimator
from shard_builder.errors import InputError
from shard_builder.format.levels import quantize_flow
from shard_builder.images import Image, resize_image, to_gray
from train.prediction.stream_model import StreamModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowPrediction:
    """What the models say of one window of ``stack_length`` pairs.

    Args:
        window: Number of the window, from 0.
        first_frame: First frame of the window, 0-based.
        last_frame: Last frame; the rgb stream sees this one.
        logits: Logits (classes,) by stream.
        probs: Probabilities (classes,) by stream, and ``fused`` when there are two.
    """

    window: int
    first_frame: int
    last_frame: int
    logits: dict[str, Probs]
    probs: dict[str, Probs]

    @property
    def decision(self) -> Probs:
        """Probabilities that decide: the fused ones, or those of the only stream."""
        return deciding(self.probs)


class WindowPredictor:
    """Slides over frames and predicts; keeps one window of flow and two frames in memory.

    Args:
        models: One model, or an rgb and a flow model.
        stride: Frames from one window to the next.
        weights: Fusion weights.
    """

    def __init__(
        self,
        models: Sequence[StreamModel],
        *,
        stride: int,
        weights: FusionWeights = DEFAULT_WEIGHTS,
    ) -> None:
        if stride < 1:
            raise InputError(f"stride={stride}, expected at least 1 frame")
        self.models: dict[str, StreamModel] = {model.stream: model for model in models}
        self.stride = stride
        self.weights = weights
        flow = self.models.get("flow")
        self.stack_length = flow.stack_length if flow else 0
        self._pairs: deque[tuple[Image, Image]] = deque(maxlen=max(1, self.stack_length))
        method = flow.flow_method if flow else None
        size = flow.flow_size if flow else None
        self._estimate = make_flow_estimator(method, size=size) if method else None
        self._previous: Image | None = None
        self._frame: Image | None = None
        self._num_windows = 0

    def iter_windows(
        self, frames: Iterable[Image]
    ) -> Iterator[tuple[Image, WindowPrediction | None]]:
        """Yield every frame, with the prediction of the window that ends at it, if one does.

        Windows end every ``stride`` frames and at the last frame, so that the peak of a CK+
        sequence is always seen. A clip with fewer pairs than a window gives one window, its last
        pair repeated, as in training.

        Args:
            frames: RGB ``uint8`` (H, W, 3), all of one size.

        Raises:
            InputError: If there are no two frames.
        """
        held: Image | None = None  # one frame behind, so that the last one is known to be the last
        number = -1
        for number, frame in enumerate(frames):
            if held is not None:
                yield held, self._window_at(number - 1, is_last=False)
            self._add(frame)
            held = frame
        if held is None or number < 1:
            raise InputError(f"{number + 1} frames in the input, expected at least 2")
        yield held, self._window_at(number, is_last=True)

    def _window_at(self, number: int, *, is_last: bool) -> WindowPrediction | None:
        beyond_first = number - max(1, self.stack_length)
        if not is_last and (beyond_first < 0 or beyond_first % self.stride):
            return None
        logits = {
            stream: model.logits_of(self._planes(model)) for stream, model in self.models.items()
        }
        window = WindowPrediction(
            window=self._num_windows,
            first_frame=max(0, number - self.stack_length),
            last_frame=number,
            logits=logits,
            probs=self.fuse(logits),
        )
        self._num_windows += 1
        return window

    def _planes(self, model: StreamModel) -> list[Image]:
        """Return what a model sees of the window: its pairs, or the last frame."""
        if model.stream == "flow":
            pairs = list(self._pairs)
            pairs += [pairs[-1]] * (self.stack_length - len(pairs))
            return [plane for pair in pairs for plane in pair]
        assert self._frame is not None
        return [resize_image(self._frame, width=model.width, height=model.height)]

    def fuse(self, logits: dict[str, Probs]) -> dict[str, Probs]:
        """Turn logits by stream into probabilities by stream, and ``fused`` when there are two."""
        probs = {stream: softmax(values) for stream, values in logits.items()}
        if len(probs) == 2:
            probs["fused"] = late_fusion(rgb=probs["rgb"], flow=probs["flow"], weights=self.weights)
        return probs

    def _add(self, frame: Image) -> None:
        self._frame = frame
        flow = self.models.get("flow")
        if flow is None or self._estimate is None:
            return
        gray = to_gray(frame)
        if self._previous is not None:
            levels = quantize_flow(self._estimate(self._previous, gray), bound_px=flow.bound_px)
            x, y = (np.ascontiguousarray(levels[..., axis]) for axis in (0, 1))
            size = {"width": flow.width, "height": flow.height}
            self._pairs.append((resize_image(x, **size), resize_image(y, **size)))
        self._previous = gray
