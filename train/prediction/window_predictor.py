"""A window that slides over frames: flow as they come, both models at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from models.fusion import DEFAULT_WEIGHTS, FusionWeights, Probs, deciding, late_fusion, softmax
from shard_builder.building.flow import make_flow_estimator
from shard_builder.errors import InputError, SourceError, counted
from shard_builder.faces.crop import Box, crop_image, detected_box
from shard_builder.faces.model import FaceModel
from shard_builder.faces.track import Boxes
from shard_builder.format.crop import parse_crop
from shard_builder.format.levels import quantize_flow
from shard_builder.images import Image, resize_image, to_gray
from train.prediction.face_follower import FaceFollower
from train.prediction.stream_model import StreamModel

LEAST_FRAMES = 5
"""Of which a face is found, where a window is shorter."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowPrediction:
    """What the models say of one window of ``stack_length`` pairs.

    Args:
        window: Number of the window, from 0.
        first_frame: First frame of the window, 0-based.
        last_frame: Last frame; the rgb stream sees this one.
        logits: Logits (classes,) by stream.
        probs: Probabilities (classes,) by stream, and ``fused`` when there are two.
        face: Where the face was found, of nets trained on face crops: left, top, right, bottom.
    """

    window: int
    first_frame: int
    last_frame: int
    logits: dict[str, Probs]
    probs: dict[str, Probs]
    face: Boxes | None = None

    @property
    def decision(self) -> Probs:
        """Probabilities that decide: the fused ones, or those of the only stream."""
        return deciding(self.probs)

    @property
    def frames(self) -> str:
        """Which frames it shows, counted from 1, in words."""
        first, last = self.first_frame + 1, self.last_frame + 1
        return f"frame {last}" if first == last else f"frames {first} to {last}"


class WindowPredictor:
    """Slides over frames and predicts; keeps one window of flow and gray frames in memory.

    Nets that were trained on face crops see the face, found and followed in the frames.

    Args:
        models: One model, or an rgb and a flow model.
        stride: Frames from one window to the next.
        weights: Fusion weights.
        face_model: Of the face detector, for nets that were trained on face crops.

    Attributes:
        follower: Follows the face; None where frames are not cropped.
        is_faceless: Whether a window ended at the last frame, but no face has been found yet.
        seen: What each model saw of the last window, see :meth:`StreamModel.images_of`.
    """

    def __init__(
        self,
        models: Sequence[StreamModel],
        *,
        stride: int,
        weights: FusionWeights = DEFAULT_WEIGHTS,
        face_model: FaceModel | None = None,
    ) -> None:
        if stride < 1:
            raise InputError(f"stride={stride}, expected at least 1 frame")
        self.models: dict[str, StreamModel] = {model.stream: model for model in models}
        self.stride = stride
        self.weights = weights
        flow = self.models.get("flow")
        self.stack_length = flow.stack_length if flow else 0
        self._crops = {m.stream: parse_crop(m.crop, place=str(m.run)) for m in models}
        num_frames = max(self.stack_length + 1, LEAST_FRAMES)
        self.follower = FaceFollower(face_model, num_frames=num_frames) if face_model else None
        self.is_faceless = False
        self._face: Boxes | None = None
        self._grays: deque[Image] = deque(maxlen=self.stack_length + 1)
        self._pairs: dict[int, tuple[Image, Image]] = {}
        self._pairs_box: Box | None = None
        method = flow.flow_method if flow else None
        size = flow.flow_size if flow else None
        self._estimate = make_flow_estimator(method, size=size) if method else None
        self._frame: Image | None = None
        self._num_windows = 0
        self.seen: dict[str, list[Image]] = {}

    def iter_windows(
        self, frames: Iterable[Image], *, place: str = "the input"
    ) -> Iterator[tuple[Image, WindowPrediction | None]]:
        """Yield every frame, with the prediction of the window that ends at it, if one does.

        Windows end every ``stride`` frames and at the last frame, so that the peak of a CK+
        sequence is always seen. A clip with fewer pairs than a window gives one window, its last
        pair repeated, as in training.

        Args:
            frames: RGB ``uint8`` (H, W, 3), all of one size.
            place: Where they come from, for messages.

        Raises:
            SourceError: If there is no frame, no pair of them for a flow net, or no face for nets
                trained on face crops.
        """
        # Each net has a thread and its share of cores: one net after the other on all of them waits
        # for the slowest core at every layer.
        cores = torch.get_num_threads()
        share = max(1, cores // len(self.models))
        try:
            with ThreadPoolExecutor(
                len(self.models), "net", torch.set_num_threads, (share,)
            ) as nets:
                yield from self._iter_windows(frames, nets, place)
        finally:
            torch.set_num_threads(cores)  # else threads to come would begin with the share

    def _iter_windows(
        self, frames: Iterable[Image], nets: Executor, place: str
    ) -> Iterator[tuple[Image, WindowPrediction | None]]:
        held: Image | None = None  # one frame behind, so that the last one is known to be the last
        number = -1
        for number, frame in enumerate(frames):
            if held is not None:
                yield held, self._window_at(number - 1, nets, is_last=False)
            self._add(frame)
            held = frame
        least = 2 if self.stack_length else 1
        if held is None or number + 1 < least:
            why = " (one flow pair)\n  A run of rgb alone takes single pictures."
            raise SourceError(
                f"{place}: {number + 1} frame{'' if number == 0 else 's'}, expected at least"
                f" {least}{why if least == 2 else ''}"
            )
        window = self._window_at(number, nets, is_last=True)
        if not self._num_windows:
            raise SourceError(
                f"{place}: no face found in any of {counted(number + 1, 'frame')}, expected one by"
                " a net that was trained on face crops"
            )
        yield held, window

    def _window_at(self, number: int, nets: Executor, *, is_last: bool) -> WindowPrediction | None:
        beyond_first = number - max(1, self.stack_length)
        if not is_last and (beyond_first < 0 or beyond_first % self.stride):
            return None
        if self.follower:
            self._face = self.follower.locate()
            self.is_faceless = self._face is None
            if self.is_faceless:
                return None
        self.seen = {stream: self._planes(model, number) for stream, model in self.models.items()}
        answers = nets.map(
            lambda stream: self.models[stream].logits_of(self.seen[stream]), self.seen
        )
        logits = dict(zip(self.seen, answers, strict=True))
        window = WindowPrediction(
            window=self._num_windows,
            first_frame=max(0, number - self.stack_length),
            last_frame=number,
            logits=logits,
            probs=self.fuse(logits),
            face=self._face,
        )
        self._num_windows += 1
        return window

    def _planes(self, model: StreamModel, number: int) -> list[Image]:
        """Return what a model sees of the window that ends at a frame: its pairs, or the frame."""
        box = self._box_of(model)
        if model.stream == "flow":
            pairs = self._window_pairs(model, number, box)
            pairs += [pairs[-1]] * (self.stack_length - len(pairs))
            return [plane for pair in pairs for plane in pair]
        assert self._frame is not None
        frame = crop_image(self._frame, box) if box else self._frame
        return [resize_image(frame, width=model.width, height=model.height)]

    def _box_of(self, model: StreamModel) -> Box | None:
        crop = self._crops[model.stream]
        return detected_box(self._face, crop) if crop and self._face is not None else None

    def _window_pairs(
        self, model: StreamModel, number: int, box: Box | None
    ) -> list[tuple[Image, Image]]:
        """Return x and y levels of each step to frame ``number``; windows share what is computed.

        All are cut by one box: a box that moves within a window would be motion that is none.
        """
        begin = max(0, number - self.stack_length)
        kept = self._pairs if box == self._pairs_box else {}
        grays = list(self._grays)[begin - number - 1 :]
        self._pairs = {
            first: kept.get(first) or self._pair(model, before, after, box)
            for first, (before, after) in enumerate(pairwise(grays), start=begin)
        }
        self._pairs_box = box
        return list(self._pairs.values())

    def _pair(
        self, model: StreamModel, before: Image, after: Image, box: Box | None
    ) -> tuple[Image, Image]:
        assert self._estimate is not None
        if box:
            before, after = crop_image(before, box), crop_image(after, box)
        levels = quantize_flow(self._estimate(before, after), bound_px=model.bound_px)
        x, y = (np.ascontiguousarray(levels[..., axis]) for axis in (0, 1))
        size = {"width": model.width, "height": model.height}
        return resize_image(x, **size), resize_image(y, **size)

    def fuse(self, logits: dict[str, Probs]) -> dict[str, Probs]:
        """Turn logits by stream into probabilities by stream, and ``fused`` when there are two."""
        probs = {stream: softmax(values) for stream, values in logits.items()}
        if len(probs) == 2:
            probs["fused"] = late_fusion(rgb=probs["rgb"], flow=probs["flow"], weights=self.weights)
        return probs

    def _add(self, frame: Image) -> None:
        self._frame = frame
        self.is_faceless = False
        if self.follower:
            self.follower.add(frame)
        if self._estimate is not None:
            self._grays.append(to_gray(frame))
