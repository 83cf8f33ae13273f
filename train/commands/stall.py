"""``cktrain bench``: run the stall test and print its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from shard_builder.console import make_console
from shard_builder.progress import progress_bar
from train.config import TrainConfig
from train.running.stall_comparison import ratio_to, run_bench, write_bench


def print_bench(
    config: TrainConfig,
    dataset: Path,
    *,
    steps: int,
    warmup: int,
    repeats: int,
    with_baseline: bool,
    json: Path | None,
) -> None:
    """Measure, print, and write JSON; see :func:`train.running.stall_comparison.run_bench`."""
    console = make_console()
    with progress_bar("training", console=console) as report:
        record = run_bench(
            config,
            dataset,
            steps=steps,
            warmup=warmup,
            repeats=repeats,
            with_baseline=with_baseline,
            on_progress=report,
        )
    console.print(bench_table(record))
    console.print(stall_sentence(record), highlight=False)
    if json:
        write_bench(json, record)
        console.print(f"written: {json}", highlight=False)


def bench_table(record: dict[str, Any]) -> Table:
    """Tabulate speed with its range, the wait for data, and the ratio to synthetic batches."""
    title = (
        f"{record['arch']}, {record['stream']} stream, batch {record['batch_size']},"
        f" {record['codec']}, {record['device_name']}"
    )
    table = Table(
        title=title,
        caption=(
            f"medians of {len(record['results'][0]['samples_per_s'])} interleaved repeats of"
            f" {record['steps']} steps"
        ),
    )
    for name in (
        "batches",
        "precision",
        "layout",
        "samples/s",
        "range",
        "of synthetic",
        "data wait",
    ):
        table.add_column(
            name, justify="left" if name in ("batches", "precision", "layout") else "right"
        )
    ratios = ratio_to(record["results"], "synthetic")
    for result in record["results"]:
        case, speeds = result["case"], result["samples_per_s"]
        table.add_row(
            case["name"],
            case["precision"],
            "channels_last" if case["channels_last"] else "NCHW",
            f"{result['median_samples_per_s']:.2f}",
            f"{min(speeds):.2f} - {max(speeds):.2f}",
            f"{ratios[case['name']]:.3f}",
            f"{result['median_data_wait_pct']:.2f} %",
        )
    return table


def stall_sentence(record: dict[str, Any]) -> str:
    """Say what the data costs."""
    ratios = ratio_to(record["results"], "synthetic")
    real = {name: ratio for name, ratio in ratios.items() if name.startswith("real")}
    best = max(real, key=lambda name: real[name])
    lost = max(0.0, 100 * (1 - real[best]))
    return f"Real data costs {lost:.1f} % of the speed of batches that are there already ({best})."
