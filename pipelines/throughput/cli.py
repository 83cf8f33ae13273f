"""The options of ``ckshard bench``; it joins ``ckshard`` through the group ``ckshard.commands``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shard_builder.errors import InputError


def bench(
    dataset: Annotated[Path, typer.Argument(help="Dataset: a folder, or s3://bucket/prefix.")],
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
    consumer_ms: Annotated[
        float | None,
        typer.Option(help="Simulate a device that takes so many ms a batch: how long it waits."),
    ] = None,
    epoch_samples: Annotated[
        int, typer.Option(help="With --consumer-ms: samples of a short epoch.")
    ] = 80,
    json: Annotated[Path | None, typer.Option(help="Write the records to this JSON file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them into this PNG, SVG or PDF file.")
    ] = None,
) -> None:
    """Measure samples/s of every engine, a tree of PNG files, and decoding and copying alone.

    With --consumer-ms: what a device waits for every engine, in one long epoch and in short ones.
    """
    words = {
        "streams": streams,
        "batch_size": batch_size,
        "threads": threads,
        "dtype": dtype,
        "device": device,
        "repeats": repeats,
        "seconds": seconds,
    }
    if consumer_ms is None:
        from pipelines.throughput.command import run_bench_command

        run_bench_command(dataset, json_path=json, plot_path=plot, **words)
        return
    if plot is not None:
        raise InputError(
            f"plot={str(plot)!r} draws samples/s, but consumer_ms={consumer_ms} asks for waits\n"
            "  Leave one out."
        )
    from pipelines.throughput.wait_command import run_wait_command

    run_wait_command(
        dataset, consumer_ms=consumer_ms, epoch_samples=epoch_samples, json_path=json, **words
    )
