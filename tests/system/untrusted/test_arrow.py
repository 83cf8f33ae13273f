"""Arrow files of strangers: no offset, null or packed buffer is taken on trust."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.verify import verify_dataset
from tests.system.mutations.datasets import read_table, rehash, write_table
from tests.system.untrusted.changes import set_column


def test_a_flipped_bit_in_a_string_offset_is_refused_wherever_the_column_is_used(
    dataset: Path,
) -> None:
    path = dataset / INDEX_NAME
    data = bytearray(path.read_bytes())
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        offsets = reader.get_batch(0).column("subject").buffers()[1]
    at = data.find(offsets.to_pybytes()[:60])
    data[at + 11] ^= 0x40  # an offset of a billion
    path.write_bytes(data)
    rehash(dataset)
    program = (
        "import sys\nfrom pipelines.dataset import open_dataset\n"
        "try: open_dataset(sys.argv[1]).subjects\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(dataset)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, "a signal"
    assert "column subject is damaged" in done.stdout
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any("column subject is damaged" in fault for fault in faults)


def test_an_index_of_another_sha256_is_reported_and_not_used(dataset: Path) -> None:
    path = dataset / INDEX_NAME
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    report = verify_dataset(dataset)
    assert [str(f) for f in report.faults] == [
        f"{INDEX_NAME}: its SHA-256 differs from the manifest's"
    ]
    assert report.num_members == 0


def test_nulls_are_refused(dataset: Path) -> None:
    labels = read_table(dataset).column("subject").to_pylist()
    set_column(dataset, "subject", [None, *labels[1:]])
    with open_dataset(dataset) as opened, pytest.raises(DatasetError, match="subject holds 1 null"):
        opened.subjects  # noqa: B018
    assert any("nulls" in str(fault) for fault in verify_dataset(dataset).faults)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused(codec: str, dataset: Path) -> None:
    write_table(dataset, read_table(dataset), compression=codec)
    rehash(dataset)
    with pytest.raises(DatasetError, match="is compressed, expected uncompressed"):
        open_dataset(dataset)
    assert any("is compressed" in str(fault) for fault in verify_dataset(dataset).faults)
