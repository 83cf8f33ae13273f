"""``ckshard prepare``: scan, write the trees, and say what was written."""

from __future__ import annotations

import time
from pathlib import Path

from shard_builder.building.options import BuildOptions
from shard_builder.building.prepare import prepare_trees
from shard_builder.commands.build import print_understood
from shard_builder.console import make_console
from shard_builder.errors import counted
from shard_builder.progress import progress_bar
from shard_builder.sources.ckplus import scan_ckplus


def run_prepare(
    src: Path, out: Path, options: BuildOptions, *, workers: int, take_over: bool
) -> None:
    """Prepare and print; of the options, flow method, bound and on_error count."""
    console = make_console()
    source = scan_ckplus(src, on_error=options.on_error)
    print_understood(console, source)
    begin = time.monotonic()
    with progress_bar("preparing sequences", console=console) as on_progress:
        report = prepare_trees(
            source,
            out,
            flow_method=options.flow_method,
            bound_px=options.bound_px,
            workers=workers,
            take_over=take_over,
            on_progress=on_progress,
        )
    seconds = time.monotonic() - begin
    kept = f", {report.num_kept} were there already" if report.num_kept else ""
    console.print(
        f"{out}: {counted(report.num_written, 'sequence')}{kept};"
        f" {counted(report.num_pairs, 'flow pair')} in {seconds:.1f} s"
        f" ({report.num_pairs / max(seconds, 1e-9):.1f} pairs/s)"
    )
    if report.worker_s:
        share = 100 * report.flow_s / report.worker_s
        console.print(
            f"worker time {report.worker_s:.1f} s, {share:.1f} % of it in the flow estimator"
        )
    for fault in source.skipped:
        console.print(f"skipped {fault.key}: {fault.reason.splitlines()[0]}")
