"""The build benchmark: the original-style peer computes the same integers, the record has its
shape, the text renders."""

from __future__ import annotations

import doctest
import json
import statistics
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import bench.building.__main__
import bench.building.model
from bench.building.__main__ import (
    BenchScale,
    original_levels,
    prepare_like_the_original,
    run_build_bench,
    worker_counts,
)
from bench.building.model import build_blocks, speed_ups, spread
from shard_builder.building.prepare import prepare_sequence
from shard_builder.format.levels import quantize_flow
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.release import ReleaseOptions, write_release

RECORD = Path(__file__).parent.parent.parent / "docs" / "results" / "build-cpu.json"


def check_shape(record: dict[str, object], *, counts: tuple[int, ...], repeats: int) -> None:
    records = record["records"]
    assert [(r["name"], r["workers"]) for r in records] == [
        *(("ckshard build", count) for count in counts),
        ("ckshard prepare", 1),
        ("original-style", 1),
    ]
    for entry in records:
        speed = entry["pairs_per_s"]
        assert len(speed["runs"]) == repeats
        assert speed["min"] <= speed["median"] <= speed["max"] and speed["min"] > 0
        assert speed["median"] == pytest.approx(statistics.median(speed["runs"]), abs=1e-3)
        assert (
            entry["extrapolated"]
            == (entry["name"] == "original-style")
            == (entry["start_s"] is None)
        )
    assert set(records[0]["shares_pct"]) == {"read", "flow", "encode", "pack"}
    assert len(record["speed_ups"]) == 2 * len(counts)
    assert [row["codec"] for row in record["bytes"]] == ["jpg", "png", "raw"]
    jpg, png, raw = record["bytes"]
    assert raw["flow_bytes_per_pair"] > png["flow_bytes_per_pair"] > jpg["flow_bytes_per_pair"] > 0
    assert 2 * 340 * 256 <= raw["flow_bytes_per_pair"] < 2 * 340 * 256 + 100
    assert {error["stream"] for error in record["jpg_errors"]} == {"rgb", "flow"}
    assert record["ckplus_reckoned"]["num_pairs"] == 5549
    assert record["machine"]["processor"] and record["versions"]["opencv-python-headless"]


def test_the_original_style_loop_gives_the_integers_of_quantize_flow() -> None:
    generator = np.random.default_rng(0)
    flow = generator.uniform(-12, 12, (40, 50)).astype(np.float32)
    flow[0, :8] = [
        -10,
        10,
        0,
        -0.0,
        np.nextafter(np.float32(10), np.float32(11)),
        -99,
        99,
        10 / 255,
    ]
    flow[1] = ((np.arange(50) + 0.5) * 20 / 255 - 10).astype(
        np.float32
    )  # halves, where rounding could differ
    assert np.array_equal(original_levels(flow), quantize_flow(flow, bound_px=10))


def test_the_original_style_preparation_writes_the_pictures_of_prepare(tmp_path: Path) -> None:
    options = ReleaseOptions(num_subjects=1, image_scale=0.1, max_frames=6)
    write_release(tmp_path / "release", options)
    sequence = scan_ckplus(tmp_path / "release").sequences[0]
    for stream in ("rgb", "flow"):
        (tmp_path / "tree" / stream / str(sequence.code)).mkdir(parents=True)
    prepare_sequence(sequence, tmp_path / "tree", "farneback", 10.0)
    run = prepare_like_the_original(sequence.frames[:3], tmp_path / sequence.key)
    assert run.num_pairs == 2
    for axis in ("x_flow", "y_flow"):
        files = sorted((tmp_path / sequence.key / axis).iterdir())
        assert [file.name for file in files] == [
            f"{sequence.key}_{number:08d}.png" for number in (1, 2)
        ]
        for file in files:
            twin = tmp_path / "tree" / "flow" / str(sequence.code) / sequence.key / axis / file.name
            assert np.array_equal(cv2.imread(str(file), -1), cv2.imread(str(twin), -1))


def test_a_tiny_run_gives_the_documented_record(tmp_path: Path) -> None:
    scale = BenchScale(
        num_subjects=1,
        image_scale=0.1,
        max_frames=6,
        repeats=1,
        original_pairs=1,
        worker_counts=(1, 2),
    )
    record = json.loads(json.dumps(run_build_bench(tmp_path, scale)))
    check_shape(record, counts=(1, 2), repeats=1)
    assert record["release"] == {"width": 64, "height": 49, "num_sequences": 7}
    assert set(build_blocks(record | {"command": "python -m bench.building"})) == {"build", "bytes"}


def test_the_committed_record_renders() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["repeats"] >= 5 and (record["release"]["width"], record["release"]["height"]) == (
        640,
        490,
    )
    check_shape(
        record, counts=worker_counts(record["machine"]["usable_cores"]), repeats=record["repeats"]
    )
    blocks = build_blocks(record)
    assert set(blocks) == {"build", "bytes"}
    for entry in record["records"]:
        assert f"{entry['pairs_per_s']['median']:.2f}" in blocks["build"]
    for row in record["bytes"]:
        assert f"| {row['flow_bytes_per_pair']:,} |" in blocks["bytes"]
    assert "extrapolated" in blocks["build"] and all(
        "estimated" in block for block in blocks.values()
    )


def test_ratios_are_those_of_medians_with_the_range_of_single_turns() -> None:
    def entry(name: str, workers: int, runs: list[float]) -> dict[str, object]:
        return {
            "name": name,
            "workers": workers,
            "extrapolated": name == "original-style",
            "pairs_per_s": spread(runs),
        }

    one, two = entry("ckshard build", 1, [8, 10, 12]), entry("ckshard build", 2, [20, 18, 15])
    found = speed_ups([one, two, entry("original-style", 1, [1, 2, 1])])
    assert [(f["of"], f["over"]) for f in found] == [
        ("ckshard build, 2 workers", "ckshard build, 1 worker"),
        ("ckshard build, 1 worker", "original-style, 1 worker"),
        ("ckshard build, 2 workers", "original-style, 1 worker"),
    ]
    assert [(f["ratio"], f["min"], f["max"]) for f in found] == [
        (1.8, 1.25, 2.5),
        (10, 5, 12),
        (18, 9, 20),
    ]


@pytest.mark.parametrize("module", [bench.building.__main__, bench.building.model])
def test_the_examples_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
