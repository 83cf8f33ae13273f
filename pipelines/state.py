"""A loader's state: where it is, and a hash of what it reads."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from pipelines.plan.plan import Plan
from pipelines.plan.sampling import Sampling
from pipelines.streams import kind_of
from shard_builder.checks import check_integer
from shard_builder.errors import InputError

State = dict[str, int | str]
MAX_EPOCH = 1 << 40


def fingerprint(dataset_sha256: str, stream: str, plan: Plan, sampling: Sampling) -> str:
    """Hash all that decides which sample a position is, but for seed and plan version."""
    has_pairs = kind_of(stream).has_pairs
    span = sampling.stack_length if has_pairs else sampling.rgb_apex_frames
    identity = f"{dataset_sha256} {stream} {plan.is_training} {span} {sampling.augmentation}"
    if plan.classes is not None:
        identity += " balanced"
    digest = hashlib.sha256(identity.encode())
    digest.update(np.ascontiguousarray(plan.rows, "<i8").tobytes())
    return digest.hexdigest()


def check_state(state: Any, own: State) -> tuple[int, int]:
    """Return epoch and position of a state.

    Args:
        state: Of anyone, from a file perhaps.
        own: Of the loader that is to go there.

    Raises:
        InputError: If it is no state, or one of another dataset, stream, part or sampling.
    """
    if not isinstance(state, dict) or set(state) != set(own):
        raise InputError(f"loader state {str(state)[:80]}, expected a dict with {', '.join(own)}")
    for name, value in own.items():
        if isinstance(value, int):
            check_integer(f"loader state: {name}", state[name], low=0, high=(1 << 64) - 1)
    for name in ("plan_version", "seed", "num_samples", "fingerprint"):
        if state[name] != own[name]:
            raise InputError(
                f"loader state has {name} {str(state[name])[:80]}, expected {own[name]}\n"
                "  It was saved with another dataset, stream, split, seed or sampling."
            )
    epoch, position, num_samples = int(state["epoch"]), int(state["position"]), own["num_samples"]
    if position > int(num_samples) or epoch > MAX_EPOCH:
        raise InputError(
            f"loader state has position {position} in epoch {epoch}, expected a position of 0 to"
            f" {num_samples}"
        )
    return epoch, position
