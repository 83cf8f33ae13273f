"""``cktrain bench``: the cases, the record, what is refused; never the speed itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.train.tiny_net import Cktrain
from train.commands.stall import ratios_to_synthetic

OPTIONS = ["--arch", "tiny", "--batch-size", "6", "--workers", "1", "--precision", "fp32"]


def test_the_record_has_every_repeat_of_every_case(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    steps = ("--steps", 8, "--warmup", 1, "--repeats", 3)
    code, out, _ = cktrain("bench", tiny_dataset, *OPTIONS, *steps, "--json", file)
    assert code == 0 and "Real data costs" in out
    record = json.loads(file.read_text())
    facts = [record[name] for name in ("arch", "batch_size", "steps", "codec")]
    assert facts == ["tiny", 6, 8, "jpg"]
    assert record["versions"]["torch"] and record["device_name"] and record["num_cores"] >= 1
    cases = [result["case"]["data"] for result in record["results"]]
    assert cases == ["synthetic", "cached", "real", "synthetic"]
    assert record["results"][-1]["case"]["channels_last"] is False
    for result in record["results"]:
        speeds, waits = result["samples_per_s"], result["data_wait_pct"]
        assert len(speeds) == len(waits) == 3
        assert min(speeds) <= result["median_samples_per_s"] <= max(speeds)
        assert all(0 <= wait <= 100 for wait in waits)
    assert ratios_to_synthetic(record)["synthetic"] == 1.0


@pytest.mark.parametrize("option", ["--repeats=2", "--steps=0", "--warmup=0"])
def test_too_few_repeats_are_refused(cktrain: Cktrain, option: str, tiny_dataset: Path) -> None:
    code, _, error = cktrain("bench", tiny_dataset, *OPTIONS, option)
    assert code == 2 and "expected at least 3, 1 and 1" in error
    assert option.replace("=", " ") in error
