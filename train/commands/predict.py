"""``cktrain predict``: a line a window while the input is read, then the whole clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from shard_builder.console import make_console
from train.prediction.predict import run_predict
from train.prediction.window_predictor import WindowPrediction


def print_prediction(
    runs: Sequence[Path],
    source: Path,
    *,
    out: Path,
    overlay: Path | None,
    stride: int,
    fps: float | None,
    checkpoint: str,
    device: str,
) -> None:
    """Predict and print; see :func:`train.prediction.predict.run_predict`."""
    console = make_console()

    def tell(window: WindowPrediction, end_s: float, class_names: tuple[str, ...]) -> None:
        best = int(window.decision.argmax())
        frames = f"frames {window.first_frame + 1} to {window.last_frame + 1}"
        console.print(
            f"{end_s:7.2f} s  {frames}: {class_names[best]} {100 * window.decision[best]:.0f} %",
            highlight=False,
        )

    clip = run_predict(
        runs,
        source,
        out=out,
        checkpoint=checkpoint,
        stride=stride,
        fps=fps,
        overlay=overlay,
        device=device,
        on_window=tell,
    )
    table = Table(title=f"{source.name}: {clip.emotion}")
    table.add_column("class")
    for stream in clip.probs:
        table.add_column(stream, justify="right")
    for label, name in enumerate(clip.class_names):
        table.add_row(name, *(f"{100 * values[label]:.1f} %" for values in clip.probs.values()))
    console.print(table)
    for notice in clip.notices:
        console.print(f"notice: {notice}", highlight=False)
    speed = clip.duration_s / clip.seconds if clip.seconds else 0.0
    console.print(
        f"{clip.num_frames} frames ({clip.duration_s:.1f} s) in {clip.seconds:.1f} s: {speed:.1f} x"
        f" real time; first output after {clip.first_output_s:.2f} s\n{out}: predictions.jsonl,"
        " bars.png, timeline.png",
        highlight=False,
    )
