"""Which precision is the faster one, and which devices there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shard_builder.errors import InputError
from train.device import choose_device, choose_precision

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
