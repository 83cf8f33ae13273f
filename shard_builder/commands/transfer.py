"""``ckshard push`` and ``pull``, and the folder that other commands read of an address."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shard_builder.cloud.address import address_of, folder_of
from shard_builder.cloud.metadata import fetch_metadata
from shard_builder.cloud.store import Store
from shard_builder.cloud.transfer import pull_dataset, push_dataset
from shard_builder.console import make_console
from shard_builder.errors import InputError, counted
from shard_builder.progress import progress_bar


def run_push(dataset: Path, address: Path) -> None:
    """Push a dataset and say what was sent."""
    console = make_console()
    place = _address(address)
    with progress_bar("pushing files", console=console) as on_progress:
        num_sent = push_dataset(folder_of(dataset), place, on_progress=on_progress)
    console.print(f"{place}: the whole dataset is there; {counted(num_sent, 'file')} sent")


def run_pull(address: Path, dataset: Path) -> None:
    """Pull a dataset and say what was fetched."""
    console = make_console()
    place = _address(address)
    with progress_bar("pulling files", console=console) as on_progress:
        num_fetched = pull_dataset(place, folder_of(dataset), on_progress=on_progress)
    console.print(f"{dataset}: the whole dataset is there; {counted(num_fetched, 'file')} fetched")


@contextmanager
def folder_to_read(dataset: Path, *, whole: bool) -> Iterator[Path]:
    """Give the folder of a dataset; of one in a store a copy, for as long as the block.

    Args:
        dataset: Folder or address.
        whole: Whether the tars are read too, not only manifest and index.
    """
    address = address_of(dataset)
    if address is None:
        yield folder_of(dataset)
    elif whole:
        with tempfile.TemporaryDirectory(prefix="ckshard-") as folder:
            pull_dataset(address, Path(folder) / "dataset")
            yield Path(folder) / "dataset"
    else:
        store = Store(address)
        try:
            yield fetch_metadata(store)[0]
        finally:
            store.close()


def _address(place: Path) -> str:
    address = address_of(place)
    if address is None:
        raise InputError(f"{place}: is a folder, expected an address such as s3://bucket/prefix")
    return address
