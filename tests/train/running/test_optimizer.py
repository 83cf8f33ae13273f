"""Optimizers, schedules, label smoothing, averaged weights, early stopping, and their resume."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from models.build import build_model
from shard_builder.errors import InputError
from tests.train.tiny_net import OPTIONS, Cktrain, Train, same, weights
from train.config import TrainConfig
from train.running.checkpoint import read_checkpoint, write_checkpoint
from train.running.optimizer import Schedule, load_optimizer, make_optimizer
from train.running.run_folder import read_metrics
from train.running.train_run import open_run

STEPS_PER_EPOCH = 2
"""28 training sequences in accumulations of 15."""


def rates(run: Path) -> list[float]:
    return [row["lr"] for row in read_metrics(run) if row["kind"] == "step"]


def half_cosine(part: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * part)) / 2


def test_cosine_falls_to_zero_and_rises_first(train: Train) -> None:
    run = train(epochs=5, schedule="cosine", warmup_epochs=2)
    expected = [
        0.05 * half_cosine(step / 10) * (1e-3 + (1 - 1e-3) * min(1, step / 4)) for step in range(10)
    ]
    assert rates(run) == pytest.approx(expected)


@pytest.mark.parametrize(("warmup_epochs", "peak"), [(0, 0.3 * 10), (2, 4)])
def test_one_cycle_rises_to_the_rate_and_falls_below_where_it_began(
    train: Train, warmup_epochs: int, peak: float
) -> None:
    run = train(epochs=5, val_every=5, schedule="one-cycle", warmup_epochs=warmup_epochs)
    low, high, last = 0.05 / 25, 0.05, 0.05 / 25 / 1e4
    expected = [
        high + (low - high) * half_cosine(step / (peak - 1))
        if step < peak
        else last + (high - last) * half_cosine((step - peak + 1) / (10 - peak))
        for step in range(10)
    ]
    assert rates(run) == pytest.approx(expected)


def test_steps_may_warm_up_too(train: Train) -> None:
    run = train(epochs=4, lr_steps=(3,), warmup_epochs=1)
    assert rates(run) == pytest.approx([5e-5, 0.025025, 0.05, 0.05, 0.05, 0.05, 0.005, 0.005])


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_one_cycle_of_few_steps_has_rates(epochs: int) -> None:
    model = build_model("tiny", num_classes=7, weights="none")
    config = TrainConfig(stream="flow", epochs=epochs, schedule="one-cycle")
    schedule = Schedule(make_optimizer(model, config), config, steps_per_epoch=1)
    seen = []
    for _ in range(epochs):
        schedule.advance()
        seen.append(schedule.lr)
    assert all(0 < lr <= config.lr * (1 + 1e-9) for lr in seen) and seen[-1] < config.lr


@pytest.mark.parametrize("schedule", ["steps", "cosine", "one-cycle"])
def test_rates_stay_after_the_last_step(schedule: str) -> None:
    model = build_model("tiny", num_classes=7, weights="none")
    config = TrainConfig(stream="flow", epochs=6, lr_steps=(2, 4), schedule=schedule)
    seen = []
    for num_steps in (6, 7, 8, 1 << 50):
        made = Schedule(make_optimizer(model, config), config, steps_per_epoch=1)
        made.advance(num_steps)
        seen.append(made.lr)
    assert len(set(seen)) == 1 and seen[0] < config.lr


@pytest.mark.parametrize(("kind", "made"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizers_have_their_rates_for_stem_head_and_rest(kind: str, made: type) -> None:
    model = build_model("tiny", num_classes=7, weights="none")
    options: dict[str, Any] = {"optimizer": kind, "momentum": 0.8, "weight_decay": 0.25, "lr": 0.5}
    config = TrainConfig(stream="flow", stem_lr_scale=2.0, head_lr_scale=3.0, **options)
    optimizer = make_optimizer(model, config)
    stem, head, rest = optimizer.param_groups
    assert type(optimizer) is made
    assert [group["lr"] for group in (stem, head, rest)] == [1.0, 1.5, 0.5]
    assert all(group["weight_decay"] == 0.25 for group in optimizer.param_groups)
    assert stem.get("momentum", stem.get("betas", [0])[0]) == 0.8
    assert {id(p) for p in stem["params"]} == {id(p) for p in model.conv.parameters()}
    assert {id(p) for p in head["params"]} == {id(p) for p in model.fc.parameters()}


def test_label_smoothing_is_in_the_loss_that_is_trained_and_not_in_validation(train: Train) -> None:
    rows = [
        read_metrics(train(f"{smoothing}", label_smoothing=smoothing, lr=1e-30))
        for smoothing in (0.0, 0.3, 0.6)
    ]
    none, some, more = (row[0]["loss"] for row in rows)
    assert some == pytest.approx((none + more) / 2) and abs(some - none) > 1e-3
    validation = [row[-1]["val_loss"] for row in rows]
    assert validation[0] == validation[1] == validation[2]


def test_averaged_weights_are_the_exponential_average_and_are_tested(train: Train) -> None:
    one_step = {"batch_size": 14, "iter_size": 2, "epochs": 4, "save_every": 1, "arch": "tiny-norm"}
    plain = train("plain", **one_step)
    averaged = train("averaged", ema=0.75, **one_step)
    expected = weights(plain, "epoch-0001.pt")
    for number in (2, 3, 4):
        for name, tensor in weights(plain, f"epoch-{number:04d}.pt").items():
            if tensor.is_floating_point():
                expected[name] = 0.75 * expected[name] + 0.25 * tensor
    for name, tensor in weights(averaged).items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
    content = torch.load(averaged / "last.pt", weights_only=True)
    assert same(content["unaveraged"], weights(plain))
    losses = [read_metrics(run)[-1]["val_loss"] for run in (plain, averaged)]
    assert losses[0] != losses[1]
    assert read_checkpoint(averaged / "best.pt").unaveraged is None


MODERN = {
    "schedule": "one-cycle",
    "optimizer": "adamw",
    "ema": 0.9,
    "label_smoothing": 0.1,
    "head_lr_scale": 5.0,
    "arch": "tiny-norm",
    "epochs": 4,
    "lr": 0.01,
}
MODERN_TOO = MODERN | {
    "schedule": "cosine",
    "warmup_epochs": 2,
    "optimizer": "sgd",
    "aug": "strong",
    "sampling": "balanced",
}


@pytest.mark.parametrize("options", [MODERN, MODERN_TOO], ids=["adamw", "sgd"])
def test_stopped_and_resumed_a_modern_run_ends_in_the_same_bits(
    train: Train, tiny_dataset: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Stopped at an epoch's end, and in the middle of another."""
    whole = train("whole", **options)
    config = TrainConfig(stream="flow", **(OPTIONS | options))
    parts = tmp_path / "parts"
    for at_step, number in ((1, signal.SIGTERM), (4, signal.SIGUSR1)):

        def stop(row: dict[str, Any], at_step: int = at_step, number: int = number) -> None:
            if row["step"] == at_step:
                signal.raise_signal(number)

        with open_run(config, tiny_dataset, parts, resume=at_step > 1) as run:
            assert run.train(on_row=stop).exit_code == 128 + number
            assert run.session.progress.step == at_step + 1, (
                "a stop between steps ends with the next"
            )
    train("parts", resume=True, **options)
    assert same(weights(whole), weights(parts))
    unaveraged = [read_checkpoint(run / "last.pt").unaveraged for run in (whole, parts)]
    assert unaveraged[0] and unaveraged[1] and same(unaveraged[0], unaveraged[1])
    assert rates(whole) == rates(parts)


def test_a_schedule_over_all_epochs_keeps_their_number(train: Train) -> None:
    train(epochs=2, schedule="cosine")
    with pytest.raises(InputError, match="epochs=3, but the run was begun with 2"):
        train(epochs=3, resume=True)


def test_training_ends_early_once_the_validation_loss_no_longer_falls(
    cktrain: Cktrain, tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    line = [word for n, v in OPTIONS.items() for word in (f"--{n.replace('_', '-')}", v)]
    line += ["--epochs", 9, "--lr", 1e-30, "--out", out]
    code, text, error = cktrain("flow", tiny_dataset, *line, "--early-stop", 2)
    assert code == 0, error
    assert "stopped early after epoch 3: the validation loss has not fallen below" in text
    assert "went by between epochs (validation, checkpoints)" in " ".join(text.split())
    assert [row["epoch"] for row in read_metrics(out) if row["kind"] == "epoch"] == [1, 2, 3]
    assert read_checkpoint(out / "last.pt").epoch == 3
    code, text, error = cktrain("flow", tiny_dataset, *line, "--resume", "--early-stop", 0)
    assert code == 0 and "stopped early" not in text, error
    assert read_metrics(out)[-1]["epoch"] == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adam"}, "optimizer='adam', expected one of sgd, adamw"),
        ({"schedule": "linear"}, "schedule='linear', expected one of steps, cosine, one-cycle"),
        ({"warmup_epochs": 2}, "warmup_epochs=2, expected fewer than 2 epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0, expected 0 or more and less than 1"),
        ({"ema": float("nan")}, "ema=nan, expected 0 or more and less than 1"),
        ({"head_lr_scale": 0.0}, "head_lr_scale=0.0, expected a number above 0"),
        ({"early_stop": -1}, "early_stop=-1, expected 0 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainConfig(stream="flow", **({"epochs": 2} | options))


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [None, 3, torch.zeros(2)])
def test_a_state_of_adamw_that_is_none_is_named(train: Train, name: str, value: object) -> None:
    run = train(epochs=1, optimizer="adamw")
    content = torch.load(run / "last.pt", weights_only=True)
    content["optimizer"]["state"][1][name] = value
    write_checkpoint(run / "last.pt", content)
    with pytest.raises(InputError, match=rf"optimizer\.state\[1\]\.{name}: .*expected"):
        train(epochs=2, resume=True)


def test_a_state_of_another_optimizer_is_refused() -> None:
    model = build_model("tiny", num_classes=7, weights="none")
    config = TrainConfig(stream="flow", optimizer="adamw")
    optimizer = make_optimizer(model, config)
    state = {"state": {0: {"momentum_buffer": torch.zeros(8, 10, 7, 7)}}}
    with pytest.raises(InputError, match=r"run.pt: optimizer.state\[0\].step: NoneType"):
        load_optimizer(optimizer, state, kind="adamw", origin=Path("run.pt"))
