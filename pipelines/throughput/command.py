"""``ckshard bench``: measure the loaders of a dataset, print a table, write JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Table

from pipelines.dataset import Dataset, open_dataset
from pipelines.reading import DTYPES, find_device
from pipelines.streams import kind_of
from pipelines.throughput.cases import BenchOptions
from pipelines.throughput.ceilings import COPYING
from pipelines.throughput.consumer import WaitRecord
from pipelines.throughput.measure import BenchRecord, run_bench
from shard_builder.checks import check_choice, check_targets
from shard_builder.console import make_console, make_table
from shard_builder.errors import InputError, counted
from shard_builder.files import atomic_writer, write_atomically
from shard_builder.machine import num_usable_cores
from shard_builder.progress import progress_bar

COLOURS = {"png-tree": "#b45f4d", "cpu": "#3b7dd8", "dali": "#5a9e4b", "resident": "#8a63b0"}
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
CEILING_COLOUR = "#bbbbbb"


def run_bench_command(
    path: Path, *, json_path: Path | None, plot_path: Path | None, **words: Any
) -> None:
    """Measure samples a second and show the result.

    Args:
        path: Dataset folder.
        json_path: File for the records.
        plot_path: File for the figure.
        words: The arguments of :func:`bench_options`.

    Raises:
        InputError: If an option does not fit the dataset or the machine.
    """
    check_targets(json_path, plot_path)
    if plot_path is not None and plot_path.suffix not in PLOT_SUFFIXES:
        known = ", ".join(PLOT_SUFFIXES)
        raise InputError(f"{plot_path}: expected the name of a figure that ends in {known}")
    console = make_console()
    with open_dataset(path) as dataset:
        options = bench_options(dataset, **words)
        with progress_bar("measurements", console=console) as report:
            records = run_bench(dataset, options, on_progress=report)
    console.print(records_table(records))
    for line in share_lines(records):
        console.print(line, highlight=False)
    write_records(json_path, records)
    if plot_path is not None:
        with atomic_writer(plot_path) as file:
            draw_records(records).savefig(file, format=plot_path.suffix.removeprefix("."))


def bench_options(
    dataset: Dataset,
    *,
    streams: str,
    batch_size: int,
    threads: int,
    dtype: str,
    device: str,
    repeats: int,
    seconds: float,
) -> BenchOptions:
    """Return the options that a command line makes.

    Raises:
        InputError: If one does not fit the dataset or the machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    find_device(device)
    kinds = {str(kind).removeprefix("torch."): kind for kind in DTYPES}
    check_choice("dtype", dtype, kinds)
    names = streams.split(",") if streams else dataset.manifest.streams
    return BenchOptions(
        streams=tuple(kind_of(name).name for name in names),
        batch_size=batch_size,
        num_threads=threads or num_usable_cores(),
        dtype=kinds[dtype],
        device=device,
        repeats=repeats,
        seconds=seconds,
    )


def write_records(path: Path | None, records: Sequence[BenchRecord | WaitRecord]) -> None:
    """Write records as JSON if there is a file for them."""
    if path is not None:
        text = json.dumps([asdict(record) for record in records], indent=1) + "\n"
        write_atomically(path, text.encode())


def records_table(records: list[BenchRecord]) -> Table:
    """Lay out records; the last columns hold medians against the stream's tree and ceiling."""
    first = records[0]
    title = (
        f"samples/s, batches of {first.batch_size}, {counted(first.threads, 'thread')},"
        f" {first.machine['processor']}"
    )
    words, numbers = (
        ("stream", "loader", "codec", "dtype"),
        ("median", "range", "x png tree", "of copying"),
    )
    table = make_table(title, *words, *numbers, num_left=len(words))
    trees, copies = medians_of(records, "png-tree"), medians_of(records, COPYING)
    for record in records:
        rate = record.samples_per_s
        table.add_row(
            record.stream,
            record.name,
            record.codec,
            record.dtype,
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} - {rate['max']:,.0f}",
            f"{rate['median'] / trees[record.stream]:.1f}",
            f"{100 * rate['median'] / copies[record.stream]:.0f} %",
            end_section=record is records[-1],
        )
    return table


def medians_of(records: Sequence[BenchRecord], engine: str) -> dict[str, float]:
    """Return the median of an engine by stream."""
    return {r.stream: r.samples_per_s["median"] for r in records if r.engine == engine}


def share_lines(records: Sequence[BenchRecord]) -> list[str]:
    """Say how far the cpu engine is from this machine's speed of copying the same crops.

    Where its range meets that of copying, which nothing exceeds, the repeats cannot tell.
    """
    copies = {r.stream: r.samples_per_s for r in records if r.engine == COPYING}
    lines = []
    for record in records:
        if record.engine == "cpu":
            rate, copying = record.samples_per_s, copies[record.stream]
            name = f"{record.stream}: {record.name} ({record.codec})"
            share = 100 * rate["median"] / copying["median"]
            if rate["max"] >= copying["min"]:
                lines.append(
                    f"{name}: too noisy to tell its share of copying the crops alone (medians:"
                    f" {share:.0f} %): the ranges overlap. End what else runs here and measure"
                    " again with more --repeats and --seconds."
                )
                continue
            low, high = 100 * rate["min"] / copying["max"], 100 * rate["max"] / copying["min"]
            lines.append(
                f"{name} makes {share:.0f} % ({low:.0f} - {high:.0f} %) of what copying the crops"
                f" alone makes; {record.cutter} cuts them"
            )
    return lines


def draw_records(records: Sequence[BenchRecord]) -> Figure:
    """Draw the medians as bars with their ranges, one panel a stream."""
    streams = list(dict.fromkeys(record.stream for record in records))
    figure = Figure(figsize=(8, 0.6 + 0.42 * len(records)), dpi=110, layout="constrained")
    for stream, axes in zip(
        streams, figure.subplots(len(streams), 1, squeeze=False)[:, 0], strict=True
    ):
        shown = [record for record in records if record.stream == stream][::-1]
        medians = [record.samples_per_s["median"] for record in shown]
        spread = [
            [
                median - record.samples_per_s["min"]
                for median, record in zip(medians, shown, strict=True)
            ],
            [
                record.samples_per_s["max"] - median
                for median, record in zip(medians, shown, strict=True)
            ],
        ]
        colours = [COLOURS.get(record.engine, CEILING_COLOUR) for record in shown]
        labels = [f"{record.name} ({record.codec})" for record in shown]
        bars = axes.barh(labels, medians, xerr=spread, color=colours, ecolor="#444444", capsize=3)
        axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6)
        title = f"{stream}: samples per second (logarithmic), median and range"
        axes.set_title(title, loc="left")
        axes.set_xscale("log")  # copying is a hundred times a PNG tree
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
