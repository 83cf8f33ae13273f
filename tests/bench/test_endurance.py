"""The endurance benchmark: a tiny run gives the documented record; the committed one holds what is
promised."""

from __future__ import annotations

import json
import statistics
from itertools import product
from pathlib import Path

import pytest

from bench.endurance import endurance_blocks, measure_memory, measure_restore
from bench.harness import provenance
from bench.tables import read_record


def test_a_tiny_run_gives_the_documented_record(
    tiny_dataset: Path, raw_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "jpg").symlink_to(tiny_dataset)
    (tmp_path / "raw").symlink_to(raw_dataset)
    sizes, case = (42, 20_000), [("dali", "raw")]
    restore = measure_restore(tmp_path, repeats=1, sizes=sizes)
    memory = measure_memory(tmp_path, cases=case, epochs=10, epoch_samples=32)
    cases = list(product(("cpu", "dali"), ("jpg", "raw"), sizes, ("first", "middle", "last")))
    names = ("engine", "codec", "num_samples", "position")
    assert [tuple(entry[name] for name in names) for entry in restore] == cases
    for entry in restore:
        for name in ("restore_ms", "first_batch_ms"):
            times = entry[name]
            assert len(times["runs"]) == 1
            assert 0 <= times["min"] <= times["median"] <= times["max"]
    assert [(entry["engine"], entry["codec"]) for entry in memory] == case
    assert len(memory[0]["rss_bytes"]) == 10 and min(memory[0]["rss_bytes"]) > 50e6
    assert memory[0]["growth_pct"] == pytest.approx(growth_pct(memory[0]["rss_bytes"]), abs=0.01)
    record = {"batch_size": 32, "repeats": 1, "restore": restore, "memory": memory}
    assert set(endurance_blocks(json.loads(json.dumps(provenance() | record)))) == {
        "restore",
        "memory",
    }


def growth_pct(rss: list[int]) -> float:
    """The last five of ten epochs beside epochs 5 to 9."""
    settled, last = statistics.median(rss[4:9]), statistics.median(rss[-5:])
    return 100 * (last - settled) / settled


def test_the_committed_record_holds_what_is_promised() -> None:
    record = read_record("endurance-cpu")
    for entry in record["restore"]:
        times = entry["restore_ms"]
        assert len(times["runs"]) >= 5 and times["max"] < 50
        assert times["median"] == pytest.approx(statistics.median(times["runs"]), abs=1e-3)
    # a batch kept each epoch would be 75 %
    assert max(abs(entry["growth_pct"]) for entry in record["memory"]) < 0.5
