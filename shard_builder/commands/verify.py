"""``ckshard verify``: check and print every fault."""

from __future__ import annotations

from pathlib import Path

from shard_builder.cloud.address import address_of
from shard_builder.commands.transfer import folder_to_read
from shard_builder.console import make_console
from shard_builder.errors import counted
from shard_builder.format.verify import verify_dataset
from shard_builder.progress import progress_bar
from shard_builder.untrusted.text import clean


def run_verify(dataset: Path, *, quick: bool, workers: int) -> int:
    """Verify and print; returns the exit code, 1 if anything is broken."""
    console = make_console()
    with (
        folder_to_read(dataset, whole=True) as folder,
        progress_bar("verifying shards", console=console) as on_progress,
    ):
        report = verify_dataset(folder, quick=quick, workers=workers, on_progress=on_progress)
    place = address_of(dataset) or dataset
    if report.crop != "none":
        console.print(f"{place}: face crop {clean(report.crop)}", markup=False)
    for fault in report.faults:
        console.print(str(fault))
    files = "size; contents not read" if quick else "size and SHA-256"
    checked = (
        f"{counted(report.num_files, 'file')} ({files}), {counted(report.num_members, 'member')}"
        f" (place and header), {report.num_decoded} of them decoded"
    )
    if not report.faults:
        console.print(f"{place}: no fault found in {checked}")
        return 0
    console.print(f"{place}: {counted(len(report.faults), 'fault')} in {checked}")
    console.print("  Build the dataset again, or copy it again from where it is whole.")
    return 1
