"""``cktrain bench``: the cases, the record, what is refused; never the speed itself."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.batch import Batch
from tests.train.tiny_net import Cktrain
from train.commands.stall import ratios_to_synthetic, stall_sentence
from train.running import step
from train.running.session import Session

OPTIONS = ["--arch", "tiny", "--batch-size", "6", "--workers", "1", "--precision", "fp32"]


def test_the_record_has_every_repeat_of_every_case(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    steps = ("--steps", 8, "--warmup", 1, "--repeats", 3)
    code, out, _ = cktrain("bench", tiny_dataset, *OPTIONS, *steps, "--json", file)
    assert code == 0 and "eal data costs" in out and "\\n" not in out
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


def test_every_case_trains_as_the_trainer_does(
    cktrain: Cktrain, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches a step, one look at the device a step, whole steps only: 36 of 42 sequences."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    sizes: list[int] = []
    num_reads, real = 0, step.forward_backward

    def forward_backward(session: Session, batch: Batch, num_samples: int) -> None:
        assert session.model.training and session.train_loader.num_samples == 36
        sizes.append(num_samples)
        real(session, batch, num_samples)

    def read_numbers(values: torch.Tensor) -> list[float]:
        nonlocal num_reads
        num_reads += 1
        return values.tolist()

    monkeypatch.setattr(step, "forward_backward", forward_backward)
    monkeypatch.setattr(step, "read_numbers", read_numbers)
    steps = ("--iter-size", 2, "--steps", 2, "--warmup", 1, "--repeats", 3)
    code, _, _ = cktrain("bench", tiny_dataset, *OPTIONS, *steps)
    assert code == 0 and torch.backends.cudnn.benchmark
    num_steps = 4 * (1 + 3 * 2)
    assert num_reads == num_steps and sizes == [12] * (2 * num_steps)


def test_a_set_smaller_than_a_batch_is_refused(cktrain: Cktrain, tiny_dataset: Path) -> None:
    code, _, error = cktrain("bench", tiny_dataset, *OPTIONS, "--batch-size", 64)
    assert code == 2 and "--batch-size 64, but the training part has 42 sequences" in error


@pytest.mark.parametrize(
    "option", ["--repeats=2", "--steps=0", "--warmup=0", f"--repeats={10**20}"]
)
def test_too_few_and_too_many_repeats_are_refused(
    cktrain: Cktrain, option: str, tiny_dataset: Path
) -> None:
    code, _, error = cktrain("bench", tiny_dataset, *OPTIONS, option)
    assert code == 2 and f"{option.replace('=', ' ')}, expected an integer from" in error


def record_of(*, synthetic: list[float], wait: float, **real: list[float]) -> dict[str, Any]:
    speeds = {"synthetic": synthetic} | {f"real, {name} engine": real[name] for name in real}
    return {
        "results": [
            {
                "case": {"name": name},
                "samples_per_s": runs,
                "median_samples_per_s": statistics.median(runs),
                "median_data_wait_pct": wait,
            }
            for name, runs in speeds.items()
        ]
    }


@pytest.mark.parametrize(
    ("speeds", "wait", "why"),
    [
        # medians 63.5 % apart, of ranges that say nothing
        (([9.5, 13.8, 6.8], [3.5, 2.4, 7.1]), 0.44, "overlap"),
        (([10.0, 10.2, 10.1], [9.9, 10.05, 9.8]), 0.1, "overlap; at most 3.9 %"),
        (([4.0, 4.1, 4.2], [8.0, 8.1, 8.2]), 0.0, "overlap; at most 0.0 %"),
        (([10.0, 10.1, 10.2], [3.6, 3.7, 3.8]), 0.44, "63.4 % of the speed was lost, but 0.4 %"),
        (([10.0, 10.1, 10.2], [9.0, 9.1, 9.2]), 60.0, "9.9 % of the speed was lost, but 60.0 %"),
    ],
)
def test_no_conclusion_from_noise(
    speeds: tuple[list[float], list[float]], wait: float, why: str
) -> None:
    said = stall_sentence(record_of(synthetic=speeds[0], cpu=speeds[1], wait=wait))
    assert said.startswith("Too noisy to tell what real data costs (real, cpu engine)")
    assert why in said and "--repeats" in said and "--steps" in said


def test_a_conclusion_from_ranges_apart_and_a_wait_that_agrees() -> None:
    record = record_of(synthetic=[10.0, 10.1, 10.2], cpu=[4.9, 5.0, 5.1], dali=[8, 8, 8], wait=19)
    assert stall_sentence(record) == (
        "Real data costs 20.8 % of the speed of batches that are there already (real, dali engine)."
    )
