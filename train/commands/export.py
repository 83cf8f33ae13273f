"""``cktrain export``: the net of a run as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shard_builder.commands.options import TakeOverOption
from shard_builder.console import make_console
from train.commands.options import CheckpointOption


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    format: Annotated[
        str, typer.Option(metavar="onnx|torch", help="torch: a program of torch.export (.pt2).")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write; RUN/STREAM.onnx or .pt2 if not given.")
    ] = None,
    checkpoint: CheckpointOption = "last",
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset to compare on, if it has moved since.")
    ] = None,
    take_over: TakeOverOption = False,
) -> None:
    """Write a trained net as one file with classes, geometry, crop and flow settings in it.

    It is compared with the run's own net before it appears.
    """
    from train.prediction.export import export_run

    check = export_run(
        run,
        format=format,  # type: ignore[arg-type]
        out=out,
        checkpoint=checkpoint,
        dataset=dataset,
        take_over=take_over,
    )
    console = make_console()
    console.print(
        f"compared with the run on {check.num_windows} {check.windows}:"
        f" largest difference {check.difference:.1e}"
    )
    console.print(f"written: {check.path}, {check.path.stat().st_size / 1e6:.1f} MB")
