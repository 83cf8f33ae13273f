"""One optimizer step: fp16 unscales before clipping, skips infinite steps, and steps once per
accumulation."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch

from train.running.amp import autocast, gradient_norm, make_scaler, take_step

CPU = torch.device("cpu")


def one_weight(
    gradient: float, *, scale: float = 1.0
) -> tuple[torch.nn.Parameter, torch.optim.SGD]:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([gradient * scale])
    return weight, torch.optim.SGD([weight], lr=0.1)


class Result(NamedTuple):
    is_taken: bool
    grad_norm: float


def optimizer_step(
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_grad: float,
) -> Result:
    norm = float(gradient_norm(parameters, optimizer, scaler, clip_grad=clip_grad))
    take_step(optimizer, scaler, is_finite=math.isfinite(norm))
    return Result(math.isfinite(norm), norm)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)],
)
def test_autocast_runs_the_net_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, precision):
        assert layer(torch.rand(2, 4)).dtype == dtype


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_without_fp16_a_step_is_plain_sgd(precision: str) -> None:
    weight, optimizer = one_weight(3.0)
    result = optimizer_step([weight], optimizer, make_scaler(CPU, precision), clip_grad=0)
    assert result.is_taken and result.grad_norm == 3.0
    assert weight.item() == pytest.approx(1 - 0.1 * 3)
    assert weight.grad is None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_unscaled_before_they_are_clipped(precision: str) -> None:
    scaler = make_scaler(CPU, precision)
    scale = float(scaler.scale(torch.tensor(1.0)))
    assert (scale > 1) == (precision == "fp16")
    weight, optimizer = one_weight(4.0, scale=scale)
    result = optimizer_step([weight], optimizer, scaler, clip_grad=2.0)
    assert result.grad_norm == pytest.approx(4.0)
    assert weight.item() == pytest.approx(1 - 0.1 * 2.0)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_fp16_skips_a_step_that_is_not_finite_and_halves_the_scale(bad: float) -> None:
    scaler = make_scaler(CPU, "fp16")
    scale = float(scaler.scale(torch.tensor(1.0)))
    weight, optimizer = one_weight(bad)
    result = optimizer_step([weight], optimizer, scaler, clip_grad=1.0)
    assert not result.is_taken
    assert weight.item() == 1.0
    assert scaler.get_scale() == scale / 2


def test_fp16_halves_the_scale_where_only_the_norm_is_not_finite() -> None:
    """Each gradient is, so torch's scaler by itself would double its scale in time."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full_like(weight, 3e38)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1)
    scaler.scale(weight.new_ones(()))
    result = optimizer_step([weight], optimizer, scaler, clip_grad=0)
    assert not result.is_taken and weight.tolist() == [1.0, 1.0]
    assert scaler.get_scale() == 0.5 and weight.grad is None


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_without_fp16_a_gradient_that_is_not_finite_moves_nothing_and_is_told(bad: float) -> None:
    weight, optimizer = one_weight(bad)
    result = optimizer_step([weight], optimizer, make_scaler(CPU, "bf16"), clip_grad=0)
    assert not result.is_taken and weight.item() == 1.0


def test_one_step_per_accumulation_sums_its_gradients() -> None:
    scaler = make_scaler(CPU, "fp16")
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for part in (1.0, 2.0, 3.0):
        scaler.scale(weight.sum() * part).backward()
    assert optimizer_step([weight], optimizer, scaler, clip_grad=0).grad_norm == pytest.approx(6.0)
    assert weight.item() == pytest.approx(1 - 0.6)


def test_gradients_that_are_not_clipped_are_not_multiplied() -> None:
    """Its mark of change counts every write in place."""
    weight, optimizer = one_weight(3.0)
    scaler, version = make_scaler(CPU, "fp32"), weight.grad._version
    assert float(gradient_norm([weight], optimizer, scaler, clip_grad=0)) == 3.0
    assert weight.grad._version == version
    gradient_norm([weight], optimizer, scaler, clip_grad=1)
    assert weight.grad._version > version and weight.grad.item() == pytest.approx(1, abs=1e-5)
