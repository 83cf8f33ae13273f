"""``ckshard bench --consumer-ms``: measure what a simulated device waits, print a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from pipelines.dataset import open_dataset
from pipelines.throughput.command import bench_options, write_records
from pipelines.throughput.consumer import ConsumerOptions, WaitRecord, run_consumer
from shard_builder.checks import check_targets
from shard_builder.console import make_console
from shard_builder.errors import counted
from shard_builder.progress import progress_bar


def run_wait_command(
    path: Path, *, consumer_ms: float, epoch_samples: int, json_path: Path | None, **words: Any
) -> None:
    """Measure what a device waits and show the result.

    Args:
        path: Dataset folder.
        consumer_ms: What the device takes for a batch.
        epoch_samples: Samples of a short epoch.
        json_path: File for the records.
        words: The arguments of :func:`pipelines.throughput.command.bench_options`.

    Raises:
        InputError: If an option does not fit the dataset or the machine.
    """
    check_targets(json_path)
    console = make_console()
    with open_dataset(path) as dataset:
        options = bench_options(dataset, **words)
        consumer = ConsumerOptions(consumer_ms=consumer_ms, epoch_samples=epoch_samples)
        with progress_bar("measurements", console=console) as report:
            records = run_consumer(dataset, options, consumer, on_progress=report)
    console.print(waits_table(records))
    write_records(json_path, records)


def waits_table(records: list[WaitRecord]) -> Table:
    """Lay out records: medians with their ranges, of shares of the time and of milliseconds."""
    first = records[0]
    table = Table(
        title=(
            f"waits of a device that takes {first.consumer_ms:g} ms a batch of {first.batch_size}"
            f" {first.dtype}, {counted(first.threads, 'thread')}, {first.machine['processor']}"
        )
    )
    for name in ("stream", "loader", "codec"):
        table.add_column(name)
    short = f"epochs of {first.epoch_samples}"
    for name in ("% of a long epoch", f"% of {short}", "points more", "first batch, ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        figures = (
            *(record.long_wait_pct, record.short_wait_pct),
            *(record.border_points, record.first_batch_ms),
        )
        table.add_row(*(record.stream, record.name, record.codec), *map(_figure, figures))
    return table


def _figure(spread: dict[str, Any]) -> str:
    return "{median:.2f} ({min:.2f}-{max:.2f})".format(**spread)
