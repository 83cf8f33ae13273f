"""``cktrain both``: train rgb and flow with one split, then test them and their fusion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from shard_builder.commands.options import TakeOverOption
from train.commands.evaluate import print_report
from train.commands.options import DatasetArgument, training_config, with_training_options
from train.commands.train import run_stream
from train.config import TrainConfig

STREAMS = ("rgb", "flow")


@with_training_options()
def train_both(
    context: typer.Context,
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Folder for the runs rgb and flow, and their test.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the runs in --out, exactly where they were.")
    ] = False,
    take_over: TakeOverOption = False,
    **options: Any,
) -> None:
    """Train the rgb and the flow stream with the same options and split, then test their fusion.

    As ``cktrain rgb``, ``cktrain flow`` and ``cktrain test`` one after the other.
    """
    chosen = {stream: training_config(context, stream, options) for stream in STREAMS}
    raise typer.Exit(run_both(chosen, dataset, out, resume=resume, take_over=take_over))


def run_both(
    chosen: Mapping[str, tuple[TrainConfig, set[str]]],
    dataset: Path,
    out: Path,
    *,
    resume: bool,
    take_over: bool,
) -> int:
    """Train each stream with its options, and those of them that were given; test both.

    Returns:
        The exit code of the first run that did not reach its end, else 0.
    """
    from train.device import choose_device
    from train.distributed import join_ranks, ranks_of_environment
    from train.evaluation.evaluate import evaluate_runs

    own = chosen["rgb"][0]
    ranks = ranks_of_environment()
    device = choose_device(own.device, local_rank=ranks.local_rank, world_size=ranks.world_size)
    with join_ranks(device):
        if not resume:
            check_both(chosen, dataset, out)
        for stream, (config, given) in chosen.items():
            run = out / stream
            if code := run_stream(
                config, dataset, run, resume=resume, given=given, take_over=take_over
            ):
                return code
    if ranks.is_first:
        runs, test = [out / stream for stream in chosen], out / "test"
        report = evaluate_runs(
            runs,
            dataset,
            out=test,
            workers=own.workers or None,
            device=own.device,
            take_over=take_over,
        )
        print_report(report, test)
    return 0


def check_both(
    chosen: Mapping[str, tuple[TrainConfig, set[str]]], dataset: Path, out: Path
) -> None:
    """Say what does not fit the second stream before the first has trained for hours.

    Raises:
        InputError: If a run is there already, or options do not fit the dataset.
    """
    from pipelines.dataset import open_dataset
    from train.running.run_folder import check_new
    from train.running.train_run import open_run

    for stream in chosen:
        check_new(out / stream)
    with open_dataset(dataset) as opened:  # before the first stream's weights are fetched
        for stream in chosen:
            opened.stream(stream)
    with TemporaryDirectory() as scratch:
        for stream, (config, _) in chosen.items():
            with open_run(config, dataset, Path(scratch) / stream, resume=False):
                pass
