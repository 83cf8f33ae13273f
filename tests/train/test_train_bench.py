"""cktrain bench: the cases it compares, the record it writes, what it refuses; never the speed
itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from shard_builder.errors import InputError
from tests.tiny_net_cktrain import make_tiny_net
from train.cli import app
from train.commands.stall import ratios_to_synthetic
from train.config import TrainConfig
from train.running.stall_comparison import compare_stalls, stall_cases

CONFIG = TrainConfig(stream="flow", arch="tiny", batch_size=6, workers=1, precision="fp32")


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)
    monkeypatch.setattr(sys, "argv", ["cktrain", "bench"])


def test_a_gpu_is_measured_with_both_engines_side_by_side() -> None:
    names = [case.name for case in stall_cases(torch.device("cuda"), "bf16", with_baseline=True)]
    assert names == [
        "synthetic",
        "cached, cpu engine",
        "real, cpu engine",
        "real, dali engine",
        "synthetic, fp32 NCHW",
    ]


def test_the_record_has_every_repeat_of_every_case(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench {tiny_dataset} --arch tiny --batch-size 6 --workers 1 --precision fp32"
    words += f" --steps 8 --warmup 1 --repeats 3 --json {tmp_path / 'bench.json'}"
    app(words.split(), standalone_mode=False)
    record = json.loads((tmp_path / "bench.json").read_text())
    assert (record["arch"], record["batch_size"], record["steps"], record["codec"]) == (
        "tiny",
        6,
        8,
        "jpg",
    )
    assert record["versions"]["torch"] and record["device_name"] and record["num_cores"] >= 1
    assert [result["case"]["data"] for result in record["results"]] == [
        "synthetic",
        "cached",
        "real",
        "synthetic",
    ]
    assert record["results"][-1]["case"]["channels_last"] is False
    for result in record["results"]:
        assert len(result["samples_per_s"]) == len(result["data_wait_pct"]) == 3
        assert (
            min(result["samples_per_s"])
            <= result["median_samples_per_s"]
            <= max(result["samples_per_s"])
        )
        assert all(0 <= wait <= 100 for wait in result["data_wait_pct"])
    assert ratios_to_synthetic(record)["synthetic"] == 1.0
    assert "Real data costs" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"repeats": 2}, {"steps": 0}, {"warmup": 0}])
def test_too_few_repeats_are_refused(options: dict[str, int], tiny_dataset: Path) -> None:
    arguments = {"steps": 1, "warmup": 1, "repeats": 3} | options
    with pytest.raises(InputError, match="--repeats"):
        compare_stalls(
            CONFIG,
            tiny_dataset,
            **arguments,
            with_baseline=False,
            on_progress=lambda done, total: None,
        )
