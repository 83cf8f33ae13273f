"""What a loader can be asked for, checked before anything is opened."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from shard_builder.errors import InputError

ENGINES = ("auto", "dali", "cpu")
CACHES = ("none", "ram")
ON_ERROR = ("raise", "skip")
DTYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """How batches are made, apart from what is in them.

    Args:
        batch_size: Samples of a global batch, a multiple of ``world_size``.
        rank: This process's rank.
        world_size: Number of ranks.
        engine: ``auto``, ``dali`` or ``cpu``.
        device: Where batches go.
        dtype: ``uint8`` levels, or a float type: normalised.
        prefetch_depth: Batches in progress ahead of the one handed over.
        cache: ``none``, or ``ram`` for decoded planes.
        on_error: ``raise`` or ``skip``.

    Raises:
        InputError: If a value is none of the choices, or not possible on this machine.
    """

    batch_size: int
    rank: int
    world_size: int
    engine: str
    device: torch.device
    dtype: torch.dtype
    prefetch_depth: int
    cache: str
    on_error: str

    def __post_init__(self) -> None:
        for flag, value, choices in (
            ("--loader", self.engine, ENGINES),
            ("--cache", self.cache, CACHES),
            ("--on-error", self.on_error, ON_ERROR),
        ):
            if value not in choices:
                raise InputError(f"{flag} {value!r}, expected one of {', '.join(choices)}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype}, expected one of {', '.join(map(str, DTYPES))}")
        if self.prefetch_depth < 1:
            raise InputError(f"prefetch_depth {self.prefetch_depth}, expected 1 or more")
        if not 0 <= self.rank < self.world_size:
            raise InputError(
                f"rank {self.rank} of {self.world_size} ranks, expected 0 to {self.world_size - 1}"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise InputError(
                f"--batch-size {self.batch_size}, expected a multiple of the {self.world_size}"
                " ranks: it counts the samples of all ranks"
            )
        if self.engine == "dali" and not has_dali():
            raise InputError(
                "--loader dali, but NVIDIA DALI is not installed\n  Install it, or use --loader"
                " cpu."
            )

    @property
    def uses_dali(self) -> bool:
        """Whether the engine is DALI; ``auto`` takes it where a GPU and DALI are."""
        return self.engine == "dali" or (
            self.engine == "auto" and self.device.type == "cuda" and has_dali()
        )


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
    device = torch.device(name)
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"device {device}, expected cpu or cuda")
    num_gpus = torch.cuda.device_count()
    if (device.index or 0) >= num_gpus:
        raise InputError(
            f"device {device}, but torch finds {num_gpus} GPUs\n  Use the CPU, or look at"
            " nvidia-smi."
        )
    return torch.device(
        "cuda", torch.cuda.current_device() if device.index is None else device.index
    )
