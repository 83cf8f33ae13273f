"""``cktrain predict``: a line for each window while the input is read, then the whole clip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shard_builder.commands.options import with_options_of
from shard_builder.console import make_console, make_table
from shard_builder.errors import InputError, counted
from shard_builder.progress import progress_bar
from train.prediction.options import PredictOptions

if TYPE_CHECKING:
    from train.prediction.predict import ClipPrediction
    from train.prediction.window_predictor import WindowPrediction


@with_options_of(PredictOptions)
def predict(
    runs_and_input: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN] INPUT",
            help="One run or exported file, or an rgb and a flow one; then a video, a picture or a"
            " folder.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for predictions.jsonl, bars.png and timeline.png; prediction/NAME of INPUT"
            " if not given."
        ),
    ] = None,
    **options: Any,
) -> None:
    """Predict the emotion in a video, a picture, a folder of frames or of videos."""
    from train.prediction.batch import SUMMARY_NAME, list_videos, predict_folder
    from train.prediction.own_folder import own_folder
    from train.prediction.predict import run_predict

    if len(runs_and_input) < 2:
        raise InputError(f"{len(runs_and_input)} path given, expected RUN [RUN] INPUT")
    *runs, source = runs_and_input
    console = make_console()

    def print_window(window: WindowPrediction, end_s: float, class_names: tuple[str, ...]) -> None:
        best = int(window.decision.argmax())
        answer = f"{class_names[best]} {100 * window.decision[best]:.0f} %"
        console.print(f"{end_s:7.2f} s  {window.frames}: {answer}")

    chosen = PredictOptions(**options)
    out = out or own_folder(source)
    if list_videos(source):
        with progress_bar("videos", console=console) as report:
            folder = predict_folder(runs, source, chosen, out=out, on_video=report)
        counts = make_table(
            f"{source.name}: {counted(folder.num_videos, 'video')}", "class", "videos"
        )
        for emotion, number in Counter(folder.emotions).most_common():
            counts.add_row(emotion, str(number))
        console.print(counts)
        if folder.faults:
            console.print(f"{len(folder.faults)} skipped, the first: {folder.faults[0]}")
        console.print(f"{out}: {SUMMARY_NAME}, and a folder for each video")
        return
    clip = run_predict(runs, source, chosen, out=out, on_window=print_window)
    console.print(clip_table(clip, title=f"{clip.name}: {clip.emotion}"))
    if clip.num_faceless is not None:
        found = clip.num_frames - clip.num_faceless
        console.print(f"a face was found in {found} of {counted(clip.num_frames, 'frame')}")
    for notice in clip.notices:
        console.print(f"notice: {notice}")
    if clip.duration_s and clip.seconds:
        speed = clip.duration_s / clip.seconds
        console.print(
            f"{counted(clip.num_frames, 'frame')} ({clip.duration_s:.1f} s) in {clip.seconds:.1f}"
            f" s: {speed:.1f} x real time; first output after {clip.first_output_s:.2f} s"
        )
    more = ", explain.png" if chosen.explain else ""
    console.print(f"{out}: predictions.jsonl, bars.png, timeline.png{more}")
    if chosen.overlay:
        console.print(f"{chosen.overlay}: the video with the label in it")


def clip_table(clip: ClipPrediction, *, title: str) -> Table:
    """Tabulate the probability of each class, a column for each stream."""
    table = make_table(title, "class", *clip.probs)
    for label, name in enumerate(clip.class_names):
        table.add_row(name, *(f"{100 * values[label]:.1f} %" for values in clip.probs.values()))
    return table
