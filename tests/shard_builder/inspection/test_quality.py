"""How well shards are shuffled, and what the codec costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_builder.errors import InputError
from shard_builder.inspection.dataset import inspect_dataset
from shard_builder.inspection.quality import codec_errors, shuffle_quality


def test_the_shards_are_as_mixed_as_random_orders_and_sorted_ones_are_not(
    tiny_dataset: Path,
) -> None:
    inspection = inspect_dataset(tiny_dataset)
    quality = shuffle_quality(inspection)
    assert quality.entropy_bits > 0.9 * quality.ideal_bits
    inspection.rows.sort(key=lambda row: row["label"])
    assert shuffle_quality(inspection).entropy_bits < 0.75 * quality.ideal_bits


def test_the_codecs_error_is_measured_against_a_lossless_build(
    tiny_dataset: Path, raw_dataset: Path
) -> None:
    jpg, raw = inspect_dataset(tiny_dataset), inspect_dataset(raw_dataset)
    errors = {error.stream: error for error in codec_errors(jpg, raw)}
    assert set(errors) == {"rgb", "flow"}
    for error in errors.values():
        assert 0 < error.mean_abs < 3 and error.largest < 60 and error.psnr_db > 35
    assert codec_errors(raw, raw) == []
    raw.rows[0]["num_frames"] += 1
    with pytest.raises(InputError, match=f"has other frames of {raw.rows[0]['key']}, expected a b"):
        codec_errors(jpg, raw)
    with pytest.raises(InputError, match=r"has no lossless (rgb|flow), expected codec"):
        codec_errors(jpg, jpg)
