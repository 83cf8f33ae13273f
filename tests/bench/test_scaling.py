"""The scaling model: a tiny run has the record's shape, the fits are right, memory a sample is
bounded, the text is the record's."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench.scaling.carry
import bench.scaling.model
from bench.building.memory import write_linked_release
from bench.scaling.__main__ import Scale, measure_scaling, sequences_per_shard, write_large_index
from bench.scaling.carry import LIMITS, Carry, find_breaks, fit, steps_per_sample
from bench.scaling.model import scaling_blocks
from bench.scaling.probe import open_and_plan, probe_traced
from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.sources.ckplus import scan_ckplus

DOCS = Path(__file__).parent.parent.parent / "docs"
OPENED = (
    "open_s",
    "plan_s",
    "batch_plan_us",
    "resident_bytes",
    "anonymous_bytes",
    "split_s",
    "split_bytes",
)
TRACED = ("kept_bytes", "planned_bytes", "peak_bytes")
VERIFIED = ("verify_quick_s", "verify_quick_peak_bytes", "verify_full_s", "verify_full_peak_bytes")

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="memory is read from Linux's /proc"
)


def check_shape(record: dict[str, Any], scale: Scale) -> None:
    sizes = sorted([*scale.sizes, *(size for size in scale.sizes if size == scale.more_shards)])
    assert [point["num_sequences"] for point in record["built"]] == sizes
    assert [point["num_sequences"] for point in record["index_only"]] == [
        *scale.large,
        scale.large[0],
    ]
    for point in [*record["built"], *record["index_only"]]:
        names = (*OPENED, *(VERIFIED if "build_s" in point else ()))
        for name in names:
            assert len(point[name]["runs"]) >= min(scale.repeats, scale.full_repeats), name
            assert point[name]["min"] <= point[name]["median"] <= point[name]["max"], name
        assert all(
            point[name] > 0
            for name in (*TRACED, "shards_per_stream", "index_bytes", "manifest_bytes")
        )
        assert point["kept_bytes"] < point["planned_bytes"] <= point["peak_bytes"]
        assert point["key_text_bytes"] == 8 * point["num_sequences"]
    for name in ("open_s", "plan_s", "split_s", "build_s", "verify_quick_s", "verify_full_s"):
        assert set(record["fits"][name]) == {"1", "n", "worst"}
    assert record["carry"]["per_mapped_shard"]["maps"] == 1
    assert record["command"] and record["machine"]["processor"] and record["versions"]["pyarrow"]


@needs_proc
def test_a_tiny_run_has_the_records_shape_and_renders(tmp_path: Path) -> None:
    scale = Scale(
        sizes=(20, 40), more_shards=0, more_cores=0, large=(200,), repeats=1, full_repeats=1
    )
    record = json.loads(json.dumps(measure_scaling(scale, tmp_path)))
    check_shape(record, scale)
    assert not any(tmp_path.glob("release*")) and not (tmp_path / "large").exists()


def test_the_committed_record_fills_the_blocks_of_the_page() -> None:
    record = json.loads((DOCS / "results" / "scaling.json").read_text())
    check_shape(record, Scale())
    assert all(
        len(point["open_s"]["runs"]) >= 5 for point in [*record["built"], *record["index_only"]]
    )
    text = (DOCS / "scaling.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"<!-- begin: ([\w-]+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL))
    assert found == scaling_blocks(record)


def test_the_committed_record_keeps_the_promises_of_a_million_samples() -> None:
    record = json.loads((DOCS / "results" / "scaling.json").read_text())
    million = record["index_only"][0]
    assert million["num_sequences"] == 1_000_000
    for name in ("open_s", "plan_s"):
        assert million[name]["median"] < LIMITS[name]
    for name in ("anonymous_bytes", "resident_bytes"):
        assert million[name]["max"] < LIMITS["bytes_per_sample"] * million["num_sequences"]
    breaks = find_breaks(Carry(record=record, shard_bytes=1 << 30))
    assert (
        breaks == sorted(breaks, key=lambda entry: entry.num_sequences)
        and breaks[0].num_sequences > 0
    )


@pytest.fixture(scope="module")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "release").mkdir()
    write_linked_release(folder / "release", 20, width=16, height=12)
    source = scan_ckplus(folder / "release")
    options = BuildOptions(width=8, height=8, flow_method="dis", shard_bytes=4096)
    build_dataset(source, folder / "release", folder / "dataset", options)
    return folder / "dataset"


def test_an_index_without_shards_opens_and_plans_like_its_origin(
    tiny_rows: Path, tmp_path: Path
) -> None:
    write_large_index(tmp_path / "large", tiny_rows, num_rows=50, num_shards=10)
    with open_dataset(tiny_rows) as small, open_dataset(tmp_path / "large") as large:
        assert np.array_equal(large.labels, np.resize(small.labels, 50))
        assert large.keys == [f"S{row:07d}" for row in range(50)]
        members = large.members("flow")
        assert [members.num_members(row) for row in range(50)] == [5] * 50
        assert len(large.stream("flow").shards) == 10
    _, plan, _ = open_and_plan(tmp_path / "large")
    assert sorted(plan.table(np.arange(50), epoch=0).rows.tolist()) == list(range(50))


@pytest.mark.parametrize("num", [200_000, (1 << 16) + 1])
def test_opening_and_planning_takes_under_200_bytes_a_sample(
    tiny_rows: Path, tmp_path: Path, num: int
) -> None:
    """Allocated by Python and NumPy, so the same on every machine: rows in few shards, the
    temporaries of the plan included."""
    write_large_index(tmp_path / "large", tiny_rows, num_rows=num, num_shards=100)
    found = probe_traced(tmp_path / "large")
    assert found["kept_bytes"] < 75 * num
    assert found["planned_bytes"] < 125 * num
    assert found["peak_bytes"] < LIMITS["bytes_per_sample"] * num


def test_a_fit_finds_its_terms_and_leaves_out_negative_ones() -> None:
    points = [
        {"num_sequences": n, "t": 0.5 + 2e-3 * n + 1e-5 * n * steps_per_sample(n)}
        for n in (10, 100, 1000, 5000)
    ]
    found = fit(points, "t", ("1", "n", "n steps"))
    assert [found[term] for term in ("1", "n", "n steps")] == pytest.approx([0.5, 2e-3, 1e-5])
    assert found["worst"] < 1e-6
    falling = [
        {"num_sequences": n, "shards_per_stream": 1, "t": 3 - n / 1000} for n in (10, 100, 1000)
    ]
    found = fit(falling, "t", ("1", "n"))
    assert found["n"] == 0 and found["1"] > 0 and found["worst"] > 0


def test_the_permutations_steps_are_those_of_its_domain() -> None:
    assert [steps_per_sample(num) for num in (1, 4, 16, 1 << 20)] == [4.0, 1.0, 1.0, 1.0]
    assert max(steps_per_sample(num) for num in range(2, 5000)) < 4


def test_the_builds_own_cut_is_carried() -> None:
    default, large = sequences_per_shard(8 << 20), sequences_per_shard(1 << 30)
    assert default == (8 << 20) // int(3 * 340 * 256 * 18 * 0.15) and large // default in range(
        128, 140
    )


def test_the_examples_of_the_docstrings_hold() -> None:
    for module in (bench.scaling.carry, bench.scaling.model):
        assert doctest.testmod(module).failed == 0
