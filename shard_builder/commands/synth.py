"""``ckshard synth``: draw a release, and say what was drawn."""

from __future__ import annotations

from pathlib import Path

from shard_builder.console import make_console
from shard_builder.errors import counted
from shard_builder.progress import progress_bar
from shard_builder.synth.options import ReleaseOptions
from shard_builder.synth.release import write_release


def run_synth(
    out: Path,
    options: ReleaseOptions,
    *,
    workers: int,
    overwrite: bool,
    take_over: bool,
    quirks: bool,
    broken: str,
) -> None:
    """Draw and print."""
    console = make_console()
    with progress_bar("drawing subjects", console=console) as report:
        summary = write_release(
            out,
            options,
            workers=workers,
            overwrite=overwrite,
            take_over=take_over,
            quirks=quirks,
            broken=broken,
            on_progress=report,
        )
    console.print(
        f"{out}: {counted(summary.num_sequences, 'sequence')} of"
        f" {counted(summary.num_subjects, 'subject')}, {counted(summary.num_frames, 'frame')}"
    )
