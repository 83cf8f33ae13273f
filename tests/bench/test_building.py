"""The build benchmark: the original-style peer computes the same integers, a tiny run gives the
documented record."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from bench.building import build_blocks, measure_builds, original_levels, prepare_like_the_original
from bench.harness import provenance
from shard_builder.building.prepare import SCRATCH, prepare_sequence
from shard_builder.format.levels import quantize_flow
from shard_builder.machine import num_usable_cores
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.options import ReleaseOptions
from shard_builder.synth.release import write_release


def test_the_original_style_loop_gives_the_integers_of_quantize_flow() -> None:
    flow = np.random.default_rng(0).uniform(-12, 12, (40, 50)).astype(np.float32)
    beyond = np.nextafter(np.float32(10), np.float32(11))
    flow[0, :8] = [-10, 10, 0, -0.0, beyond, -99, 99, 10 / 255]
    halves = (np.arange(50) + 0.5) * 20 / 255 - 10  # where rounding could differ
    flow[1] = halves.astype(np.float32)
    assert np.array_equal(original_levels(flow), quantize_flow(flow, bound_px=10))


def test_the_original_style_preparation_writes_the_pictures_of_prepare(tmp_path: Path) -> None:
    options = ReleaseOptions(num_subjects=1, image_scale=0.1, max_frames=6)
    write_release(tmp_path / "release", options)
    sequence = scan_ckplus(tmp_path / "release").sequences[0]
    for folder in (SCRATCH, f"rgb/{sequence.code}", f"flow/{sequence.code}"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
    prepare_sequence(sequence, tmp_path / "tree", "farneback", 10.0)
    prepare_like_the_original(sequence.frames[:3], tmp_path / sequence.key)
    for axis in ("x_flow", "y_flow"):
        files = sorted((tmp_path / sequence.key / axis).iterdir())
        names = [f"{sequence.key}_{number:08d}.png" for number in (1, 2)]
        assert [file.name for file in files] == names
        for file in files:
            twin = tmp_path / "tree" / "flow" / str(sequence.code) / sequence.key / axis / file.name
            assert np.array_equal(cv2.imread(str(file), -1), cv2.imread(str(twin), -1))


def test_a_tiny_run_gives_the_documented_record(tmp_path: Path) -> None:
    measured = measure_builds(tmp_path, subjects=1, repeats=2, image_scale=0.1)
    record = json.loads(json.dumps(provenance() | measured))
    names = ["ckshard build, 1 worker", "ckshard prepare, 1 worker"]
    names += ["original-style (extrapolated)"]
    if (num_cores := num_usable_cores()) > 1:
        names.insert(1, f"ckshard build, {num_cores} workers")
    assert [entry["name"] for entry in record["records"]] == names
    for entry in record["records"]:
        speed = entry["pairs_per_s"]
        assert len(speed["runs"]) == 2 and 0 < speed["min"] <= speed["median"] <= speed["max"]
    release = {"width": 64, "height": 49, "num_sequences": 7, "num_pairs": 63}
    assert record["release"] == release
    assert [row["codec"] for row in record["bytes"]] == ["jpg", "png", "raw", "lz4"]
    jpg, png, raw, lz4 = (row["flow_bytes_per_pair"] for row in record["bytes"])
    assert raw > max(png, lz4) > jpg > 0 and 2 * 340 * 256 <= raw < 2 * 340 * 256 + 100
    assert {error["stream"] for error in record["jpg_errors"]} == {"rgb", "flow"}
    assert set(build_blocks(record)) == {"build", "bytes"}
