"""Many ranks by torchrun: the same curve as one process, and one that dies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from tests.train.tiny_net import (
    ENVIRONMENT,
    PROGRAM,
    Cktrain,
    Train,
    command,
    wait_for_step,
    weights,
)
from train.distributed import join_ranks
from train.running.run_folder import read_metrics


def torchrun(*words: str, ranks: int = 2) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *words[1:],
    ]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The second rank of two; the list notes what is asked of torch.distributed."""
    calls: list[tuple[object, ...]] = []
    for name, value in (("RANK", 1), ("LOCAL_RANK", 1), ("WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(
        dist,
        "init_process_group",
        lambda backend, *, timeout, device_id: calls.append((backend, device_id)),
    )
    # Joined: begun, and neither destroyed nor aborted since.
    monkeypatch.setattr(dist, "is_initialized", lambda: len(calls) % 2 == 1)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append(("destroy",)))
    monkeypatch.setattr(
        dist.distributed_c10d, "_abort_process_group", lambda: calls.append(("abort",))
    )
    return calls


@pytest.mark.parametrize(
    ("device", "backend"), [(torch.device("cuda", 1), "nccl"), (torch.device("cpu"), "gloo")]
)
def test_a_group_knows_its_device_and_is_aborted_after_an_error(
    device: torch.device, backend: str, group: list[tuple[object, ...]]
) -> None:
    begun = (backend, device if backend == "nccl" else None)
    with join_ranks(device) as ranks:
        assert (ranks.rank, ranks.world_size) == (1, 2)
    assert group == [begun, ("destroy",)]
    group.clear()
    with pytest.raises(KeyboardInterrupt), join_ranks(device):
        raise KeyboardInterrupt
    assert group == [begun, ("abort",)]


def test_a_gpu_by_number_is_refused_under_torchrun_also_where_the_run_says_so(
    train: Train,
    cktrain: Cktrain,
    tiny_dataset: Path,
    group: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    run = train(epochs=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    record = json.loads((run / "config.json").read_text())
    record["options"]["device"] = "cuda:1"
    (run / "config.json").write_text(json.dumps(record))
    for words in (("--out", run, "--resume"), ("--out", run.parent / "new", "--device", "cuda:1")):
        code, _, err = cktrain("flow", tiny_dataset, *words)
        assert code == 2 and "is one GPU, but each of 2 ranks needs its own" in err
        assert len(err.strip().splitlines()) == 1
    assert not group


@pytest.mark.slow
def test_two_ranks_give_the_loss_curves_of_one_process_and_one_tests(
    train: Train, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The same global batch of 4, on one rank and on two, with remainders: 28 samples in steps of
    12, 12 and 4."""
    both = tmp_path / "both"
    more = ("--batch-size", 4, "--dropout", 0, "--epochs", 2)
    done = subprocess.run(
        torchrun(*command(tiny_dataset, both, *more, stream="both")),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 2, "only the first rank speaks"
    assert done.stdout.count("McNemar") == 1
    assert json.loads((both / "test" / "test.json").read_text())["num_sequences"] == 14
    for stream in ("rgb", "flow"):
        one, two = train(stream, stream=stream, batch_size=4, dropout=0.0), both / stream
        rows = [[row for row in read_metrics(run) if row["kind"] == "epoch"] for run in (one, two)]
        for left, right in zip(*rows, strict=True):
            assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
            assert left["val_loss"] == pytest.approx(right["val_loss"], rel=1e-5)
            assert left["val_accuracy"] == right["val_accuracy"]
        for name, tensor in weights(one).items():
            torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_ranks_train_with_partial_bn(tiny_dataset: Path, tmp_path: Path) -> None:
    """A wrapped net waits for the gradients of every weight that it was wrapped with."""
    out = tmp_path / "run"
    more = ("--arch", "tiny-norm", "--partial-bn", "--batch-size", 4)
    done = subprocess.run(
        torchrun(*command(tiny_dataset, out, *more)),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert max(row["step"] for row in read_metrics(out)) == 6
    trained = weights(out)
    assert torch.equal(trained["second_norm.running_mean"], torch.zeros(8))
    assert torch.equal(trained["second_norm.weight"], torch.ones(8))
    assert not torch.equal(trained["first_norm.running_mean"], torch.zeros(8))
    assert not torch.equal(trained["first_norm.weight"], torch.ones(8))


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_a_message(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        torchrun(*command(tiny_dataset, out, "--batch-size", 4, "--epochs", 100000)),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_step(out, 2, process)
    ranks = [
        child for child in psutil.Process(process.pid).children() if str(PROGRAM) in child.cmdline()
    ]
    assert len(ranks) == 2
    ranks[1].kill()
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "cktrain: error" in output or "Signal 9 (SIGKILL)" in output
