"""The ranks of a ``torchrun`` job: who am I, sums over all, one decision for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from shard_builder.errors import TrainingError

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


@contextmanager
def join_ranks(*, use_cuda: bool) -> Iterator[Ranks]:
    """Join the job that torchrun describes in the environment; without one, be the only rank.

    A process that is in it already stays in it: a job cannot be joined again.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield Ranks()
        return
    ranks = Ranks(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    if dist.is_initialized():
        yield ranks
        return
    if use_cuda:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=TIMEOUT)
    try:
        yield ranks
    finally:
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
