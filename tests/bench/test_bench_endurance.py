"""The endurance benchmark: a tiny run gives the documented record, and its text renders; never how
fast it is."""

from __future__ import annotations

import doctest
import json
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

import bench.endurance
from bench.endurance import (
    CASES,
    Scale,
    endurance_blocks,
    growth_pct,
    measure_memory,
    measure_restore,
)
from bench.loaders.windows import WindowFolders

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "docs" / "results" / "endurance-cpu.json"


def check_shape(
    record: dict[str, object], scale: Scale, watched: Sequence[tuple[str, str]] = CASES
) -> None:
    cases = list(product(("cpu", "dali"), ("jpg", "raw"), scale.sizes, ("first", "middle", "last")))
    assert [
        (e["engine"], e["codec"], e["num_samples"], e["position"]) for e in record["restore"]
    ] == cases
    for entry in record["restore"]:
        for name in ("restore_ms", "first_batch_ms", "running_ms"):
            times = entry[name]
            assert len(times["runs"]) == scale.repeats
            assert 0 <= times["min"] <= times["median"] <= times["max"]
            assert times["median"] == pytest.approx(statistics.median(times["runs"]), abs=1e-3)
    assert [(e["engine"], e["codec"]) for e in record["memory"]] == list(watched)
    for entry in record["memory"]:
        assert (
            entry["num_samples"] == scale.epoch_samples and len(entry["rss_bytes"]) == scale.epochs
        )
        assert min(entry["rss_bytes"]) > 50e6
        assert entry["growth_pct"] == growth_pct(entry["rss_bytes"])


def check_blocks(record: dict[str, object]) -> None:
    blocks = endurance_blocks(record)
    assert set(blocks) == {"restore", "memory"}
    for entry in record["restore"]:
        assert f"{entry['restore_ms']['median']:.2f}" in blocks["restore"]
    for entry in record["memory"]:
        assert f"{entry['growth_pct']:+.2f} %" in blocks["memory"]
    for block in blocks.values():
        table = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1


def test_a_tiny_run_gives_the_documented_record(
    tiny_dataset: Path, raw_dataset: Path, tmp_path: Path
) -> None:
    folders = WindowFolders(raw=raw_dataset, jpg=tiny_dataset, png_tree=tmp_path, scratch=tmp_path)
    scale = Scale(sizes=(42, 20_000), repeats=1, epochs=10, epoch_samples=32)
    watched = [("dali", "raw")]
    record = {
        "restore": measure_restore(folders, scale),
        "memory": measure_memory(folders, scale, watched),
    }
    check_shape(json.loads(json.dumps(record)), scale, watched)
    machine = {"usable_cores": 2, "processor": "a processor"}
    check_blocks(
        record
        | {
            "command": "python -m bench.endurance",
            "batch_size": 32,
            "repeats": 1,
            "machine": machine,
        }
    )


@pytest.mark.skipif(not RECORD.is_file(), reason="endurance-cpu.json is not committed")
def test_the_committed_record_renders_and_holds_what_is_promised() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["repeats"] >= 5 and record["machine"]["processor"] and record["versions"]["torch"]
    check_shape(record, Scale(repeats=record["repeats"]))
    check_blocks(record)
    assert max(entry["restore_ms"]["max"] for entry in record["restore"]) < 50
    # the cpu engine's buffers are its own; DALI's come and go with the crops' sizes: a batch kept
    # each epoch would be 75 %
    growth = {
        engine: max(e["growth_pct"] for e in record["memory"] if e["engine"] == engine)
        for engine in ("cpu", "dali")
    }
    assert growth["cpu"] < 0.5 and growth["dali"] < 0.5


def test_the_examples_hold() -> None:
    result = doctest.testmod(bench.endurance)
    assert result.attempted and not result.failed
