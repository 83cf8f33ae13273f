"""The endurance benchmark: a tiny run gives the documented record; the committed one holds what is
promised."""

from __future__ import annotations

import json
import statistics
from itertools import product
from pathlib import Path

import pytest

from bench.endurance import endurance_blocks, growth_pct, measure_restore, watch_memory
from bench.harness import in_fresh_process, provenance
from bench.tables import read_record


def test_a_tiny_run_gives_the_documented_record(
    tiny_dataset: Path, raw_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "jpg").symlink_to(tiny_dataset)
    (tmp_path / "raw").symlink_to(raw_dataset)
    sizes = (42, 20_000)
    restore = measure_restore(tmp_path, repeats=1, sizes=sizes)
    resident = in_fresh_process(watch_memory, tmp_path / "raw", "dali", 10, 32)
    cases = list(product(("cpu", "dali"), ("jpg", "raw"), sizes, ("first", "middle", "last")))
    names = ("engine", "codec", "num_samples", "position")
    assert [tuple(entry[name] for name in names) for entry in restore] == cases
    for entry in restore:
        for name in ("restore_ms", "first_batch_ms"):
            times = entry[name]
            assert len(times["runs"]) == 1
            assert 0 <= times["min"] <= times["median"] <= times["max"]
    assert len(resident) == 10 and min(resident) > 50e6
    memory = {"engine": "dali", "codec": "raw", "num_samples": 32, "rss_bytes": resident}
    record = {"batch_size": 32, "repeats": 1, "restore": restore, "memory": [memory]}
    blocks = endurance_blocks(json.loads(json.dumps(provenance() | record)))
    assert set(blocks) == {"restore", "memory"}


def test_growth_is_from_epochs_5_to_9_to_the_last_five() -> None:
    assert growth_pct([9, 9, 9, 9, 2, 4, 4, 4, 9, 7, 7, 5, 5, 6]) == pytest.approx(50)


def test_the_committed_record_holds_what_is_promised() -> None:
    record = read_record("endurance-cpu")
    for entry in record["restore"]:
        times = entry["restore_ms"]
        assert len(times["runs"]) >= 5 and times["max"] < 50
        assert times["median"] == pytest.approx(statistics.median(times["runs"]), abs=1e-3)
    # a batch kept each epoch would be 75 %
    assert max(abs(growth_pct(entry["rss_bytes"])) for entry in record["memory"]) < 0.5
