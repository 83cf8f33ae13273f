"""Two figures of quality: how well the shards are shuffled, and what the codec costs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shard_builder.errors import InputError
from shard_builder.format.streams import LOSSLESS_CODECS
from shard_builder.inspection.dataset import Inspection, read_frame, read_pair

NUM_CONSECUTIVE = 16
NUM_PERMUTATIONS = 100
NUM_COMPARED = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleQuality:
    """How mixed the classes of consecutive samples are.

    Args:
        num_consecutive: Consecutive samples looked at together.
        entropy_bits: Mean entropy of the classes in such a run, in stored order.
        ideal_bits: The same over random orders of the same samples.
    """

    num_consecutive: int
    entropy_bits: float
    ideal_bits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecError:
    """How far the levels of one stream are from a lossless build's.

    Args:
        stream: ``rgb`` or ``flow``.
        num_compared: Frames or pairs compared.
        mean_abs: Mean absolute difference, in levels of 8 bits.
        largest: Largest difference, in levels.
        psnr_db: Peak signal-to-noise ratio in decibels; infinite for equal levels.
    """

    stream: str
    num_compared: int
    mean_abs: float
    largest: int
    psnr_db: float


def shuffle_quality(inspection: Inspection) -> ShuffleQuality:
    """Compare the entropy of classes in runs of consecutive samples with that of random orders."""
    labels = np.array([row["label"] for row in inspection.rows])
    length = min(NUM_CONSECUTIVE, len(labels))
    generator = np.random.Generator(np.random.Philox(0))
    ideal = [_mean_entropy(generator.permutation(labels), length) for _ in range(NUM_PERMUTATIONS)]
    return ShuffleQuality(
        num_consecutive=length,
        entropy_bits=_mean_entropy(labels, length),
        ideal_bits=float(np.mean(ideal)),
    )


def _mean_entropy(labels: npt.NDArray[np.int64], length: int) -> float:
    entropies = []
    for begin in range(len(labels) - length + 1):
        counts = Counter(labels[begin : begin + length].tolist())
        shares = np.array(list(counts.values())) / length
        entropies.append(-(shares * np.log2(shares)).sum())
    return float(np.mean(entropies))


def codec_errors(inspection: Inspection, lossless: Inspection) -> list[CodecError]:
    """Compare apex frames and middle pairs with those of a lossless build of the same source.

    Raises:
        InputError: If the other dataset is not lossless, has another geometry or other sequences,
            or another number of frames of one.
    """
    other = {row["key"]: row for row in lossless.rows}
    rows = inspection.rows[:: max(1, len(inspection.rows) // NUM_COMPARED)][:NUM_COMPARED]
    missing = [row["key"] for row in rows if row["key"] not in other]
    others = [
        row["key"]
        for row in rows
        if row["key"] in other and row["num_frames"] != other[row["key"]]["num_frames"]
    ]
    origin = f"lossless={str(lossless.path)!r}"
    if missing or others or inspection.manifest.geometry != lossless.manifest.geometry:
        what = f"lacks {missing[0]}" if missing else "has another frame size"
        what = f"has other frames of {others[0]}" if others else what
        raise InputError(f"{origin}: {what}, expected a build of the same source and size")
    errors = []
    for stream, entry in inspection.manifest.streams.items():
        reference = lossless.manifest.streams.get(stream)
        if reference is None or reference.codec not in LOSSLESS_CODECS:
            names = ", ".join(LOSSLESS_CODECS)
            raise InputError(f"{origin}: has no lossless {stream}, expected codec {names}")
        if entry.codec not in LOSSLESS_CODECS:
            pairs = [(row, other[row["key"]]) for row in rows]
            errors.append(_codec_error(stream, inspection, lossless, pairs))
    return errors


def _codec_error(
    stream: str,
    inspection: Inspection,
    lossless: Inspection,
    rows: list[tuple[dict[str, Any], dict[str, Any]]],
) -> CodecError:
    total = square = 0.0
    largest = count = 0
    for own, other in rows:
        if stream == "rgb":
            pictures = read_frame(inspection, own), read_frame(lossless, other)
        else:
            number = own["num_pairs"] // 2
            pictures = read_pair(inspection, own, number), read_pair(lossless, other, number)
        difference = np.abs(pictures[0].astype(np.int16) - pictures[1])
        total += float(difference.sum())
        square += float((difference.astype(np.float64) ** 2).sum())
        largest = max(largest, int(difference.max()))
        count += difference.size
    return CodecError(
        stream=stream,
        num_compared=len(rows),
        mean_abs=total / count,
        largest=largest,
        psnr_db=float(10 * np.log10(255**2 / (square / count))) if square else math.inf,
    )
