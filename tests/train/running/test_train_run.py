"""A run from its options: what its folder holds, and what is refused before it is there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.engines.cutter import CUTTER
from shard_builder.errors import InputError
from tests.train.tiny_net import SHORT, Train, make_tiny_net
from train.config import TrainConfig
from train.running.run_folder import read_metrics
from train.running.train_run import run_train


def test_a_run_folder_says_what_was_run_and_the_result(train: Train, tiny_dataset: Path) -> None:
    run = train(epochs=3, save_every=2, val_every=2)
    record = json.loads((run / "config.json").read_text())
    assert record["options"]["batch_size"] == 5 and record["options"]["lr_steps"] == [100, 200]
    assert record["split"]["num_train"] + record["split"]["num_val"] == 42
    assert record["cutter"] == CUTTER
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
    assert epochs[0]["between_s"] == 0 < epochs[2]["between_s"], "after a validation"
    assert epochs[0]["start_s"] > 0 == epochs[1]["start_s"], "the first batch of the process"
    assert (run / "epoch-0002.pt").is_file() and not (run / "epoch-0001.pt").exists()
    assert (run / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(run.glob("events.out.tfevents*"))
    assert not list(run.glob("*.tmp")) and not list(run.glob(".*"))
    content = torch.load(run / "best.pt", weights_only=True)
    assert content["classes"][0] == "anger" and content["flow"]["method"] == "dis"
    assert not set(content["train_keys"]) & set(content["val_keys"])
    assert not set(content["train_subjects"]) & {key[:4] for key in content["val_keys"]}


def test_a_run_finds_its_dataset_from_any_folder(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named as from a shell, ``dataset``: export and report looked below where they ran."""
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)
    monkeypatch.chdir(tiny_dataset.parent)
    config = TrainConfig(stream="flow", folds=3, **SHORT)  # type: ignore[arg-type]
    run_train(config, Path(tiny_dataset.name), tmp_path / "run", resume=False)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["dataset"]["path"] == str(tiny_dataset.absolute())


def test_tensorboard_has_scalars_inputs_and_the_confusion_matrix(train: Train) -> None:
    events = EventAccumulator(str(train()))
    events.Reload()
    assert {"epoch/loss", "epoch/val_accuracy", "epoch/data_wait_pct", "step/loss"} <= set(
        events.Tags()["scalars"]
    )
    assert {"inputs/flow-0", "validation/confusion"} <= set(events.Tags()["images"])


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
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": 0.0}, "lr=0.0, expected a number above 0"),
        ({"epochs": 0}, "epochs=0, expected 1 or more"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"lr_steps": (200, 100)}, r"lr_steps=\(200, 100\), expected rising"),
        ({"precision": "fp8"}, "precision='fp8', expected one of auto, bf16"),
        ({"class_weights": "some"}, "class_weights='some'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"batch_size": 64}, "batch_size=64, but the training part has 28"),
        ({"stack_length": 40}, "stack_length=40, but the longest"),
        ({"fold": 3}, "fold=3, expected an integer from 0 to 2"),
        ({"split": "kfold"}, "kind='kfold', expected"),
        ({"loader": "torch"}, "loader='torch', expected one of auto, dali, cpu"),
        ({"sync_bn": True, "fold": 9}, "fold=9"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    train: Train, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(**options)
    assert not (tmp_path / "run").exists()
