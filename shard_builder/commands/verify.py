"""``ckshard verify``: check and print every fault."""

from __future__ import annotations

from pathlib import Path

from shard_builder.console import make_console
from shard_builder.format.verify import verify_dataset
from shard_builder.progress import progress_bar
from shard_builder.untrusted.text import clean


def run_verify(dataset: Path, *, quick: bool, workers: int) -> int:
    """Verify and print; returns the exit code, 1 if anything is broken."""
    console = make_console()
    with progress_bar("verifying shards", console=console) as on_progress:
        report = verify_dataset(dataset, quick=quick, workers=workers, on_progress=on_progress)
    if report.crop != "none":
        console.print(f"{dataset}: face crop {clean(report.crop)}", markup=False)
    for fault in report.faults:
        console.print(str(fault))
    files = "size; contents not read" if quick else "size and SHA-256"
    checked = (
        f"{report.num_files} files ({files}), {report.num_members} members (place and header),"
        f" {report.num_decoded} of them decoded"
    )
    if not report.faults:
        console.print(f"{dataset}: no fault found in {checked}")
        return 0
    console.print(f"{dataset}: {len(report.faults)} faults in {checked}")
    console.print("  Build the dataset again, or copy it again from where it is whole.")
    return 1
