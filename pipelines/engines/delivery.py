"""What an engine is, and what it delivers for a request."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch

from pipelines.plan.permutation import Int64
from pipelines.plan.requests import BatchRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The images of one request.

    Args:
        request: The request.
        rows: Index rows of the samples, ``int64`` (N,): the plan's, or where a sample was damaged
            the neighbour's.
        images: (N, C, 224, 224) channels_last; their memory is used again for the next delivery.
    """

    request: BatchRequest
    rows: Int64
    images: torch.Tensor


class Engine(Protocol):
    """How a plan becomes pixels."""

    def batches(
        self, requests: Generator[BatchRequest, None, None]
    ) -> Generator[Delivery, None, None]:
        """Yield the images of each request, in order, reading ahead."""

    def close(self) -> None:
        """Stop threads, free buffers."""
