"""``cktrain predict``: frames in; probabilities, figures and a labelled video out, written while
the input is still being read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from shard_builder.errors import InputError
from shard_builder.images import Image
from train.prediction.figures import FilmStrip, draw_label, write_bar_chart, write_timeline
from train.prediction.frame_source import FrameSource, open_frames
from train.prediction.stream_model import check_pair, load_stream_model
from train.prediction.window_predictor import WindowPrediction, WindowPredictor

Probs = npt.NDArray[np.float64]
PREDICTIONS_NAME = "predictions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPrediction:
    """The whole clip.

    Args:
        probs: Probabilities (classes,) by stream, and ``fused`` when there are two.
        class_names: Names in label order.
        num_frames: Frames read.
        num_windows: Windows predicted.
        duration_s: Length of the clip at its frame rate.
        seconds: Time that reading, flow and models took; figures not counted.
        first_output_s: Time until the first window was written.
        notices: What a reader must know before believing the answer.
    """

    probs: dict[str, Probs]
    class_names: tuple[str, ...]
    num_frames: int
    num_windows: int
    duration_s: float
    seconds: float
    first_output_s: float
    notices: tuple[str, ...] = ()

    @property
    def decision(self) -> Probs:
        """Probabilities that decide: the fused ones, or those of the only stream."""
        return self.probs.get("fused", next(iter(self.probs.values())))

    @property
    def emotion(self) -> str:
        """Name of the likeliest class."""
        return self.class_names[int(self.decision.argmax())]


@dataclass(slots=True)
class _Track:
    """What is kept of a clip while it runs: thumbnails, and each window's logits and decision."""

    strip: FilmStrip = field(default_factory=FilmStrip)
    windows: list[WindowPrediction] = field(default_factory=list)
    num_frames: int = 0


def run_predict(
    runs: Sequence[Path],
    source: Path,
    *,
    out: Path,
    checkpoint: str = "last",
    stride: int = 5,
    fps: float | None = None,
    overlay: Path | None = None,
    device: str = "auto",
    on_window: Callable[[WindowPrediction, float, tuple[str, ...]], None] | None = None,
) -> ClipPrediction:
    """Predict the emotion in a video, a folder of frames or a CK+ sequence; no dataset folder is
    needed.

    Writes ``predictions.jsonl`` (a line a window as soon as it is known, the clip's line last),
    ``bars.png`` and ``timeline.png`` into ``out``.

    Args:
        runs: One run folder, or an rgb and a flow run in any order.
        source: The input; see :func:`train.prediction.frame_source.open_frames`.
        out: Folder to write.
        checkpoint: ``last`` or ``best``.
        stride: Frames from one window to the next; the last frame always ends a window.
        fps: Frame rate in place of the input's own.
        overlay: Video file (.mp4) to write with the label drawn in.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        on_window: Called with each window, its end in seconds, and the class names.

    Raises:
        InputError: If a run or the input cannot be used.
    """
    models = [load_stream_model(run, checkpoint=checkpoint, device=device) for run in runs]
    check_pair(models)
    names = models[0].class_names
    frames = open_frames(source, fps=fps)
    out.mkdir(parents=True, exist_ok=True)
    predictor = WindowPredictor(models, stride=stride)
    track, writer = _Track(), _OverlayWriter(overlay, fps=frames.fps, class_names=names)
    begin, first_output_s = time.perf_counter(), 0.0
    with (out / PREDICTIONS_NAME).open("w", encoding="utf-8") as lines, writer:
        for frame, window in predictor.iter_windows(frames):
            track.strip.offer(track.num_frames, frame)
            track.num_frames += 1
            if window is not None:
                track.windows.append(window)
                _write_line(lines, _window_record(window, frames.fps, names))
                first_output_s = first_output_s or time.perf_counter() - begin
                if on_window:
                    on_window(window, window.last_frame / frames.fps, names)
            writer.add(frame, window)
        clip = _whole_clip(
            track, predictor, frames, names, time.perf_counter() - begin, first_output_s
        )
        _write_line(lines, _clip_record(clip, frames))
    _write_figures(out, clip, track, frames)
    return clip


def _whole_clip(
    track: _Track,
    predictor: WindowPredictor,
    frames: FrameSource,
    class_names: tuple[str, ...],
    seconds: float,
    first_output_s: float,
) -> ClipPrediction:
    """Average the logits over the windows; of a CK+ sequence the rgb stream counts its peak frame
    only, as in the test.
    """
    logits = {
        stream: np.mean([w.logits[stream] for w in track.windows], axis=0)
        for stream in predictor.models
    }
    if frames.kind == "ckplus" and "rgb" in logits:
        logits["rgb"] = track.windows[-1].logits["rgb"]
    return ClipPrediction(
        probs=predictor.fuse(logits),
        class_names=class_names,
        num_frames=track.num_frames,
        num_windows=len(track.windows),
        duration_s=track.num_frames / frames.fps,
        seconds=seconds,
        first_output_s=first_output_s,
        notices=tuple(
            f"the {model.stream} net was trained on face crops ({model.crop}), but the input is not"
            " cropped"
            for model in predictor.models.values()
            if model.crop != "none"
        ),
    )


def _named(probs: dict[str, Probs], class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    return {
        stream: dict(zip(class_names, values.tolist(), strict=True))
        for stream, values in probs.items()
    }


def _window_record(
    window: WindowPrediction, fps: float, class_names: Sequence[str]
) -> dict[str, Any]:
    return {
        "kind": "window",
        "window": window.window,
        "first_frame": window.first_frame,
        "last_frame": window.last_frame,
        "begin_s": round(window.first_frame / fps, 4),
        "end_s": round(window.last_frame / fps, 4),
        "predicted": class_names[int(window.decision.argmax())],
        "probs": _named(window.probs, class_names),
    }


def _clip_record(clip: ClipPrediction, frames: FrameSource) -> dict[str, Any]:
    return {
        "kind": "clip",
        "input": frames.path.name,
        "input_kind": frames.kind,
        "num_frames": clip.num_frames,
        "num_windows": clip.num_windows,
        "fps": round(frames.fps, 4),
        "duration_s": round(clip.duration_s, 4),
        "seconds": round(clip.seconds, 4),
        "first_output_s": round(clip.first_output_s, 4),
        "predicted": clip.emotion,
        "probs": _named(clip.probs, clip.class_names),
    }


def _write_line(lines: Any, record: dict[str, Any]) -> None:
    lines.write(json.dumps(record) + "\n")
    lines.flush()


def _write_figures(out: Path, clip: ClipPrediction, track: _Track, frames: FrameSource) -> None:
    title = f"{frames.path.name}: {clip.emotion} {clip.decision.max():.0%}"
    write_bar_chart(out / "bars.png", clip.probs, class_names=clip.class_names, title=title)
    write_timeline(
        out / "timeline.png",
        times_s=np.array([(w.first_frame + w.last_frame) / 2 / frames.fps for w in track.windows]),
        probs=np.stack([window.decision for window in track.windows]),
        class_names=clip.class_names,
        strip=track.strip,
        fps=frames.fps,
        title=title,
    )


class _OverlayWriter:
    """Writes frames with the label of the window that covers them; holds back the frames of one
    window at most.
    """

    def __init__(self, path: Path | None, *, fps: float, class_names: tuple[str, ...]) -> None:
        if path is not None and path.suffix.lower() != ".mp4":
            raise InputError(f"--overlay {path}, expected a file name that ends in .mp4")
        self.path, self.fps, self.class_names = path, fps, class_names
        self._waiting: list[Image] = []
        self._video: cv2.VideoWriter | None = None

    def __enter__(self) -> _OverlayWriter:
        return self

    def add(self, frame: Image, window: WindowPrediction | None) -> None:
        """Take a frame; when its window is known, write all frames that waited for it."""
        if self.path is None:
            return
        self._waiting.append(frame)
        if window is not None:
            for waiting in self._waiting:
                self._write(draw_label(waiting, window.decision, class_names=self.class_names))
            self._waiting = []

    def _write(self, image: Image) -> None:
        assert self.path is not None
        if self._video is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (image.shape[1], image.shape[0])
            self._video = cv2.VideoWriter(
                str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, size
            )
            if not self._video.isOpened():
                raise InputError(
                    f"--overlay {self.path}: cannot be written, expected a folder that is writable"
                )
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    @property
    def _partial(self) -> Path:
        assert self.path is not None
        return self.path.with_name(f".{self.path.stem}.partial.mp4")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._video is None or self.path is None:
            return
        self._video.release()
        if kind is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)
