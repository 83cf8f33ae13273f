"""Training on a GPU against training on the CPU; skips without a GPU, fails without one under
REQUIRE_GPU=1."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_distributed import torchrun
from tests.train.tiny_net import ENVIRONMENT, Cktrain, Train, command, weights
from train.running.run_folder import read_metrics

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
PLAIN = {"precision": "fp32", "dropout": 0.0, "loader": "cpu"}


@pytest.fixture(autouse=True)
def full_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of fp32 in fp32, as the CPU computes them, not in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def losses(run: Path) -> list[float]:
    """The losses of a run: of its steps, its epochs and its validations."""
    rows = read_metrics(run)
    found = [row[name] for row in rows for name in ("loss", "val_loss") if name in row]
    assert len(found) >= 3 and all(map(math.isfinite, found))
    return found


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        pytest.param({}, 1e-4, id="cpu engine"),
        pytest.param({"loader": "dali", "cache": "ram"}, 1e-2, id="dali"),
        pytest.param({"loader": "auto", "cache": "device"}, 1e-2, id="resident"),
        pytest.param({"batch_size": 1, "iter_size": 15}, 1e-4, id="batches of one"),
        pytest.param({"precision": "bf16"}, 3e-2, id="bf16"),
        pytest.param({"compile": True, "batch_size": 8, "iter_size": 2}, 1e-3, id="compile"),
    ],
)
def test_a_gpu_trains_and_validates_as_the_cpu_does(
    options: dict[str, Any], tolerance: float, train: Train
) -> None:
    """28 samples, so that an epoch ends with a short batch and a short step. Engines whose pixels
    are off by a level get more room, and so does bf16."""
    sizes = {name: options[name] for name in options if name in ("batch_size", "iter_size")}
    expected = train("cpu", device="cpu", **(PLAIN | sizes))
    found = train("gpu", device=DEVICE, **(PLAIN | options))
    assert losses(found) == pytest.approx(losses(expected), rel=tolerance)
    other = weights(found)
    for name, tensor in weights(expected).items():
        assert (tensor - other[name].cpu()).abs().max() <= tolerance * tensor.abs().max(), name


def test_fp16_finds_its_scale(train: Train) -> None:
    rows = read_metrics(train(device=DEVICE, epochs=8, **(PLAIN | {"precision": "fp16"})))
    steps = [row for row in rows if row["kind"] == "step"]
    assert len(steps) == 16 and all(row["grad_norm"] is not None for row in steps[-4:])
    assert rows[-1]["num_skipped_steps"] == sum(row["grad_norm"] is None for row in steps)


def test_a_run_resumes_on_a_gpu(train: Train) -> None:
    whole = train("whole", device=DEVICE, epochs=3, **PLAIN)
    train("parts", device=DEVICE, epochs=2, **PLAIN)
    parts = train("parts", device=DEVICE, epochs=3, resume=True, **PLAIN)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


def test_the_stall_test_measures_every_engine(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    words = ("--arch", "tiny", "--batch-size", 7, "--iter-size", 2, "--steps", 3, "--warmup", 1)
    words += ("--repeats", 3, "--device", DEVICE, "--json", file)
    code, out, error = cktrain("bench", tiny_dataset, *words)
    assert code == 0, error
    results = json.loads(file.read_text())["results"]
    assert len(results) == 6 and "real, in device memory" in out
    for result in results:
        assert all(math.isfinite(speed) and speed > 0 for speed in result["samples_per_s"])
        assert all(0 <= wait <= 100 for wait in result["data_wait_pct"])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("more", [(), ("--arch", "tiny-norm", "--sync-bn")], ids=["plain", "sync"])
def test_two_gpus_give_the_loss_curve_of_one(
    more: tuple[str, ...], tiny_dataset: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = ("--device", "cuda", "--loader", "cpu", "--batch-size", 4, "--dropout", 0, *more)
    words = [command(tiny_dataset, one, *options), torchrun(*command(tiny_dataset, two, *options))]
    for program in words:
        done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-2)
