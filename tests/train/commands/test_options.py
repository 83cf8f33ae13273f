"""The command line of a training is its configuration: every field, in rgb, flow, cv and bench."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pipelines.engines.resident import ResidentEngine
from pipelines.plan.sampling import Augmentation, ClassFrequencies
from pipelines.reading import Cache, EngineName, OnError
from tests.train.tiny_net import OPTIONS, Cktrain
from train.config import CHOICES, TrainConfig
from train.running.run_folder import read_metrics

GIVEN = {
    "arch": "resnet18",
    "weights": "none",
    "original_head": True,
    "dropout": 0.25,
    "partial_bn": True,
    "sync_bn": True,
    "epochs": 7,
    "batch_size": 3,
    "read_ahead": 2,
    "shard_cache": "blocks",
    "shard_cache_bytes": 1 << 20,
    "iter_size": 2,
    "lr": 0.5,
    "lr_steps": (3, 5),
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_epochs": 2,
    "momentum": 0.25,
    "weight_decay": 0.125,
    "stem_lr_scale": 5.0,
    "head_lr_scale": 4.0,
    "label_smoothing": 0.25,
    "ema": 0.75,
    "early_stop": 3,
    "clip_grad": 20.0,
    "class_weights": "balanced",
    "untrained": "wrong",
    "val_every": 2,
    "stack_length": 3,
    "rgb_apex_frames": 3,
    "aug": "original",
    "sampling": "balanced",
    "split": "loso",
    "folds": 4,
    "fold": 1,
    "subject": "S005",
    "seed": 9,
    "loader": "cpu",
    "cache": "ram",
    "cache_bytes": 1 << 20,
    "workers": 2,
    "on_error": "skip",
    "precision": "fp32",
    "device": "cpu",
    "compile": True,
    "deterministic": True,
    "save_every": 4,
    "log_every": 6,
}
SET_BY_CV = {"split", "folds", "fold", "subject"}


def words(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return [flag]
    return [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


class Stopped(Exception):
    pass


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library is called with, in place of a training."""
    calls: dict[str, Any] = {}

    def stop(config: TrainConfig, *arguments: object, **options: object) -> None:
        calls.update(options, config=config)
        raise Stopped

    monkeypatch.setattr("train.running.train_run.open_run", stop)
    monkeypatch.setattr("train.evaluation.cross_validate.run_folds", stop)
    return calls


def test_every_field_is_given_another_value_here() -> None:
    assert GIVEN.keys() == {field.name for field in fields(TrainConfig)} - {"stream"}
    assert not [
        f.name for f in fields(TrainConfig) if f.name in GIVEN and GIVEN[f.name] == f.default
    ]


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("name", GIVEN)
def test_every_option_reaches_the_configuration(
    cktrain: Cktrain, taken: dict[str, Any], stream: str, name: str
) -> None:
    cktrain(stream, "dataset", "--out", "run", *words(name, GIVEN[name]))
    assert taken["config"] == TrainConfig(stream=stream, **{name: GIVEN[name]})  # type: ignore[arg-type]
    assert taken["given"] == {name}


def test_cv_takes_the_options_of_a_training_but_for_the_split(
    cktrain: Cktrain, taken: dict[str, Any]
) -> None:
    chosen = {name: value for name, value in GIVEN.items() if name not in SET_BY_CV}
    line = [word for name, value in chosen.items() for word in words(name, value)]
    cktrain("cv", "flow", "dataset", "--out", "cv", *line)
    assert taken["config"] == TrainConfig(stream="flow", **chosen)  # type: ignore[arg-type]
    assert "--fold " not in cktrain("cv", "--help")[1]


def test_help_says_what_each_field_is(cktrain: Cktrain) -> None:
    text = " ".join(cktrain("flow", "--help")[1].split())
    for field in fields(TrainConfig):
        if field.name != "stream":
            assert words(field.name, True)[0] in text
            assert field.metadata["help"] in text


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--lr=0", "--lr 0.0, expected a number above 0"),
        ("--lr-steps=200,100", "--lr-steps 200,100, expected rising epochs"),
        ("--lr-steps=x", "--lr-steps x, expected numbers such as 100,200"),
        ("--precision=fp8", "--precision fp8, expected one of auto, bf16, fp16, fp32"),
        ("--loader=torch", "--loader torch, expected one of auto, dali, cpu"),
        ("--device=tpu", "--device tpu, expected cpu or cuda"),
        ("--split=kfold", "--split kfold, expected subject-kfold, loso"),
        ("--batch-size=64", "--batch-size 64, but the training part has 28"),
        ("--cache=disk", "--cache disk, expected one of none, ram, device"),
        ("--cache-bytes=-1", "--cache-bytes -1, expected 0 or more"),
        ("--cache=device --cache-bytes=1000", "--cache device: "),
        ("--cache=device --loader=dali", "--loader dali with --cache device, but"),
        ("--workers=5000", "--workers 5000, expected 4096 or less"),
        ("--ema=1", "--ema 1.0, expected 0 or more and less than 1"),
        ("--warmup-epochs=250", "--warmup-epochs 250, expected fewer than 250 epochs"),
        ("--arch=timm/resnet17", "--arch timm/resnet17, expected timm/ and a net of timm"),
        ("--aug=mixup", "--aug mixup, expected one of standard, strong, original"),
    ],
)
def test_errors_name_flags(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path, option: str, words: str
) -> None:
    line = ("--weights", "none", "--folds", 3, *option.split())
    code, _, error = cktrain("flow", tiny_dataset, "--out", tmp_path / "run", *line)
    assert code == 2 and error.startswith(f"cktrain: error: {words}")
    assert not (tmp_path / "run").exists()


def test_planes_that_do_not_fit_on_the_device_are_refused_with_their_sum(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    line = ("--weights", "none", "--folds", 3, "--cache", "device", "--cache-bytes", 1000)
    code, _, error = cktrain("flow", tiny_dataset, "--out", tmp_path / "run", *line)
    planes = re.search(
        r"--cache device: (\d+) planes of 28 sequences take (\d+) x 87040 = (\d+) bytes, but"
        r" --cache-bytes 1000 are allowed\n  Use --cache ram, or allow more: --cache-bytes N",
        error,
    )
    assert code == 2 and planes
    assert planes[1] == planes[2] and int(planes[1]) * 87040 == int(planes[3])


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_run_with_its_planes_on_the_device_is_the_same_but_for_rounding(
    cktrain: Cktrain,
    tiny_dataset: Path,
    tmp_path: Path,
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuts = []
    cut = ResidentEngine._cut
    monkeypatch.setattr(ResidentEngine, "_cut", lambda *a: cuts.append(a) or cut(*a))
    losses = []
    for cache in ("none", "device"):
        out = tmp_path / cache
        line = [word for name, value in OPTIONS.items() for word in words(name, value)]
        code, _, error = cktrain(stream, tiny_dataset, "--out", out, "--cache", cache, *line)
        assert code == 0, error
        rows = [row for row in read_metrics(out) if row["kind"] == "epoch"]
        losses.append([(row["loss"], row["val_loss"]) for row in rows])
        assert (len(cuts) > 0) == (cache == "device")
    assert len(losses[0]) == 2 and np.allclose(*losses, atol=1e-3)


def test_choices_are_those_of_the_loader() -> None:
    choices = {"loader": EngineName, "cache": Cache, "on_error": OnError, "aug": Augmentation}
    choices["sampling"] = ClassFrequencies
    for name, kind in choices.items():
        assert CHOICES[name] == get_args(kind)
