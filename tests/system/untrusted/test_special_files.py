"""Pipes, folders and files of holes in the place of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.format.verify import verify_dataset
from tests.system.mutations.base import Base
from tests.system.untrusted.changes import Cli, edit_json


@pytest.mark.parametrize("kind", ["fifo", "sparse", "folder"])
@pytest.mark.parametrize("name", [MANIFEST_NAME, INDEX_NAME, "flow-000000.tar", "rgb-000000.idx"])
def test_special_files_and_sizes_in_a_dataset(kind: str, name: str, dataset: Path) -> None:
    path = dataset / name
    make_special(path, kind)
    if name == MANIFEST_NAME:
        for read in (open_dataset, verify_dataset):
            with pytest.raises(DatasetError, match=r"not a regular file|expected at most"):
                read(dataset)
        return
    assert any(fault.file == name for fault in verify_dataset(dataset).faults)


@pytest.mark.parametrize("name", [INDEX_NAME, "flow-000000.tar", "rgb-000000.idx"])
def test_holes_are_not_hashed_even_where_the_manifest_claims_them(name: str, dataset: Path) -> None:
    make_special(dataset / name, "sparse")
    edit_json(dataset / MANIFEST_NAME, lambda r: r["files"][name].update(num_bytes=1 << 40))
    faults = [fault for fault in verify_dataset(dataset).faults if fault.file == name]
    assert any("is sparse" in fault.what for fault in faults)


@pytest.mark.parametrize("kind", ["fifo", "sparse", "folder"])
@pytest.mark.parametrize(
    "name", ["config.json", "split.json", "metrics.jsonl", "last.pt", "test/test.json"]
)
def test_special_files_and_sizes_in_a_run(
    kind: str, name: str, run: Path, base: Base, cli: Cli
) -> None:
    make_special(run / name, kind)
    dataset = base.datasets["jpg"]
    if name == "last.pt":
        code, printed = cli("cktrain", "test", run, dataset)
    else:
        code, printed = cli("cktrain", "report", run)
    assert code == 2 and name in printed and "unexpected" not in printed


def make_special(path: Path, kind: str) -> None:
    if kind == "sparse":
        os.truncate(path, 1 << 40)
        return
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
