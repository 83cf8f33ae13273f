"""``ckshard prepare``: scan, write the trees, and say what was written."""

from __future__ import annotations

import os
import time
from pathlib import Path

from shard_builder.building.options import BuildOptions
from shard_builder.building.prepare import prepare_trees
from shard_builder.commands.build import source_line, source_table
from shard_builder.console import make_console
from shard_builder.errors import InputError
from shard_builder.progress import progress_bar
from shard_builder.sources.ckplus import scan_ckplus


def run_prepare(
    src: Path, out: Path, *, flow_method: str, bound_px: float, workers: int, on_error: str
) -> None:
    """Prepare and print."""
    if workers < 0:
        raise InputError(f"--workers {workers}, expected 0 (all cores) or more")
    checked = BuildOptions(flow_method=flow_method, bound_px=bound_px, on_error=on_error)  # type: ignore[arg-type]
    console = make_console()
    source = scan_ckplus(src, on_error=checked.on_error)
    console.print(source_line(source), highlight=False)
    console.print(source_table(source))
    begin = time.monotonic()
    with progress_bar("preparing sequences", console=console) as report:
        done = prepare_trees(
            source,
            out,
            flow_method=flow_method,
            bound_px=bound_px,
            workers=workers or os.cpu_count() or 1,
            on_progress=report,
        )
    seconds = time.monotonic() - begin
    kept = f", {done.num_kept} were there already" if done.num_kept else ""
    console.print(
        f"{out}: {done.num_written} sequences{kept}; {done.num_pairs} flow pairs in {seconds:.1f} s"
        f" ({done.num_pairs / max(seconds, 1e-9):.1f} pairs/s)",
        highlight=False,
    )
    if done.worker_s:
        share = 100 * done.flow_s / done.worker_s
        console.print(
            f"worker time {done.worker_s:.1f} s, {share:.1f} % of it in the flow estimator",
            highlight=False,
        )
    for fault in source.skipped:
        console.print(
            f"skipped {fault.key}: {fault.reason.splitlines()[0]}", highlight=False, markup=False
        )
