"""The scaling benchmark: a tiny run, an index without shards, and the memory of a sample."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bench.harness import provenance
from bench.scaling import POINTS, measure_scaling, open_and_plan, scaling_blocks, write_large_index
from bench.tables import read_record
from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.options import ReleaseOptions
from shard_builder.synth.release import write_release

BYTES_PER_SAMPLE = 200

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="memory is read from Linux's /proc"
)


@needs_proc
def test_a_tiny_run_gives_the_documented_record(tmp_path: Path) -> None:
    points = ((50, 20), (1000, 20))
    record = json.loads(json.dumps(measure_scaling(tmp_path, repeats=1, points=points)))
    assert [point["num_sequences"] for point in record["points"]] == [50, 1000]
    assert [point["shards_per_stream"] for point in record["points"]] == [3, 50]
    for point in record["points"]:
        for name in ("open_s", "plan_s", "batch_plan_us", "split_s", "anonymous_bytes"):
            assert len(point[name]["runs"]) == 1
            assert 0 <= point[name]["min"] <= point[name]["median"] <= point[name]["max"]
    assert scaling_blocks(provenance() | record)["scaling"].count("\n| ") == 3


def test_the_committed_record_keeps_the_promises_of_a_million_samples() -> None:
    record = read_record("scaling")
    million = next(p for p in record["points"] if p["num_sequences"] == 1_000_000)
    assert million["open_s"]["median"] < 2 and million["plan_s"]["median"] < 0.5
    assert million["anonymous_bytes"]["max"] < BYTES_PER_SAMPLE * 1_000_000
    assert all(len(point["open_s"]["runs"]) >= 5 for point in record["points"])


@pytest.fixture(scope="module")
def six_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose sequences have six frames each, as the benchmark's."""
    folder = tmp_path_factory.mktemp("six")
    write_release(folder / "CK+", ReleaseOptions(num_subjects=2, image_scale=0.1, max_frames=6))
    options = BuildOptions(width=8, height=8, flow_method="dis")
    build_dataset(scan_ckplus(folder / "CK+"), folder / "CK+", folder / "dataset", options)
    return folder / "dataset"


def test_an_index_without_shards_opens_and_plans_like_its_origin(
    six_frames: Path, tmp_path: Path
) -> None:
    write_large_index(tmp_path / "large", six_frames, num_rows=50, num_shards=10)
    with open_dataset(six_frames) as small, open_dataset(tmp_path / "large") as large:
        assert np.array_equal(large.labels, np.resize(small.labels, 50))
        assert large.keys == [f"S{row:07d}" for row in range(50)]
        assert large.members("flow").num_stored.tolist() == [5] * 50
        assert len(large.stream("flow").shards) == 10
    _, plan, _ = open_and_plan(tmp_path / "large")
    assert sorted(plan.table(np.arange(50), epoch=0).rows.tolist()) == list(range(50))


def test_as_many_shards_as_are_measured_can_be_opened(six_frames: Path, tmp_path: Path) -> None:
    num = max(-(-num_rows // each) for num_rows, each in POINTS)
    write_large_index(tmp_path / "large", six_frames, num_rows=num, num_shards=num)
    with open_dataset(tmp_path / "large") as large:
        assert len(large.stream("flow").shards) == num


@pytest.mark.parametrize("num", [200_000, (1 << 16) + 1])
def test_opening_and_planning_takes_under_200_bytes_a_sample(
    six_frames: Path, tmp_path: Path, num: int
) -> None:
    """Allocated by Python and NumPy, so the same on every machine: rows in few shards, the
    temporaries of the plan included."""
    write_large_index(tmp_path / "large", six_frames, num_rows=num, num_shards=100)
    tracemalloc.start()
    try:
        opened = open_and_plan(tmp_path / "large")
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        table = opened[1].table(np.arange(num, dtype=np.int64), epoch=0)
        planned, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table.rows) == num
    assert kept < 75 * num and planned < 125 * num and peak < BYTES_PER_SAMPLE * num
