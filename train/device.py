"""Which device and which precision: what was asked for, or what the hardware has."""

from __future__ import annotations

import torch

from shard_builder.errors import InputError
from shard_builder.provenance import CPU_INFO, processor_name

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """Return a device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU if there is one.

    Raises:
        InputError: If the name is unknown or there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name!r}, expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = local_rank if device.index is None else device.index
        if index >= count:
            raise InputError(f"--device {name}: GPU {index} is asked for, this machine has {count}")
        return torch.device("cuda", index)
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32``; ``auto`` is bf16 where it is not emulated, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX); elsewhere it is emulated and slow."""
    flags = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def device_name(device: torch.device) -> str:
    """Return the name of the hardware, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()
