"""Which device and which precision: what was asked for, or what the hardware has."""

from __future__ import annotations

import torch

from pipelines.reading import find_device
from shard_builder.provenance import CPU_INFO, processor_name

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """Return a device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: If the name is unknown or there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return find_device(f"cuda:{local_rank}" if name == "cuda" else name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32``; ``auto`` takes what trains fastest."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if is_bf16_faster() else "fp32"


def is_bf16_faster() -> bool:
    """Return whether this CPU trains faster in bf16: with AMX, or with AMD's AVX512-BF16.

    Intel's AVX512-BF16 without AMX multiplies no faster than fp32 and converts besides; elsewhere
    bf16 is emulated.
    """
    info = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.is_file() else ""
    return "amx_bf16" in info or ("avx512_bf16" in info and "AuthenticAMD" in info)


def device_name(device: torch.device) -> str:
    """Return the name of the hardware, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()
