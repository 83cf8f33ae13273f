"""``ckshard verify``: check and print every fault."""

from __future__ import annotations

import os
from pathlib import Path

from shard_builder.console import make_console
from shard_builder.errors import InputError
from shard_builder.format.verify import verify_dataset
from shard_builder.progress import progress_bar


def run_verify(dataset: Path, *, quick: bool, workers: int) -> int:
    """Verify and print; returns the exit code, 1 if anything is broken."""
    if workers < 0:
        raise InputError(f"--workers {workers}, expected 0 (all cores) or more")
    console = make_console()
    with progress_bar("verifying shards", console=console) as report:
        found = verify_dataset(
            dataset, quick=quick, workers=workers or os.cpu_count() or 1, on_progress=report
        )
    for fault in found.faults:
        console.print(str(fault), highlight=False, markup=False)
    looked = (
        f"{found.num_files} files, {found.num_members} members, {found.num_decoded} of them decoded"
    )
    if found.faults:
        console.print(f"{dataset}: {len(found.faults)} faults in {looked}", highlight=False)
        console.print(
            "  Build the dataset again, or copy it again from where it is whole.", highlight=False
        )
        return 1
    console.print(f"{dataset}: all promises hold ({looked})", highlight=False)
    return 0
