"""Hostile folders: names, numbers and tars made to reach outside or to exhaust; refused, and
nothing outside is touched."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError
from shard_builder.format.index import INDEX_NAME, index_schema, read_index, write_index
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.format.verify import verify_dataset

STREAMS = ("rgb", "flow")


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_dataset, tmp_path / "dataset")
    return tmp_path / "dataset"


def edit_manifest(dataset: Path, edit: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    record = json.loads((dataset / MANIFEST_NAME).read_text())
    edit(record)
    (dataset / MANIFEST_NAME).write_text(json.dumps(record))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.tar",
        "/etc/passwd",
        "flow-000000.tar/../../x",
        "flow-0.tar",
        "",
        "flow-000000.TAR",
    ],
)
def test_file_names_that_are_not_ours_are_refused(name: str, dataset: Path) -> None:
    def edit(record: dict) -> None:  # type: ignore[type-arg]
        record["streams"]["flow"]["shards"][0]["name"] = name

    edit_manifest(dataset, edit)
    with pytest.raises(DatasetError, match=r"expected names like rgb-000000\.tar"):
        open_dataset(dataset)
    with pytest.raises(DatasetError, match=r"expected names like rgb-000000\.tar"):
        verify_dataset(dataset)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda r: r.update(version=99), "version 99, expected 1"),
        (lambda r: r.update(format="other"), "not a manifest of ckshard"),
        (lambda r: r.pop("geometry"), "geometry"),
        (lambda r: r["geometry"].update(height=1 << 40), r"geometry.height: 1099511627776, .*4096"),
        (lambda r: r["geometry"].update(height=-1), r"geometry.height: -1, expected int >= 1"),
        (lambda r: r["streams"]["flow"].update(codec="exe"), "codec: invalid enum value 'exe'"),
        (lambda r: r.update(classes=[]), "classes"),
        (lambda r: r.update(streams=[]), "streams|AttributeError"),
    ],
)
def test_manifests_that_break_a_rule_are_refused(
    edit: Callable[[dict], None],
    words: str,
    dataset: Path,  # type: ignore[type-arg]
) -> None:
    edit_manifest(dataset, edit)
    with pytest.raises(DatasetError, match=words):
        open_dataset(dataset).labels.sum()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("flow_offset", -512),
        ("flow_offset", 1 << 60),
        ("flow_size", -1),
        ("flow_size", 1 << 60),
        ("flow_shard", 99),
        ("flow_shard", -1),
    ],
)
def test_places_outside_a_shard_are_refused(column: str, value: int, dataset: Path) -> None:
    rows = read_index(dataset / INDEX_NAME, streams=STREAMS, version=2).to_pylist()
    if column == "flow_shard":
        rows[0][column] = value
    else:
        rows[0][column][0] = value
    write_index(dataset / INDEX_NAME, rows, streams=STREAMS, temporary_dir=dataset)
    with open_dataset(dataset) as opened, pytest.raises(DatasetError, match=r"flow"):
        opened.read_member("flow", 0, 0)
    assert verify_dataset(dataset).faults


def test_an_index_that_claims_a_billion_rows_is_refused_without_reading_them(dataset: Path) -> None:
    data = (dataset / INDEX_NAME).read_bytes()
    claimed = data.replace(struct.pack("<q", 42), struct.pack("<q", 10**9))
    assert claimed.count(struct.pack("<q", 10**9)) > 10, (
        "the length of the batch and of its columns"
    )
    (dataset / INDEX_NAME).write_bytes(claimed)
    with pytest.raises(
        DatasetError,
        match=r"1000000000 rows|not a readable Arrow file|that its \d+ bytes cannot hold",
    ):
        open_dataset(dataset)


def test_an_index_that_is_another_or_none_is_refused(dataset: Path) -> None:
    schema = index_schema(STREAMS)
    empty = pa.RecordBatch.from_arrays(
        [pa.array([], field.type) for field in schema], schema=schema
    )
    with pa.OSFile(str(dataset / "new"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(empty)
    (dataset / "new").replace(dataset / INDEX_NAME)
    with pytest.raises(DatasetError, match="0 rows, expected 42"):
        open_dataset(dataset)
    for garbage in (
        b"",
        b"ARROW1\x00\x00" + b"\xff" * 64 + b"ARROW1",
        np.random.default_rng(0).bytes(4096),
    ):
        (dataset / INDEX_NAME).write_bytes(garbage)
        with pytest.raises(DatasetError, match="not a readable Arrow file"):
            open_dataset(dataset)


@pytest.mark.parametrize("kind", ["absolute", "parent", "symlink", "device", "huge", "repeated"])
def test_hostile_tars_are_named_and_nothing_is_unpacked(
    kind: str, dataset: Path, tmp_path: Path
) -> None:
    tar = sorted(dataset.glob("flow-*.tar"))[0]
    entry = tarfile.TarInfo(
        {"absolute": "/tmp/evil.txt", "parent": "../evil.txt"}.get(kind, "S999_001.flow-000.jpg")
    )
    if kind == "symlink":
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    if kind == "device":
        entry.type = tarfile.CHRTYPE
    if kind == "huge":
        entry.size = 1 << 60
        data = entry.tobuf(tarfile.GNU_FORMAT)
    else:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as opened:
            for _ in range(2 if kind == "repeated" else 1):
                opened.addfile(entry)
        data = stream.getvalue()
    tar.write_bytes(data)
    faults = [fault for fault in verify_dataset(dataset).faults if fault.file == tar.name]
    assert faults
    if kind in ("symlink", "device"):
        assert any("is not a regular file" in fault.what for fault in faults)
    if kind == "huge":
        assert any("is cut short" in fault.what or "broken" in fault.what for fault in faults)
    assert not (tmp_path / "evil.txt").exists() and not Path("/tmp/evil.txt").exists()
