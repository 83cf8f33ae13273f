"""ckshard verify: each promise is broken in turn, and each break is found and named."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from shard_builder.errors import DatasetError
from shard_builder.files import digest_file
from shard_builder.format.index import INDEX_NAME, read_index, write_index
from shard_builder.format.manifest import MANIFEST_NAME, read_manifest
from shard_builder.format.verify import verify_dataset
from tests.programs import ckshard

STREAMS = ("rgb", "flow")


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_dataset, tmp_path / "dataset")
    return tmp_path / "dataset"


def rehash(dataset: Path) -> None:
    """Make the manifest's checksums fit again, so that only the break itself is left to find."""
    path = dataset / MANIFEST_NAME
    record = json.loads(path.read_text())
    record["files"] = {name: digest_file(dataset / name).to_json() for name in record["files"]}
    path.write_text(json.dumps(record))


def place_of(dataset: Path, member: str) -> tuple[Path, int, int]:
    for index in sorted(dataset.glob("*.idx")):
        for line in index.read_text().splitlines()[1:]:
            words = line.split()
            for offset, size, name in zip(words[1::4], words[2::4], words[3::4], strict=True):
                if name == member:
                    return index.with_suffix(".tar"), int(offset), int(size)
    raise AssertionError(member)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def edit_rows(dataset: Path, edit: Callable[[list[dict]], None]) -> None:  # type: ignore[type-arg]
    batch = read_index(dataset / INDEX_NAME, streams=STREAMS, version=2)
    rows = batch.to_pylist()
    del batch
    edit(rows)
    write_index(dataset / INDEX_NAME, rows, streams=STREAMS, temporary_dir=dataset)


def first_key(dataset: Path) -> str:
    return str(read_index(dataset / INDEX_NAME, streams=STREAMS, version=2).column("key")[0])


def flipped_bit_in_a_jpeg(dataset: Path) -> list[str]:
    member = f"{first_key(dataset)}.flow-002.jpg"
    tar, offset, size = place_of(dataset, member)
    byte = tar.read_bytes()[offset + size // 2]
    overwrite(tar, offset + size // 2, bytes([byte ^ 1]))
    rehash(dataset)
    return [f"{tar.name}: {member} at byte {offset}: CRC-32 is"]


def undecodable_jpeg(dataset: Path) -> list[str]:
    member = f"{first_key(dataset)}.flow-002.jpg"
    tar, offset, _ = place_of(dataset, member)
    overwrite(tar, offset, b"\x00" * 100)
    rehash(dataset)
    return [f"{member} at byte {offset}: cannot be decoded", "CRC-32"]


def flipped_bit_in_a_header(dataset: Path) -> list[str]:
    tar, offset, _ = place_of(dataset, f"{first_key(dataset)}.flow-002.jpg")
    overwrite(tar, offset - 512 + 3, b"\xff")
    rehash(dataset)
    return [f"{tar.name}: header at byte {offset - 512} is broken"]


def truncated_tar(dataset: Path) -> list[str]:
    tar = sorted(dataset.glob("flow-*.tar"))[0]
    data = tar.read_bytes()
    tar.write_bytes(data[: len(data) // 2])
    return [f"{tar.name}: has {len(data) // 2} bytes, expected {len(data)}", "cut short"]


def swapped_index_lines(dataset: Path) -> list[str]:
    path = next(
        p for p in sorted(dataset.glob("flow-*.idx")) if len(p.read_text().splitlines()) > 2
    )
    lines = path.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")
    rehash(dataset)
    return [f"{path.name}: line 2 is", f"{path.name}: line 3 is"]


def missing_shard(dataset: Path) -> list[str]:
    (dataset / "rgb-000000.tar").unlink()
    return ["rgb-000000.tar: is missing"]


def additional_file(dataset: Path) -> list[str]:
    (dataset / "flow-000099.tar").write_bytes(b"")
    return ["flow-000099.tar: is not in the manifest"]


def stale_manifest(dataset: Path) -> list[str]:
    record = json.loads((dataset / MANIFEST_NAME).read_text())
    record["num_sequences"] += 1
    record["classes"][2]["num_sequences"] += 1
    (dataset / MANIFEST_NAME).write_text(json.dumps(record))
    return ["index.arrow: num_sequences: 42, expected 43", "sequences of disgust: 6, expected 7"]


def edited_label(dataset: Path) -> list[str]:
    def edit(rows: list[dict]) -> None:  # type: ignore[type-arg]
        rows[0]["label"] = (rows[0]["label"] + 1) % 7

    edit_rows(dataset, edit)
    rehash(dataset)
    key = first_key(dataset)
    return [f"{INDEX_NAME}: {key}: emotion", f"{key}.cls at byte", f"{key}.json at byte"]


def edited_offset(dataset: Path) -> list[str]:
    def edit(rows: list[dict]) -> None:  # type: ignore[type-arg]
        rows[0]["flow_offset"][1] += 512

    edit_rows(dataset, edit)
    rehash(dataset)
    return [f"{first_key(dataset)}.flow-001.jpg at byte", "index.arrow says"]


def repeated_key(dataset: Path) -> list[str]:
    key = first_key(dataset)

    def edit(rows: list[dict]) -> None:  # type: ignore[type-arg]
        rows[1]["key"] = key

    edit_rows(dataset, edit)
    rehash(dataset)
    return [f"{INDEX_NAME}: {key}: key appears 2 times"]


def index_of_another_size(dataset: Path) -> list[str]:
    (dataset / INDEX_NAME).write_bytes(b"ARROW1 but not really")
    return [f"{INDEX_NAME}: has 21 bytes"]


BREAKS = [
    flipped_bit_in_a_jpeg,
    undecodable_jpeg,
    flipped_bit_in_a_header,
    truncated_tar,
    swapped_index_lines,
    missing_shard,
    additional_file,
    stale_manifest,
    edited_label,
    edited_offset,
    repeated_key,
    index_of_another_size,
]


@pytest.mark.parametrize("damage", BREAKS)
def test_each_broken_promise_is_found_and_named(
    damage: Callable[[Path], list[str]], dataset: Path
) -> None:
    expected = damage(dataset)
    faults = [str(fault) for fault in verify_dataset(dataset, workers=2).faults]
    for words in expected:
        assert any(words in fault for fault in faults), faults


def test_all_faults_are_reported_not_the_first(dataset: Path) -> None:
    expected = missing_shard(dataset) + flipped_bit_in_a_jpeg_without_rehash(dataset)
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert all(any(words in fault for fault in faults) for words in expected)


def flipped_bit_in_a_jpeg_without_rehash(dataset: Path) -> list[str]:
    member = f"{first_key(dataset)}.flow-002.jpg"
    tar, offset, size = place_of(dataset, member)
    overwrite(tar, offset + size - 5, b"\x01\x02\x03")
    return [f"{tar.name}: its SHA-256 differs", "CRC-32"]


@pytest.mark.parametrize("codec", ["jpg", "png", "raw"])
def test_a_whole_dataset_has_no_faults(codec: str, build_tiny: Callable[..., Path]) -> None:
    report = verify_dataset(build_tiny(codec=codec, shard_bytes=32 << 20), workers=2)
    assert report.faults == ()
    assert report.num_decoded == report.num_members - 2 * 2 * 42


def test_a_sequence_of_over_a_thousand_frames_has_no_faults(tmp_path: Path) -> None:
    """Its members are numbered with four digits, so that their names sort as their numbers do."""
    (tmp_path / "videos" / "happy").mkdir(parents=True)
    path, size = str(tmp_path / "videos" / "happy" / "anna.mp4"), (16, 16)
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size)
    for level in range(1002):
        writer.write(np.full((16, 16, 3), level % 256, np.uint8))
    writer.release()
    dataset = tmp_path / "dataset"
    flags = ("--size", "16x16", "--flow-method", "dis", "--subject-pattern", "/(anna)", "--yes")
    for words in (("build", tmp_path / "videos", dataset, *flags), ("verify", dataset)):
        done = ckshard(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(dataset / "flow-000000.tar") as tar:
        assert "happy_anna.flow-0999.jpg" in tar.getnames()


def test_quick_finds_what_it_looks_at_and_decodes_nothing(dataset: Path) -> None:
    assert verify_dataset(dataset, quick=True).num_decoded == 0
    truncated_tar(dataset)
    assert verify_dataset(dataset, quick=True).faults


def test_a_future_version_is_refused_and_named(dataset: Path) -> None:
    record = json.loads((dataset / MANIFEST_NAME).read_text())
    (dataset / MANIFEST_NAME).write_text(json.dumps(record | {"version": 3}))
    with pytest.raises(DatasetError, match="version 3, expected 1 or 2"):
        verify_dataset(dataset)


def test_the_command_exits_1_with_the_place_and_0_when_all_is_well(dataset: Path) -> None:
    done = ckshard("verify", dataset)
    assert done.returncode == 0 and "no fault found in" in done.stdout
    words = flipped_bit_in_a_jpeg(dataset)[0]
    done = ckshard("verify", dataset)
    assert done.returncode == 1 and words in done.stdout and "1 fault " in done.stdout
    assert read_manifest(dataset).num_sequences == 42
    assert isinstance(read_index(dataset / INDEX_NAME, streams=STREAMS, version=2), pa.RecordBatch)
