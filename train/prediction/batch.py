"""Every video below a folder predicted, and one table of all answers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from shard_builder.errors import InputError, SourceError, counted
from shard_builder.files import create_growing
from shard_builder.lock import locked
from shard_builder.sources.walk import is_image, source_name, walk_files
from shard_builder.untrusted.text import clean_line
from shard_builder.videos import is_video
from train.prediction.options import DEFAULTS, PredictOptions
from train.prediction.predict import ClipPrediction, check_out, load_models, predict_clip

SUMMARY_NAME = "summary.csv"
COLUMNS = ("num_frames", "num_windows", "duration_s", "seconds", "num_faceless", "notices", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPrediction:
    """All videos of a folder.

    Args:
        num_videos: Videos found.
        emotions: What was predicted, of each video that could be.
        faults: Why the others could not be; each begins with the video's path.
    """

    num_videos: int
    emotions: tuple[str, ...]
    faults: tuple[str, ...]


def list_videos(folder: Path) -> tuple[Path, ...]:
    """Return the videos below a folder, sorted; none for a file, and for a folder of frames.

    Raises:
        InputError: If a folder holds both: either may be meant.
    """
    if not folder.is_dir():
        return ()
    videos = tuple(path for path in walk_files(folder) if is_video(path))
    images = [path for path in folder.iterdir() if is_image(path)]
    if videos and images:
        raise InputError(
            f"{folder}: {counted(len(images), 'image')} and {counted(len(videos), 'video')},"
            " expected either the frames of one clip or videos\n  Move the videos to a folder of"
            " their own."
        )
    return videos


def predict_folder(
    runs: Sequence[Path],
    folder: Path,
    options: PredictOptions = DEFAULTS,
    *,
    out: Path,
    on_video: Callable[[int, int], None] | None = None,
) -> FolderPrediction:
    """Predict every video below a folder, as :func:`train.prediction.predict.run_predict` does.

    Writes ``summary.csv`` into ``out``, a row as soon as its video is finished, and beside it what
    is written of one video into a folder that is called as the video.

    Args:
        on_video: Called with (finished, all) videos.

    Raises:
        InputError: If there is no video, an option cannot be, a video cannot be predicted
            (``raise``), or none of them can.
    """
    if options.overlay is not None:
        raise InputError(
            f"overlay={str(options.overlay)!r} is one video, but {folder} holds several"
        )
    videos = list_videos(folder)
    if not videos:
        raise InputError(f"{folder}: no videos in it")
    check_out(out, folder)
    emotions, faults = list[str](), list[str]()
    with locked(out, take_over=options.take_over):
        models, face_model = load_models(runs, options)
        names = models[0].class_names
        out.mkdir(parents=True, exist_ok=True)
        with create_growing(out / SUMMARY_NAME) as table:

            def write_row(*cells: object) -> None:
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerow(cells)
                table.write(text.getvalue().encode())
                table.flush()

            probs = [f"prob_{name}" for name in names]
            write_row("video", "predicted", *probs, *COLUMNS)
            for number, video in enumerate(videos, start=1):
                name = source_name(video, folder)
                try:
                    place = out / video.relative_to(folder)
                    clip = predict_clip(models, face_model, video, options, out=place)
                except (SourceError, cv2.error) as error:
                    reason = str(error).strip().splitlines()[0]
                    fault = reason if str(video) in reason else f"{video}: {reason}"
                    if options.on_error == "raise":
                        raise SourceError(
                            f"{fault}\n  Or leave such videos out with on_error='skip'."
                        ) from error
                    faults.append(fault)
                    missing = [""] * (1 + len(names) + len(COLUMNS) - 1)
                    write_row(name, *missing, clean_line(fault))
                else:
                    emotions.append(clip.emotion)
                    write_row(name, *_cells(clip))
                if on_video:
                    on_video(number, len(videos))
    if not emotions:
        raise InputError(
            f"{folder}: none of its {counted(len(videos), 'video')} can be predicted; the first:"
            f" {faults[0]}"
        )
    return FolderPrediction(num_videos=len(videos), emotions=tuple(emotions), faults=tuple(faults))


def _cells(clip: ClipPrediction) -> list[object]:
    numbers = [clip.num_frames, clip.num_windows, round(clip.duration_s, 4), round(clip.seconds, 4)]
    faceless = "" if clip.num_faceless is None else clip.num_faceless
    probs = [round(float(value), 6) for value in clip.decision]
    notices = "; ".join(clean_line(notice) for notice in clip.notices)
    return [clip.emotion, *probs, *numbers, faceless, notices, ""]
