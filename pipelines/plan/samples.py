"""The samples of a split part: which windows and crops its plan may draw."""

from __future__ import annotations

import numpy as np

from pipelines.dataset import Dataset
from pipelines.plan.crops import AUGMENTATIONS, center_crop, multi_scale_crops
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import Plan
from shard_builder.errors import InputError


def make_plan(
    dataset: Dataset,
    *,
    stream: str,
    rows: Int64,
    training: bool,
    stack_length: int,
    seed: int,
    aug: str,
    rgb_last_frames: int,
) -> Plan:
    """Make the plan of a split part.

    rgb: the peak frame (in training one of the last ``rgb_last_frames``). flow: any window of
        ``stack_length`` pairs in training, the
    middle one otherwise; a sequence with fewer pairs has one window, from its first pair.

    Raises:
        InputError: If the part is empty, no sequence is as long as the stack, or too few frames are
            stored.
    """
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        raise InputError(
            f"the {'training' if training else 'validation'} part of the split has no sequences"
        )
    if rows.min() < 0 or rows.max() >= len(dataset):
        raise InputError(
            f"rows {rows.min()} to {rows.max()}, but {dataset.path} has rows 0 to"
            f" {len(dataset) - 1}"
        )
    if aug not in AUGMENTATIONS:
        raise InputError(f"--aug {aug!r}, expected one of {', '.join(AUGMENTATIONS)}")
    geometry = dataset.manifest.geometry
    if stream == "rgb":
        stored = dataset.num_stored_frames()[rows]
        if rgb_last_frames < 1 or rgb_last_frames > stored.max():
            raise InputError(
                f"rgb_last_frames {rgb_last_frames}, expected 1 to {stored.max()} (the most frames"
                " stored of a sequence)"
            )
        num_starts = np.minimum(rgb_last_frames if training else 1, stored)
        first_starts = stored - num_starts
    else:
        pairs = dataset.num_pairs[rows]
        if pairs.max() < stack_length:
            raise InputError(
                f"--stack-length {stack_length}, but the longest sequence has {pairs.max()} pairs"
            )
        num_starts = np.maximum(pairs - stack_length + 1, 1)
        first_starts = np.zeros_like(num_starts)
    size = {"height": geometry.height, "width": geometry.width}
    crops = (
        multi_scale_crops(**size, stream=stream, augmentation=aug)
        if training
        else center_crop(**size)
    )
    return Plan(
        rows=rows,
        num_starts=num_starts,
        first_starts=first_starts,
        crops=crops,
        seed=seed,
        is_training=training,
    )
