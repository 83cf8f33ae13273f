"""What decides every sample: the options of sampling, and the plan of a split part from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from pipelines.plan.crops import center_crop, multi_scale_crops
from pipelines.plan.permutation import Int64, index_classes
from pipelines.plan.plan import Plan
from pipelines.streams import StreamKind
from shard_builder.checks import check_choice, check_integer, set_plain
from shard_builder.errors import InputError, counted

Augmentation = Literal["standard", "strong", "original"]
ClassFrequencies = Literal["natural", "balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What is drawn from the sequences; equal values give equal samples, whatever reads them.

    Args:
        stack_length: Flow pairs in a sample, 2L channels.
        rgb_apex_frames: In training, rgb takes one of so many stored frames up to the apex.
        augmentation: ``standard``: crop and flip; ``strong``: also light (rgb), a small turn and
            scale, and a part that is erased; ``original``: the original's own crop table.
        class_frequencies: ``natural``: every sequence trains once an epoch; ``balanced``: in an
            epoch of as many samples each class trains equally often, but for one sample.
        seed: Of all draws, 0 to 2**64 - 1.

    Raises:
        InputError: If a value is of another type or out of its range.
    """

    stack_length: int = 5
    rgb_apex_frames: int = 1
    augmentation: Augmentation = "standard"
    class_frequencies: ClassFrequencies = "natural"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("stack_length", self.stack_length, low=1, high=1024)
        check_integer("rgb_apex_frames", self.rgb_apex_frames, low=1, high=1 << 16)
        check_choice("augmentation", self.augmentation, get_args(Augmentation))
        check_choice("class_frequencies", self.class_frequencies, get_args(ClassFrequencies))
        check_integer("seed", self.seed, low=0, high=(1 << 64) - 1)
        set_plain(self, int, "stack_length", "rgb_apex_frames", "seed")


def check_rows(rows: Any, num_rows: int) -> Int64:
    """Return rows as ``int64`` (n,); None means all, a mask of ``num_rows`` means its True ones.

    Raises:
        InputError: If they are anything but integers in ``0..num_rows - 1``.
    """
    if rows is None:
        return np.arange(num_rows, dtype=np.int64)
    found = np.asarray(rows)
    if found.dtype == bool and found.shape == (num_rows,):
        return np.flatnonzero(found).astype(np.int64)
    is_empty_list = found.shape == (0,) and found.dtype == np.float64
    if found.ndim != 1 or not (np.issubdtype(found.dtype, np.integer) or is_empty_list):
        raise InputError(
            f"rows of shape {found.shape} and dtype {found.dtype}, expected row numbers (n,) or a"
            f" bool mask ({num_rows},)"
        )
    if len(found) and (found.min() < 0 or found.max() >= num_rows):
        raise InputError(
            f"rows {found.min()} to {found.max()}, but the dataset has rows 0 to {num_rows - 1}"
        )
    return found.astype(np.int64)


def make_plan(
    kind: StreamKind,
    *,
    rows: Int64,
    num_usable: Int64,
    labels: Int64 | None = None,
    height: int,
    width: int,
    training: bool,
    sampling: Sampling,
) -> Plan:
    """Make the plan of a split part.

    rgb: the apex (in training one of ``rgb_apex_frames`` up to it). flow: any window of
    ``stack_length`` pairs in training, the middle one otherwise; a sequence with fewer pairs has
    one window, from its first pair.

    Args:
        kind: The stream.
        rows: Index rows of the part, ``int64`` (n,).
        num_usable: Frames or pairs stored of every row of the dataset, ``int64``. Of rgb only those
            up to the apex count: see :meth:`pipelines.dataset.Dataset.num_usable`.
        labels: Class of every row of the dataset, ``int64``; only balanced classes need it.
        height: Of the stored planes, pixels.
        width: Of the stored planes, pixels.
        training: Shuffled and augmented, or stored order and the centre crop.
        sampling: What to draw.

    Raises:
        InputError: If the part is empty, or its sequences are too short for the options.
    """
    if not len(rows):
        part = "training" if training else "validation"
        raise InputError(f"the {part} part of the split has no sequences")
    stored = num_usable[rows]
    longest = int(stored.max())
    if kind.has_pairs:
        length = sampling.stack_length
        if longest < length:
            raise InputError(
                f"stack_length={length}, but the longest sequence has {counted(longest, 'pair')}"
            )
        num_starts = np.maximum(stored - length + 1, 1)
        first_starts = np.zeros_like(num_starts)
    else:
        apex_frames = sampling.rgb_apex_frames
        if apex_frames > longest:
            raise InputError(
                f"rgb_apex_frames={apex_frames}, expected 1 to {longest} (the most frames stored"
                " up to the apex of a sequence)"
            )
        num_starts = np.minimum(apex_frames if training else 1, stored)
        first_starts = stored - num_starts
    crops = (
        multi_scale_crops(
            height=height, width=width, ratios=kind.crop_ratios, augmentation=sampling.augmentation
        )
        if training
        else center_crop(height=height, width=width)
    )
    is_balanced = training and sampling.class_frequencies == "balanced"
    if is_balanced and labels is None:
        raise InputError("class_frequencies='balanced' needs the labels of the rows, got none")
    return Plan(
        rows=rows,
        num_starts=num_starts,
        first_starts=first_starts,
        crops=crops,
        seed=sampling.seed,
        is_training=training,
        classes=index_classes(labels[rows]) if is_balanced and labels is not None else None,
        jitters=kind if training and sampling.augmentation == "strong" else None,
    )
