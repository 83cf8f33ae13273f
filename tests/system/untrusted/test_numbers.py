"""Numbers of a dataset, a run, an option: each has a range and is compared with what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError
from shard_builder.format.index import INDEX_NAME
from shard_builder.format.manifest import MANIFEST_NAME
from shard_builder.format.verify import verify_dataset
from tests.system.mutations.base import Base
from tests.system.mutations.datasets import read_table, rehash
from tests.system.untrusted.changes import Cli, edit_json, set_column


@pytest.mark.parametrize(
    ("column", "value"),
    [("num_pairs", 16_777_225), ("num_frames", -(2**31)), ("num_frames", 2**31 - 1), ("label", 99)],
)
def test_numbers_of_the_index_are_compared_with_what_it_lists(
    column: str, value: int, dataset: Path
) -> None:
    values = read_table(dataset).column(column).to_pylist()
    set_column(dataset, column, [value, *values[1:]])
    with pytest.raises(DatasetError, match=INDEX_NAME), open_dataset(dataset) as opened:
        opened.members("flow")
        opened.members("rgb")
    report = verify_dataset(dataset)
    assert any(fault.file == INDEX_NAME for fault in report.faults)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r["geometry"].update(height=30_000, width=30_000),
        lambda r: r.update(classes=[r["classes"][0] | {"label": n} for n in range(100_000)]),
        lambda r: r.update(seed=-1),
        lambda r: r.update(num_sequences=0),
        lambda r: r["streams"]["flow"].update(quality=101),
        lambda r: r["streams"]["flow"].update(num_members=-5),
        lambda r: r["flow"].update(bound_px=0),
        lambda r: r["flow"].update(mean_level=1e9),
        lambda r: r["files"][INDEX_NAME].update(num_bytes=-1),
        lambda r: r["files"][INDEX_NAME].update(sha256="abc"),
        lambda r: r["streams"]["flow"].update(shards=[]),
        lambda r: r["streams"]["flow"]["shards"].reverse(),
        lambda r: r.update(version=True),
    ],
)
def test_numbers_of_the_manifest_have_ranges(
    edit: Callable[[dict], None],  # type: ignore[type-arg]
    dataset: Path,
) -> None:
    edit_json(dataset / MANIFEST_NAME, edit)
    for read in (open_dataset, verify_dataset):
        with pytest.raises(DatasetError, match=MANIFEST_NAME) as raised:
            read(dataset)
        assert str(raised.value).count("\n") <= 1


def test_a_negative_size_in_a_tar_header_ends_the_walk(dataset: Path) -> None:
    path = sorted(dataset.glob("flow-*.tar"))[0]
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 10 + b"\xfe\x00"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    rehash(dataset)
    faults = [str(fault) for fault in verify_dataset(dataset).faults]
    assert any("header at byte 0 is broken (size -512)" in fault for fault in faults)


@pytest.mark.parametrize("fps", ["nan", "inf", "0", "-1", "1e9"])
def test_frame_rates_are_bounded(fps: str, run: Path, base: Base, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "prediction"
    code, printed = cli("cktrain", "predict", run, base.frames, "--fps", fps, "--out", out)
    assert code == 2 and "--fps" in printed and "expected a number from" in printed


def test_training_numbers_are_bounded(dataset: Path, cli: Cli, tmp_path: Path) -> None:
    more = ["--out", tmp_path / "run", "--stack-length", 1_000_000]
    code, printed = cli("cktrain", "flow", dataset, *more)
    assert code == 2 and "--stack-length 1000000, expected 256 or less" in printed
