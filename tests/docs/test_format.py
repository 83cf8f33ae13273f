"""docs/format.md is true: what a stranger would write after reading it, against built datasets."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
import pyarrow as pa
import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
FILES = r"manifest\.json|index\.arrow|(rgb|flow)-\d{6}\.(tar|idx)"


def table_of(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its header."""
    part = PAGE[PAGE.index(f"\n## {heading}") :]
    lines = re.findall(r"^\| .*$", part.split("\n## ", 2)[1], re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" ?\| ?", line)[1:-1]] for line in lines[1:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(params=["tiny_dataset", "raw_dataset", "lz4_dataset"])
def dataset(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def read_rows(dataset: Path) -> list[dict[str, Any]]:
    with pa.memory_map(str(dataset / "index.arrow")) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        return list(reader.get_batch(0).to_pylist())


def test_the_folder_holds_the_files_that_the_page_lists(dataset: Path) -> None:
    assert all(re.fullmatch(FILES, path.name) for path in dataset.iterdir())
    for name in ("manifest.json", "index.arrow", "rgb-000000.tar", "flow-000000.idx"):
        assert name in PAGE and (dataset / name).is_file()


def test_the_columns_are_those_of_the_table_in_its_order(dataset: Path) -> None:
    types = {"string": pa.string(), "int32": pa.int32()}
    items = {"list of int64": pa.int64(), "list of uint32": pa.uint32()}
    expected = []
    for name_cell, kind, _ in table_of("`index.arrow`"):
        name = names_in(name_cell)[0]
        if name == "flow_shard":  # "the same four columns"
            expected += [(n.replace("rgb_", "flow_"), t) for n, t in expected[-4:]]
        else:
            item = items.get(kind)
            kind_of = pa.list_(pa.field("item", item, nullable=False)) if item else types[kind]
            expected.append((name, kind_of))
    schema = pa.ipc.open_file(str(dataset / "index.arrow")).schema
    assert [(field.name, field.type) for field in schema] == expected
    assert not any(field.nullable for field in schema)


def test_the_manifest_has_the_fields_of_the_table(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    cells = table_of("`manifest.json`")
    assert sorted(name for cell in cells for name in names_in(cell[0])) == sorted(manifest)
    meaning = {names_in(cell[0])[0]: cell[1] for cell in cells}
    assert names_in(meaning["classes"]) == sorted(
        manifest["classes"][0], key=names_in(meaning["classes"]).index
    )
    assert set(manifest["geometry"]) == set(names_in(meaning["geometry"]))
    lists = PAGE[PAGE.index("- `source`: ") :]
    source, flow, stream = (" ".join(item.split()) for item in lists.split("\n- ")[:3])
    assert {"source", *manifest["source"]} == {name for name in names_in(source) if name[0] != "-"}
    assert set(names_in(flow)) == {"flow", *manifest["flow"]}
    for entry in manifest["streams"].values():
        assert set(entry) < set(names_in(stream)) and set(entry["shards"][0]) < set(
            names_in(stream)
        )
    for name, digest in manifest["files"].items():
        data = (dataset / name).read_bytes()
        assert digest == {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert len(manifest["files"]) == len(list(dataset.iterdir())) - 1


def test_shards_index_and_idx_say_the_same(dataset: Path) -> None:
    rows = {row["key"]: row for row in read_rows(dataset)}
    for stream in ("rgb", "flow"):
        for tar in sorted(dataset.glob(f"{stream}-*.tar")):
            data = tar.read_bytes()
            version, *lines = tar.with_suffix(".idx").read_text(encoding="ascii").splitlines()
            assert version == f"v1.2 {len(lines)}"
            with tarfile.open(tar) as opened:
                entries = list(opened)
            for entry in entries:
                assert (entry.mtime, entry.mode, entry.uid, entry.gid) == (0, 0o444, 0, 0)
                assert (entry.uname, entry.gname, entry.isreg()) == ("bigdata", "bigdata", True)
                assert data[entry.offset + 257 : entry.offset + 262] == b"ustar"
            members = iter(entries)
            for line in lines:
                words = line.split(" ")
                images = []
                for extension, offset, size, name in zip(*[iter(words)] * 4, strict=True):
                    entry = next(members)
                    key, _, after = entry.name.partition(".")
                    assert (name, extension) == (entry.name, after)
                    assert (int(offset), int(size)) == (entry.offset + 512, entry.size)
                    content = data[int(offset) : int(offset) + int(size)]
                    if after == "cls":
                        assert content == str(rows[key]["label"]).encode("ascii")
                    elif after == "json":
                        fields = table_of("Shards")[1][1].split(": ")[1].split(", ")
                        assert json.loads(content) == {name: rows[key][name] for name in fields}
                    else:
                        images.append((int(offset), int(size), zlib.crc32(content)))
                row, own = rows[key], [f"{stream}_{name}" for name in ("offset", "size", "crc32")]
                assert images == list(zip(*(row[name] for name in own), strict=True))
                assert row[f"{stream}_shard"] == int(tar.stem.rpartition("-")[2])
                extensions = words[::4]
                assert extensions == sorted(extensions)
            assert next(members, None) is None


def test_members_are_named_and_shaped_as_the_table_says(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    height, width = manifest["geometry"]["height"], manifest["geometry"]["width"]
    for stream in ("rgb", "flow"):
        codec = manifest["streams"][stream]["codec"]
        is_raw = codec == "raw"
        for tar in dataset.glob(f"{stream}-*.tar"):
            with tarfile.open(tar) as opened:
                names = [entry.name for entry in opened]
            for row in (row for row in read_rows(dataset) if f"{row['key']}.cls" in names):
                count = row["num_frames"] if stream == "rgb" else row["num_pairs"]
                expected = (
                    [f"{row['key']}.{stream}.npy"]
                    if is_raw
                    else [f"{row['key']}.{stream}-{number:03d}.{codec}" for number in range(count)]
                )
                found = [name for name in names if name.startswith(f"{row['key']}.{stream}")]
                assert found == expected
                begin, size = row[f"{stream}_offset"][0], row[f"{stream}_size"][0]
                content = tar.read_bytes()[begin : begin + size]
                if codec == "lz4":
                    pixels = lz4.block.decompress(content, uncompressed_size=2 * height * width)
                    assert len(np.frombuffer(pixels, np.uint8)) == 2 * height * width
                    with pytest.raises(lz4.block.LZ4BlockError):
                        lz4.block.decompress(content, uncompressed_size=2 * height * width - 1)
                if is_raw:
                    shape = (
                        (count, height, width, 3) if stream == "rgb" else (2 * count, height, width)
                    )
                    assert content[:8] == b"\x93NUMPY\x01\x00" and size > np.prod(shape)
                    header = content[10 : 10 + int.from_bytes(content[8:10], "little")].decode()
                    assert "'descr': '|u1'" in header and f"'shape': {shape}" in header
