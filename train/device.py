"""Which device and which precision: what was asked for, or what the hardware has."""

from __future__ import annotations

import os

import torch

from pipelines.reading import find_device
from shard_builder.errors import InputError
from shard_builder.provenance import CPU_INFO, processor_name

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_REPEATABLE = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS repeats its results bit for bit; it reads them when it starts.

Source: NVIDIA, cuBLAS documentation, Results Reproducibility.
"""


def choose_device(name: str, *, local_rank: int = 0, world_size: int = 1) -> torch.device:
    """Return a device for ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    A GPU becomes the current one: pinned memory, streams and NCCL belong to that.

    Raises:
        InputError: If the name is unknown, there is no such GPU, or one GPU is named for many
            ranks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if world_size > 1 and name.startswith("cuda:"):
        raise InputError(
            f"device={name!r} is one GPU, but each of {world_size} ranks needs its own; expected"
            " auto, cuda or cpu"
        )
    device = find_device(f"cuda:{local_rank}" if name == "cuda" else name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def make_deterministic() -> None:
    """Let torch only use algorithms that repeat bit for bit; call it before CUDA starts.

    Raises:
        InputError: If the environment asks cuBLAS for another workspace.
    """
    found = os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_REPEATABLE[0])
    if found not in CUBLAS_REPEATABLE:
        raise InputError(
            f"deterministic=True, but {CUBLAS_VARIABLE}={found!r}, expected"
            f" {' or '.join(CUBLAS_REPEATABLE)}, or not to be set"
        )
    torch.use_deterministic_algorithms(True)


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32``; ``auto`` takes what trains fastest.

    Raises:
        InputError: If the GPU would only emulate bf16.
    """
    if device.type == "cuda" and name in ("auto", "bf16"):
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) >= (8, 0):
            return "bf16"
        if name == "bf16":
            raise InputError(
                f"precision='bf16', but {torch.cuda.get_device_name(device)} has compute"
                f" capability {major}.{minor}, expected 8.0 or more\n  Use precision='fp16'."
            )
        return "fp16"
    if name != "auto":
        return name
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
