"""Which precision is the faster one, and which devices there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from shard_builder.errors import InputError
from train.device import CUBLAS_VARIABLE, choose_device, choose_precision, make_deterministic

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("info", "precision"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", "bf16"),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16 amx_tile", "bf16"),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16", "fp32"),
        ("vendor_id : AuthenticAMD\nflags : avx2", "fp32"),
        (None, "fp32"),
    ],
)
def test_auto_takes_the_faster_precision_of_a_cpu(
    info: str | None, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.device.CPU_INFO", tmp_path / "cpuinfo")
    if info is not None:
        (tmp_path / "cpuinfo").write_text(info, encoding="utf-8")
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("fp16", CPU) == "fp16"


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == CPU
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(InputError, match=f"device='{missing}', but torch finds"):
        choose_device(missing)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Two GPUs of compute capability 7.0 and 8.0; the list notes which were made current."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7 + device.index, 0))
    return current


def test_the_gpu_of_a_process_is_its_current_one(gpus: list[torch.device]) -> None:
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("auto", local_rank=1, world_size=2) == torch.device("cuda", 1)
    assert choose_device("cpu", local_rank=1, world_size=2) == CPU
    assert gpus == [torch.device("cuda", 1)] * 2


def test_one_gpu_for_many_ranks_is_refused(gpus: list[torch.device]) -> None:
    with pytest.raises(InputError, match="device='cuda:1' is one GPU, but each of 2 ranks"):
        choose_device("cuda:1", local_rank=0, world_size=2)
    assert not gpus


def test_bf16_is_for_gpus_that_compute_in_it(gpus: list[torch.device]) -> None:
    old, new = torch.device("cuda", 0), torch.device("cuda", 1)
    assert [choose_precision("auto", device) for device in (old, new)] == ["fp16", "bf16"]
    assert choose_precision("fp16", old) == "fp16" and choose_precision("bf16", new) == "bf16"
    with pytest.raises(InputError, match=r"Tesla V100 has compute capability 7\.0, expected 8\.0"):
        choose_precision("bf16", old)


def test_deterministic_sets_what_cublas_wants_and_respects_what_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setenv(CUBLAS_VARIABLE, "")
    monkeypatch.delenv(CUBLAS_VARIABLE)
    make_deterministic()
    assert os.environ[CUBLAS_VARIABLE] == ":4096:8" and asked == [True]
    monkeypatch.setenv(CUBLAS_VARIABLE, ":16:8")
    make_deterministic()
    assert os.environ[CUBLAS_VARIABLE] == ":16:8"
    monkeypatch.setenv(CUBLAS_VARIABLE, ":0:0")
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG=':0:0', expected :4096:8 or"):
        make_deterministic()
