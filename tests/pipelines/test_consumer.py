"""ckshard bench --consumer-ms: what a device waits, and what counts as waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.throughput.consumer import iter_waits, measure_turn, share_pct
from tests.pipelines.test_bench import FIELDS, run_bench

WAIT_FIGURES = {"long_wait_pct", "short_wait_pct", "border_points", "first_batch_ms"}


def test_what_a_device_waits(tiny_dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / "waits.json"
    options = ("--streams", "rgb", "--batch-size", 8, "--threads", 1, "--device", "cpu")
    done = run_bench(
        *(tiny_dataset, *options, "--seconds", 0.02, "--json", target),
        *("--consumer-ms", 2.5, "--epoch-samples", 20),
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(target.read_text())
    assert [record["name"] for record in records] == ["cpu", "cpu, cached", "dali on the cpu"]
    for record in records:
        assert set(record) == (FIELDS - {"samples_per_s", "cutter"}) | WAIT_FIGURES | {
            "consumer_ms",
            "epoch_samples",
        }
        assert (record["consumer_ms"], record["epoch_samples"]) == (2.5, 20)
        for name in ("long_wait_pct", "short_wait_pct"):
            assert len(record[name]["runs"]) == 5
            assert 0 < record[name]["min"] <= record[name]["max"] < 100
        for long, short, more in zip(
            *(record[name]["runs"] for name in ("long_wait_pct", "short_wait_pct")),
            record["border_points"]["runs"],
            strict=True,
        ):
            assert more == pytest.approx(short - long, abs=1e-3)
        assert record["first_batch_ms"]["min"] > 0
    assert "waits of a device that takes 2.5 ms a batch of 8" in done.stdout
    assert "epochs of 20" in done.stdout


class TimedLoader:
    """A loader of known delays: each batch of an epoch takes its own time, then the epoch ends."""

    def __init__(self, clock: list[float], delays: list[float]) -> None:
        self._clock, self._delays = clock, delays
        self.num_samples, self.position = len(delays), 0

    def __iter__(self) -> Iterator[object]:
        self.position = 0
        for delay in self._delays:
            self._clock[0] += delay
            self.position += 1
            yield SimpleNamespace(images=torch.zeros(1))
        self._clock[0] += 0.25  # what the border costs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only work and delays move."""
    now = [100.0]
    fake = SimpleNamespace(
        perf_counter=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr("pipelines.throughput.consumer.time", fake)
    return now


def test_all_that_is_not_work_is_a_wait(clock: list[float]) -> None:
    """The border's cost belongs to the first batch of the next epoch."""
    loader = TimedLoader(clock, [1.0, 0.5, 0.0])
    waits = list(islice(iter_waits(loader, 2.0), 7))  # type: ignore[arg-type]
    assert [wait.wait_s for wait in waits] == [1, 0.5, 0, 1.25, 0.5, 0, 1.25]
    assert {wait.work_s for wait in waits} == {2.0}
    assert [wait.is_first for wait in waits] == [True, False, False] * 2 + [True]
    assert [wait.is_last for wait in waits] == [False, False, True] * 2 + [False]
    assert share_pct(waits[:3]) == 100 * 1.5 / 7.5


@pytest.mark.parametrize(("has_whole_epochs", "num"), [(True, 6), (False, 5)])
def test_a_turn_measures_from_the_second_epoch_on(
    has_whole_epochs: bool, num: int, clock: list[float]
) -> None:
    loader = TimedLoader(clock, [9.0, 0.0, 0.0])
    waits = measure_turn(
        loader,  # type: ignore[arg-type]
        consumer_s=1.0,
        num_unmeasured=3,
        seconds=23.0,
        has_whole_epochs=has_whole_epochs,
    )
    assert [wait.wait_s for wait in waits] == [9.25, 0, 0, 9.25, 0, 0][:num]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--consumer-ms 0", "--consumer-ms 0.0, expected a number from 0.001"),
        ("--consumer-ms 5 --epoch-samples 7", "--epoch-samples 7, expected --batch-size 8 or more"),
        ("--consumer-ms 5 --plot x.png", "--plot x.png draws samples/s, but --consumer-ms 5.0"),
        ("--consumer-ms 5 --json /dev/null/x.json", "/dev/null/x.json: cannot be written"),
    ],
)
def test_a_device_that_cannot_be_is_named(options: str, words: str, tiny_dataset: Path) -> None:
    done = run_bench(tiny_dataset, "--batch-size", 8, *options.split())
    assert done.returncode == 2 and words in done.stderr
