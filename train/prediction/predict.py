"""Frames in; probabilities, figures and a labelled video out, while the input is being read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.fusion import Probs, deciding
from shard_builder.checks import check_targets
from shard_builder.errors import InputError, counted
from shard_builder.faces.model import FaceModel
from shard_builder.files import create_growing
from shard_builder.lock import locked
from train.prediction.explain import ClipExplanation, check_explainable
from train.prediction.exported_file import open_stream_model
from train.prediction.face_follower import face_model_of, face_notices
from train.prediction.figures import FilmStrip, write_bar_chart, write_timeline
from train.prediction.frame_source import FrameSource, open_frames
from train.prediction.labelled_video import LabelledVideo
from train.prediction.options import DEFAULTS, PredictOptions
from train.prediction.stream_model import StreamModel, check_pair
from train.prediction.window_predictor import WindowPrediction, WindowPredictor

OnWindow = Callable[[WindowPrediction, float, tuple[str, ...]], None]
PREDICTIONS_NAME, BARS_NAME, TIMELINE_NAME = "predictions.jsonl", "bars.png", "timeline.png"
EXPLAIN_NAME = "explain.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPrediction:
    """The whole clip.

    Args:
        name: What was predicted: a CK+ sequence's key, else the input's name.
        probs: Probabilities (classes,) by stream, and ``fused`` when there are two.
        class_names: Names in label order.
        num_frames: Frames read.
        num_windows: Windows predicted.
        duration_s: Length of the clip at its frame rate.
        seconds: Time that reading, flow and models took; figures not counted.
        first_output_s: Time until the first window was written.
        notices: What a reader must know before believing the answer.
        num_faceless: Frames in which no face was found; None where no net needs one.
    """

    name: str
    probs: dict[str, Probs]
    class_names: tuple[str, ...]
    num_frames: int
    num_windows: int
    duration_s: float
    seconds: float
    first_output_s: float
    notices: tuple[str, ...] = ()
    num_faceless: int | None = None

    @property
    def decision(self) -> Probs:
        """Probabilities that decide: the fused ones, or those of the only stream."""
        return deciding(self.probs)

    @property
    def emotion(self) -> str:
        """Name of the likeliest class."""
        return self.class_names[int(self.decision.argmax())]


def run_predict(
    runs: Sequence[Path],
    source: Path,
    options: PredictOptions = DEFAULTS,
    *,
    out: Path,
    on_window: OnWindow | None = None,
) -> ClipPrediction:
    """Predict the emotion in a video, a picture, a folder of frames or a CK+ sequence.

    Writes ``predictions.jsonl`` (one line for each window as soon as it is known, the clip's line
    last), ``bars.png`` and ``timeline.png`` into ``out``.

    Args:
        runs: One run folder or file of ``cktrain export``, or an rgb and a flow one in any order.
        source: The input; see :func:`train.prediction.frame_source.open_frames`.
        options: See :class:`PredictOptions`.
        out: Folder to write.
        on_window: Called with each window, its end in seconds, and the class names.

    Raises:
        InputError: If a run or the input cannot be used.
    """
    if options.on_error != "raise":
        raise InputError(
            f"on_error={options.on_error!r} is for a folder of videos, but {source} is none"
        )
    models, face_model = load_models(runs, options)
    return predict_clip(models, face_model, source, options, out=out, on_window=on_window)


def load_models(
    runs: Sequence[Path], options: PredictOptions
) -> tuple[list[StreamModel], FaceModel | None]:
    """Load one net or two that belong together, and the face detector's model if one needs it.

    Raises:
        InputError: If one cannot be used.
    """
    models = [
        open_stream_model(run, checkpoint=options.checkpoint, device=options.device) for run in runs
    ]
    check_pair(models)
    if options.explain:
        check_explainable(models)
    return models, face_model_of(models, options.face_model)


def predict_clip(
    models: Sequence[StreamModel],
    face_model: FaceModel | None,
    source: Path,
    options: PredictOptions,
    *,
    out: Path,
    on_window: OnWindow | None = None,
) -> ClipPrediction:
    """Predict one clip by what :func:`load_models` returned; see :func:`run_predict`.

    Raises:
        SourceError: If the clip cannot be read, or nothing in it can be predicted.
        InputError: If an option cannot be.
    """
    check_out(out, source)
    overlay, explain, take_over = options.overlay, options.explain, options.take_over
    check_targets(overlay, inputs=[source])
    with (
        locked(out, take_over=take_over),
        locked(overlay, take_over=take_over) if overlay else nullcontext(),
    ):
        explanation = ClipExplanation(models)
        names = models[0].class_names
        frames = open_frames(source, fps=options.fps, sampling=models[0].sampling)
        predictor = WindowPredictor(models, stride=options.stride, face_model=face_model)
        follower = predictor.follower
        video = LabelledVideo(overlay, fps=frames.fps, class_names=names)
        out.mkdir(parents=True, exist_ok=True)
        for name in (BARS_NAME, TIMELINE_NAME, EXPLAIN_NAME):  # of an earlier input
            if os.path.lexists(out / name):
                (out / name).unlink()
        strip, windows, number = FilmStrip(), list[WindowPrediction](), -1
        begin, first_output_s = time.perf_counter(), 0.0
        with create_growing(out / PREDICTIONS_NAME) as lines, video:
            for number, (frame, window) in enumerate(
                predictor.iter_windows(frames, place=str(source))
            ):
                strip.offer(number, frame)
                if window is not None:
                    windows.append(window)
                    if explain:
                        explanation.offer(window, predictor.seen)
                    _write_line(lines, _window_record(window, frames, names))
                    first_output_s = first_output_s or time.perf_counter() - begin
                    if on_window:
                        on_window(window, frames.time_of(window.last_frame), names)
                video.add(
                    frame, window, time_s=frames.time_of(number), is_faceless=predictor.is_faceless
                )
            clip = ClipPrediction(
                name=frames.name,
                probs=predictor.fuse(clip_logits(windows, kind=frames.kind)),
                class_names=names,
                num_frames=number + 1,
                num_windows=len(windows),
                duration_s=frames.time_of(number) * (number + 1) / max(number, 1),
                seconds=time.perf_counter() - begin,
                first_output_s=first_output_s,
                notices=(
                    *face_notices(models, face_model, follower),
                    *frames.notices,
                    *short_notices(predictor, num_frames=number + 1),
                ),
                num_faceless=follower.num_faceless if follower else None,
            )
            _write_line(lines, _clip_record(clip, frames))
        _write_figures(out, clip, windows, strip, frames)
        if explain:
            title = f"{frames.path.name}: what speaks for the answer (Grad-CAM)"
            explanation.write(out / EXPLAIN_NAME, class_names=names, title=title)
        return clip


def check_out(out: Path, source: Path) -> None:
    """Make sure that no figure is written among the frames or videos that are read.

    Raises:
        InputError: If it would be.
    """
    if out.is_dir() and source.is_dir() and out.samefile(source):
        raise InputError(f"out={str(out)!r}: is the input, expected another folder")


def clip_logits(windows: Sequence[WindowPrediction], *, kind: str) -> dict[str, Probs]:
    """Average the logits over the windows, by stream.

    Of a CK+ sequence the rgb stream counts its peak frame only, as in the test.
    """
    last = windows[-1].logits
    logits = {name: np.mean([window.logits[name] for window in windows], axis=0) for name in last}
    return logits | ({"rgb": last["rgb"]} if kind == "ckplus" and "rgb" in last else {})


def short_notices(predictor: WindowPredictor, *, num_frames: int) -> Iterator[str]:
    """Say that a clip is shorter than a window, as training does."""
    if num_frames <= predictor.stack_length:
        yield (
            f"{counted(num_frames, 'frame is', 'frames are')} {counted(num_frames - 1, 'pair')},"
            f" fewer than the {predictor.stack_length} of a window: the last pair is repeated"
        )


def _named(probs: dict[str, Probs], class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    return {
        stream: dict(zip(class_names, values.tolist(), strict=True))
        for stream, values in probs.items()
    }


def _window_record(
    window: WindowPrediction, frames: FrameSource, class_names: Sequence[str]
) -> dict[str, Any]:
    return {
        "kind": "window",
        "window": window.window,
        "first_frame": frames.position_of(window.first_frame),
        "last_frame": frames.position_of(window.last_frame),
        "begin_s": round(frames.time_of(window.first_frame), 4),
        "end_s": round(frames.time_of(window.last_frame), 4),
        "predicted": class_names[int(window.decision.argmax())],
        "probs": _named(window.probs, class_names),
    } | ({} if window.face is None else {"face": window.face.round(2).tolist()})


def _clip_record(clip: ClipPrediction, frames: FrameSource) -> dict[str, Any]:
    return {
        "kind": "clip",
        "input": clip.name,
        "path": os.path.realpath(frames.path),
        "input_kind": frames.kind,
        "num_frames": clip.num_frames,
        "num_windows": clip.num_windows,
        "fps": round(frames.fps, 4),
        "duration_s": round(clip.duration_s, 4),
        "seconds": round(clip.seconds, 4),
        "first_output_s": round(clip.first_output_s, 4),
        "predicted": clip.emotion,
        "probs": _named(clip.probs, clip.class_names),
        "notices": list(clip.notices),
    } | ({} if clip.num_faceless is None else {"num_faceless": clip.num_faceless})


def _write_line(lines: BinaryIO, record: dict[str, Any]) -> None:
    lines.write((json.dumps(record) + "\n").encode())
    lines.flush()


def _write_figures(
    out: Path,
    clip: ClipPrediction,
    windows: Sequence[WindowPrediction],
    strip: FilmStrip,
    frames: FrameSource,
) -> None:
    title = f"{clip.name}: {clip.emotion} {clip.decision.max():.0%}"
    write_bar_chart(out / BARS_NAME, clip.probs, class_names=clip.class_names, title=title)
    write_timeline(
        out / TIMELINE_NAME,
        times_s=np.array(
            [(frames.time_of(w.first_frame) + frames.time_of(w.last_frame)) / 2 for w in windows]
        ),
        probs=np.stack([window.decision for window in windows]),
        class_names=clip.class_names,
        strip=strip,
        time_of=frames.time_of,
        title=title,
    )
