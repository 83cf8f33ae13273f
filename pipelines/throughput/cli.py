"""The options of ``ckshard bench``; it joins ``ckshard`` through the group ``ckshard.commands``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    streams: Annotated[
        str, typer.Option(help="rgb,flow or one of them; by default what the dataset has.")
    ] = "",
    batch_size: Annotated[int, typer.Option(help="Samples of a batch.")] = 32,
    threads: Annotated[
        int,
        typer.Option(
            help="Threads of the engines, worker processes of the PNG tree; 0 takes all cores."
        ),
    ] = 0,
    dtype: Annotated[str, typer.Option(help="uint8, float32, bfloat16 or float16.")] = "uint8",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    repeats: Annotated[int, typer.Option(help="Measurements of each, 5 or more.")] = 5,
    seconds: Annotated[float, typer.Option(help="Least duration of one measurement.")] = 1.0,
    json: Annotated[Path | None, typer.Option(help="Write the records to this JSON file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them into this PNG, SVG or PDF file.")
    ] = None,
) -> None:
    """Measure samples/s of every engine, a tree of PNG files, and decoding and copying alone."""
    from pipelines.throughput.command import run_bench_command

    run_bench_command(
        dataset,
        streams=streams,
        batch_size=batch_size,
        threads=threads,
        dtype=dtype,
        device=device,
        repeats=repeats,
        seconds=seconds,
        json_path=json,
        plot_path=plot,
    )
