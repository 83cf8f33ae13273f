"""The ranks of a ``torchrun`` job: who am I, sums over all, one decision for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from shard_builder.errors import TrainingError
from train.config import TrainConfig

TIMEOUT = timedelta(minutes=10)
"""A rank that has not answered for so long counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among the ranks of a job.

    Args:
        rank: Number of this process, from 0.
        local_rank: Its number on this host.
        world_size: Number of ranks; 1 without torchrun.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all ranks, in place."""
        if self.world_size > 1:
            with named_failure(self):
                dist.all_reduce(values)
        return values

    def any(self, is_true: bool, device: torch.device) -> bool:
        """Return whether it is true on any rank; the same answer on all."""
        if self.world_size == 1:
            return is_true
        return bool(self.sum(torch.tensor(int(is_true), device=device)).item())

    def wait_for_all(self) -> None:
        """Return when every rank is here."""
        if self.world_size > 1:
            with named_failure(self):
                dist.barrier()


def ranks_of_environment() -> Ranks:
    """Return this process's place in the job that torchrun describes; without one, the only one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size <= 1:
        return Ranks()
    return Ranks(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        world_size=world_size,
    )


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the job that torchrun describes in the environment; without one, be the only rank.

    A process that is in it already stays in it: a job cannot be joined again.

    Args:
        device: The device of this rank; it decides between NCCL and gloo.
    """
    ranks = ranks_of_environment()
    if ranks.world_size == 1 or dist.is_initialized():
        yield ranks
        return
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None
    )
    try:
        yield ranks
    except BaseException:
        # To destroy a group waits for what is queued; the other ranks may never answer that.
        if dist.is_initialized():
            dist.distributed_c10d._abort_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def named_failure(ranks: Ranks) -> Iterator[None]:
    """Turn a failed exchange between ranks into a message that says what it means."""
    try:
        yield
    except RuntimeError as error:
        words = ("peer", "gloo", "NCCL", "Connection")
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in words):
            raise
        raise TrainingError(
            f"rank {ranks.rank} of {ranks.world_size}: another rank has ended or cannot be reached"
            f" ({str(error).splitlines()[0][:200]})\n"
            "  See that rank's own message; then resume with resume=True."
        ) from None


def wrap_model(model: nn.Module, config: TrainConfig, ranks: Ranks) -> nn.Module:
    """Return the net that is trained: compiled where asked, and with gradients of all ranks."""
    net: nn.Module = model
    if config.compile:
        # One graph for whole batches and one for an epoch's short last one: a graph for any size,
        # which a second size would lead to, is slower for ever.
        net = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    if ranks.world_size == 1:
        return net
    device = next(model.parameters()).device
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)
