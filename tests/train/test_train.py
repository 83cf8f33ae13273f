"""Training: what a run folder holds, accumulation, exact resume, what is refused, many ranks."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shard_builder.errors import InputError, TrainingError
from tests.tiny_net_cktrain import TinyNet, make_tiny_net
from train.config import TrainConfig
from train.running.run_folder import read_metrics
from train.running.train_run import run_train

TINY = Path(__file__).parent.parent / "tiny_net_cktrain.py"
OPTIONS = {
    "arch": "tiny",
    "weights": "none",
    "epochs": 2,
    "batch_size": 5,
    "iter_size": 3,
    "folds": 3,
    "lr": 0.05,
}
OPTIONS |= {"precision": "fp32", "dropout": 0.5, "workers": 1, "val_every": 1, "log_every": 1}
Train = Callable[..., Path]


@pytest.fixture
def train(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A function that trains the tiny net in this process and returns the run folder."""
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)

    def run(
        name: str = "run", *, stream: str = "flow", resume: bool = False, **options: object
    ) -> Path:
        config = TrainConfig(stream=stream, **(OPTIONS | options))  # type: ignore[arg-type]
        assert (
            run_train(config, tiny_dataset, tmp_path / name, resume=resume, given=set(options)) == 0
        )
        return tmp_path / name

    return run


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return torch.load(run / name, weights_only=True)["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def command(dataset: Path, out: Path, *more: object, stream: str = "flow") -> list[str]:
    words = [sys.executable, str(TINY), stream, str(dataset), "--out", str(out)]
    for name, value in OPTIONS.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words + [str(word) for word in more]


ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TINY.parent.parent}", "OMP_NUM_THREADS": "1"}


def test_a_run_folder_says_what_was_run_and_what_came_of_it(
    train: Train, tiny_dataset: Path
) -> None:
    run = train(epochs=3, save_every=2, val_every=2)
    record = json.loads((run / "config.json").read_text())
    assert record["options"]["batch_size"] == 5 and record["options"]["lr_steps"] == [100, 200]
    assert record["split"]["num_train"] + record["split"]["num_val"] == 42
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(record["dataset"]["manifest_sha256"]) == len(record["split"]["sha256"]) == 64
    rows = read_metrics(run)
    epochs = [row for row in rows if row["kind"] == "epoch"]
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    # 28 training sequences: accumulations of 15 and of the remaining 13
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["val_loss"] is not None for row in epochs] == [False, True, True]
    for row in epochs:
        assert math.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1
        assert 0 <= row["data_wait_pct"] <= 100
        assert 0 < row["samples_per_s"] <= row["compute_samples_per_s"]
    assert (run / "epoch-0002.pt").is_file() and not (run / "epoch-0001.pt").exists()
    assert (run / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(run.glob("events.out.tfevents*"))
    assert not list(run.glob("*.tmp")) and not list(run.glob(".*"))
    content = torch.load(run / "best.pt", weights_only=True)
    assert content["classes"][0] == "anger" and content["flow"]["method"] == "dis"
    assert not set(content["train_keys"]) & set(content["val_keys"])
    assert not set(content["train_subjects"]) & {key[:4] for key in content["val_keys"]}


def test_tensorboard_has_scalars_inputs_and_the_confusion_matrix(train: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(train()))
    events.Reload()
    assert {"epoch/loss", "epoch/val_accuracy", "epoch/data_wait_pct", "step/loss"} <= set(
        events.Tags()["scalars"]
    )
    assert {"inputs/flow-0", "validation/confusion"} <= set(events.Tags()["images"])


class DoubleConvNet(TinyNet):
    """The tiny net with its convolution in double precision: in single, the order of a sum over all
    pixels shows in its bias."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        convolved = torch.nn.functional.conv2d(
            images.double(), self.conv.weight.double(), self.conv.bias.double(), self.conv.stride
        )
        return self.fc(convolved.relu().mean(dim=(2, 3)).float())


def test_accumulation_equals_one_large_batch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 samples in one batch or in three give the same step, also where the epoch's remainder is
    smaller."""
    monkeypatch.setattr("models.build._torchvision_model", lambda arch: DoubleConvNet())
    small = train("small", batch_size=5, iter_size=3, dropout=0.0)
    large = train("large", batch_size=15, iter_size=1, dropout=0.0)
    for name, tensor in weights(small).items():
        torch.testing.assert_close(tensor, weights(large)[name], rtol=1e-4, atol=1e-6)
    losses = [[row["loss"] for row in read_metrics(run)] for run in (small, large)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_learning_rate_drops_at_the_steps(train: Train) -> None:
    run = train(epochs=3, lr_steps=(1, 2), stem_lr_scale=5.0)
    rows = [row["lr"] for row in read_metrics(run) if row["kind"] == "epoch"]
    assert rows == pytest.approx([0.05, 0.005, 0.0005])
    groups = torch.load(run / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert groups[0]["lr"] == pytest.approx(5 * groups[1]["lr"])


def test_a_run_is_the_same_again_and_another_with_another_seed(train: Train) -> None:
    first = weights(train("a"))
    assert same(first, weights(train("b")))
    assert not same(first, weights(train("c", seed=1)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_what_fp32_learns(train: Train, precision: str) -> None:
    rows = [
        read_metrics(train(name, precision=name, dropout=0.0))[-1] for name in ("fp32", precision)
    ]
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=0.02)


def test_balanced_class_weights_have_mean_one_over_the_training_part(tiny_dataset: Path) -> None:
    from pipelines.dataset import open_dataset
    from shard_builder.split import Split
    from train.running.classes import weights_of_classes

    with open_dataset(tiny_dataset) as dataset:
        split = Split(kind="list", train=tuple(dataset.keys[:17]), val=tuple(dataset.keys[17:]))
        balanced = weights_of_classes(dataset, split, "balanced")
        labels = dataset.labels[dataset.rows_of(split.train)]
        assert sum(balanced[label] for label in labels) == pytest.approx(17)
        counts = {label: (labels == label).sum() for label in set(labels.tolist())}
        assert len({round(balanced[label] * count, 9) for label, count in counts.items()}) == 1
        assert weights_of_classes(dataset, split, "none") == [1.0] * 7


def test_resume_goes_on_with_the_options_of_the_run(train: Train) -> None:
    whole = train("whole", epochs=4)
    train("parts", epochs=2)
    parts = train("parts", epochs=4, resume=True)
    assert same(weights(whole), weights(parts))
    rows = [[row for row in read_metrics(run) if row["kind"] == "epoch"] for run in (whole, parts)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


def test_resume_drops_the_rows_that_a_kill_left_behind(train: Train) -> None:
    run = train(epochs=2)
    ahead = {"kind": "epoch", "epoch": 3, "step": 6, "loss": 9.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "epoch": 3, "step": 5, "loss": 9.0}) + "\n")
        file.write(json.dumps(ahead) + "\n" + '{"kind": "st')
    train(epochs=3, resume=True)
    epochs = [row["epoch"] for row in read_metrics(run) if row["kind"] == "epoch"]
    assert epochs == [1, 2, 3]
    assert all(row["loss"] != 9.0 for row in read_metrics(run))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 6}, "--batch-size 6, but the run was begun with 5"),
        ({"lr": 0.1}, "--lr 0.1, but the run was begun with 0.05"),
        ({"stack_length": 3}, "--stack-length 3, but the run was begun with 5"),
        ({"stream": "rgb"}, "is a run of the flow stream, expected rgb"),
    ],
)
def test_resume_refuses_another_experiment(
    train: Train, options: dict[str, object], words: str
) -> None:
    train(epochs=1)
    with pytest.raises(InputError, match=words):
        train(resume=True, **options)


def test_a_run_that_is_there_is_refused_and_nothing_is_lost(train: Train) -> None:
    run = train(epochs=1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a run already"):
        train(epochs=1)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "config.json").unlink()
    with pytest.raises(InputError, match="is not empty"):
        train(epochs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": float("nan")}, "--lr nan"),
        ({"lr": 0.0}, "--lr 0.0, expected a number above 0"),
        ({"epochs": 0}, "--epochs 0, expected 1 or more"),
        ({"momentum": 1.0}, "--momentum 1.0"),
        ({"lr_steps": (200, 100)}, "--lr-steps 200,100, expected rising"),
        ({"precision": "fp8"}, "--precision 'fp8', expected one of auto, bf16"),
        ({"class_weights": "some"}, "--class-weights 'some'"),
        ({"device": "tpu"}, "--device 'tpu'"),
        ({"batch_size": 64}, "batch_size=64, but the training part has 28"),
        ({"stack_length": 40}, "stack_length=40, but the longest"),
        ({"fold": 3}, "--fold 3, expected 0 to 2"),
        ({"split": "kfold"}, "split 'kfold', expected"),
        ({"loader": "torch"}, "engine='torch'"),
        ({"sync_bn": True, "fold": 9}, "--fold 9"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    train: Train, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(**options)
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_never_trained_is_refused(
    train: Train, tiny_dataset: Path, tmp_path: Path
) -> None:
    from pipelines.dataset import open_dataset
    from shard_builder.split import Split, write_split

    with open_dataset(tiny_dataset) as dataset:
        fear = {key for key, label in zip(dataset.keys, dataset.labels, strict=True) if label == 3}
        split = Split(kind="list", train=tuple(set(dataset.keys) - fear), val=tuple(fear))
    write_split(tmp_path / "split.json", split)
    with pytest.raises(
        InputError, match="class fear: 6 sequences in validation and none in training"
    ):
        train(split=str(tmp_path / "split.json"))


def test_a_loss_that_is_not_finite_stops_before_the_step(train: Train) -> None:
    with pytest.raises(
        TrainingError, match=r"(loss|gradient norm) is (nan|inf) in epoch \d+, step \d+.*not taken"
    ):
        train(lr=1e30, epochs=50, momentum=0.0)


LONG = ("--epochs", 12, "--deterministic", "--save-every", 1)


@pytest.fixture(scope="module")
def undisturbed(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = subprocess.run(
        command(tiny_dataset, run, *LONG), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_anywhere_and_resumed_a_run_ends_in_the_same_weights(
    number: signal.Signals, tiny_dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        command(tiny_dataset, out, *LONG),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_rows(out, 4, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number, output
        assert "is saved, resume with --resume" in output
    assert torch.load(out / "last.pt", weights_only=True)["progress"]["epoch"] < 12
    done = subprocess.run(
        command(tiny_dataset, out, *LONG, "--resume"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert same(weights(out), weights(undisturbed))
    losses = [
        [row["loss"] for row in read_metrics(run) if row["kind"] == "epoch"]
        for run in (out, undisturbed)
    ]
    assert losses[0] == losses[1]


def wait_for_rows(
    run: Path, count: int, process: subprocess.Popen[str] | subprocess.Popen[bytes]
) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(run)) < count:
        assert process.poll() is None, "training ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def torchrun(*words: str, ranks: int = 2) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *words[1:],
    ]


@pytest.mark.slow
def test_two_ranks_give_the_loss_curve_of_one_process(tiny_dataset: Path, tmp_path: Path) -> None:
    """The same global batch of 4, on one rank and on two, with remainders: 28 samples in steps of
    12, 12 and 4."""
    one, two = tmp_path / "one", tmp_path / "two"
    more = ("--batch-size", 4, "--dropout", 0, "--epochs", 3)
    single = subprocess.run(
        command(tiny_dataset, one, *more), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert single.returncode == 0, single.stderr
    double = subprocess.run(
        torchrun(*command(tiny_dataset, two, *more)),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert double.returncode == 0, double.stderr
    assert double.stdout.count("epoch 3/3") == 1, "only the first rank speaks"
    rows = [[row for row in read_metrics(run) if row["kind"] == "epoch"] for run in (one, two)]
    for left, right in zip(*rows, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert left["val_loss"] == pytest.approx(right["val_loss"], rel=1e-5)
        assert left["val_accuracy"] == right["val_accuracy"]
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-3, atol=1e-5)


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
    wait_for_rows(out, 2, process)
    import psutil

    ranks = [
        child for child in psutil.Process(process.pid).children() if str(TINY) in child.cmdline()
    ]
    assert len(ranks) == 2
    ranks[1].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "cktrain: error" in output or "Signal 9 (SIGKILL)" in output
