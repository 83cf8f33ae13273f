"""``cktrain bench``: run the stall test and print its table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from shard_builder.checks import check_targets
from shard_builder.console import make_console, make_table
from shard_builder.errors import counted
from shard_builder.files import write_json
from shard_builder.progress import progress_bar
from train.commands.options import DatasetArgument, training_config, with_training_options

WAIT_POINTS = 5.0
"""How far the share of waiting may lie from the speed that is lost: overheads of a step differ."""


@with_training_options(
    only=("arch", "batch_size", "iter_size", "stack_length", "precision", "device", "workers")
)
def stall_test(
    context: typer.Context,
    dataset: DatasetArgument,
    stream: Annotated[str, typer.Option(help="rgb or flow.")] = "flow",
    steps: Annotated[
        int, typer.Option(help="Measured steps of a repeat, of --iter-size batches.")
    ] = 10,
    warmup: Annotated[int, typer.Option(help="Steps before the first repeat.")] = 2,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats of each case, at least 3.")] = 5,
    baseline: Annotated[
        bool, typer.Option(help="Also train in fp32 NCHW, as the original does.")
    ] = True,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    **options: Any,
) -> None:
    """The stall test: training on synthetic, cached and real batches, and the difference."""
    from train.running.stall_comparison import compare_stalls

    check_targets(json)
    config, _ = training_config(context, stream, options)
    console = make_console()
    with progress_bar("training", console=console) as report:
        record = compare_stalls(
            config,
            dataset,
            steps=steps,
            warmup=warmup,
            repeats=repeats,
            with_baseline=baseline,
            on_progress=report,
        )
    console.print(stall_table(record))
    for line in stall_sentence(record).splitlines():
        console.print(line)
    if json:
        write_json(json, record)
        console.print(f"written: {json}")


def stall_table(record: dict[str, Any]) -> Table:
    """Tabulate speed with its range, the wait for data, and the ratio to synthetic batches."""
    results, ratios = record["results"], ratios_to_synthetic(record)
    table = make_table(
        f"{record['arch']}, {record['stream']} stream, batch {record['batch_size']}"
        f" x {record['iter_size']}, {record['codec']}, {record['device_name']}",
        *("batches", "precision", "layout"),
        *("samples/s", "range", "of synthetic", "data wait"),
        num_left=3,
        caption=f"medians of {len(results[0]['samples_per_s'])} interleaved repeats of"
        f" {counted(record['steps'], 'step')}",
    )
    for result in results:
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
    """Say what the data costs, if the ranges are apart and the wait says the same."""
    ratios = ratios_to_synthetic(record)
    best = max((name for name in ratios if name.startswith("real")), key=lambda name: ratios[name])
    results = {result["case"]["name"]: result for result in record["results"]}
    real, synthetic = (results[name]["samples_per_s"] for name in (best, "synthetic"))
    wait, lost = results[best]["median_data_wait_pct"], 100 * (1 - ratios[best])
    least, most = (
        100 * (1 - of_real(real) / of_synthetic(synthetic))
        for of_real, of_synthetic in ((max, min), (min, max))
    )
    if least <= 0:
        why = f"the ranges of real and synthetic batches overlap; at most {max(0.0, most):.1f} %"
    elif not least - WAIT_POINTS <= wait <= most + WAIT_POINTS:
        why = (
            f"{lost:.1f} % of the speed was lost, but {wait:.1f} % of the time was a wait for data"
        )
    else:
        return (
            f"Real data costs {lost:.1f} % of the speed of batches that are there already ({best})."
        )
    return (
        f"Too noisy to tell what real data costs ({best}): {why}.\n"
        "  End what else runs here and measure again with more --steps and --repeats;\n"
        "  on a CPU leave the net some cores with fewer --workers."
    )


def ratios_to_synthetic(record: dict[str, Any]) -> dict[str, float]:
    """Return each case's median speed over that of synthetic batches."""
    medians = {entry["case"]["name"]: entry["median_samples_per_s"] for entry in record["results"]}
    return {name: median / medians["synthetic"] for name, median in medians.items()}
