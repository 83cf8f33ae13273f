"""How samples are read: options that decide none of them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from shard_builder.checks import check_choice, check_integer, check_path
from shard_builder.errors import InputError
from shard_builder.machine import num_usable_cores

EngineName = Literal["auto", "dali", "cpu"]
Cache = Literal["none", "ram", "device"]
OnError = Literal["raise", "skip"]
RAM_BYTES = 4 << 30
SHARD_CACHE_BYTES = 64 << 30
DTYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How batches are made; the samples in them are the same whatever is chosen.

    Args:
        engine: ``auto``, ``dali`` or ``cpu``; ``auto`` takes DALI where a GPU and DALI are.
        device: Where batches go: ``cpu``, ``cuda``, ``cuda:1`` or a ``torch.device``.
        dtype: ``torch.uint8`` levels, or ``float32``, ``bfloat16``, ``float16``: normalised.
        num_threads: Decoding threads; None takes all cores of this process.
        prefetch_depth: Batches in progress ahead of the one handed over.
        cache: ``ram`` keeps decoded planes; ``dali`` then takes them from there. ``device`` keeps
            those of the whole part in the device's memory and cuts them there, without DALI.
        cache_bytes: Limit of that cache; None is 4 GiB in ``ram``, and 40 % of what is free on the
            ``device``.
        read_ahead: Batches whose windows are asked for from a store before they are needed.
        shard_cache: Folder on this machine that keeps what was read from a store; processes may
            share it. Sequences are then fetched whole.
        shard_cache_bytes: Limit of that folder.
        on_error: ``raise``, or ``skip``: a damaged sample is replaced by its neighbour in the plan
            and listed in ``Loader.errors``; more than 1 % of an epoch stop the loader.

    Raises:
        InputError: If a value is none of the choices, or not possible on this machine.
    """

    engine: EngineName = "auto"
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32
    num_threads: int | None = None
    prefetch_depth: int = 2
    cache: Cache = "none"
    cache_bytes: int | None = None
    read_ahead: int = 8
    shard_cache: str | Path | None = None
    shard_cache_bytes: int = SHARD_CACHE_BYTES
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, get_args(EngineName))
        check_choice("cache", self.cache, get_args(Cache))
        check_choice("on_error", self.on_error, get_args(OnError))
        if self.dtype not in DTYPES:
            raise InputError(f"dtype={self.dtype!r}, expected one of {', '.join(map(str, DTYPES))}")
        if self.num_threads is not None:
            check_integer("num_threads", self.num_threads, low=1, high=4096)
        check_integer("prefetch_depth", self.prefetch_depth, low=1, high=1024)
        check_integer("read_ahead", self.read_ahead, low=0, high=1 << 16)
        if self.shard_cache is not None:
            check_path(self.shard_cache)
        check_integer("shard_cache_bytes", self.shard_cache_bytes, low=0, high=1 << 53)
        if self.cache_bytes is not None:
            check_integer("cache_bytes", self.cache_bytes, low=0, high=1 << 50)
        object.__setattr__(self, "device", find_device(self.device))
        if self.engine == "dali" and self.cache == "device":
            raise InputError(
                "engine='dali' with cache='device', but planes on the device are cut without DALI\n"
                "  Use engine='auto', or cache='ram'."
            )
        if self.engine == "dali" and not has_dali():
            raise InputError(
                "engine='dali', but NVIDIA DALI is not installed\n  Install it, or use the cpu"
                " engine."
            )

    @property
    def torch_device(self) -> torch.device:
        """Where batches go, with its number."""
        return torch.device(self.device)

    @property
    def threads(self) -> int:
        """Number of threads."""
        return self.num_threads or num_usable_cores()

    @property
    def ram_bytes(self) -> int:
        """Limit of the cache in memory; 0 keeps none."""
        if self.cache != "ram":
            return 0
        return RAM_BYTES if self.cache_bytes is None else self.cache_bytes

    @property
    def uses_dali(self) -> bool:
        """Whether the engine is DALI; ``auto`` takes it where a GPU and DALI are."""
        on_gpu = self.torch_device.type == "cuda" and self.cache != "device"
        return self.engine == "dali" or (self.engine == "auto" and on_gpu and has_dali())


def has_dali() -> bool:
    """Return whether NVIDIA DALI is installed, without importing it."""
    return (
        importlib.util.find_spec("nvidia") is not None
        and importlib.util.find_spec("nvidia.dali") is not None
    )


def find_device(name: str | torch.device) -> torch.device:
    """Return a device with its number.

    Raises:
        InputError: If it is neither the CPU nor a GPU of this machine.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(f"device={name!r}, expected cpu or cuda") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"device={str(device)!r}, expected cpu or cuda")
    num_gpus = torch.cuda.device_count()
    if (device.index or 0) >= num_gpus:
        raise InputError(
            f"device={str(device)!r}, but torch finds {num_gpus} GPUs\n"
            "  Use the CPU, or look at nvidia-smi."
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.device("cuda", index)
