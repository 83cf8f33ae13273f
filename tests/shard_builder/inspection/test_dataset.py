"""ckshard inspect: the counts of the index in tables, and a page that shows every class and loads
nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shard_builder.errors import DatasetError, InputError
from shard_builder.inspection.dataset import inspect_dataset, write_page
from shard_builder.inspection.quality import codec_errors, shuffle_quality

Screenshot = Callable[[Path], np.ndarray]


@pytest.mark.parametrize("codec", ["jpg", "raw"])
def test_the_page_shows_every_class_and_is_self_contained(
    codec: str, build_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    inspection = inspect_dataset(build_tiny(codec=codec, shard_bytes=32 << 20))
    write_page(inspection, tmp_path / "page.html", quality=shuffle_quality(inspection))
    text = (tmp_path / "page.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert len(addresses) == 7 * 2 * 4 and all(
        address.startswith("data:image/jpeg") for address in addresses
    )
    for name in inspection.manifest.class_names:
        assert f"<h3>{name}</h3>" in text


def test_the_counts_are_those_of_the_index(tiny_dataset: Path) -> None:
    inspection = inspect_dataset(tiny_dataset)
    assert inspection.classes() == [(name, 6, 6) for name in inspection.manifest.class_names]
    assert len(inspection.subjects()) == 6 and all(num == 7 for _, num, _ in inspection.subjects())
    assert sum(count for _, count in inspection.lengths()) == 42
    assert inspection.num_frames[0] <= inspection.num_frames[1] <= inspection.num_frames[2]


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
    with pytest.raises(InputError, match=r"has no lossless (rgb|flow), expected codec png or raw"):
        codec_errors(jpg, jpg)


def test_the_command_prints_and_writes(tiny_dataset: Path, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("ckshard"))
    words = [program, "inspect", str(tiny_dataset), "--html", str(tmp_path / "page.html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "42 of 6 subjects" in done.stdout and "surprise" in done.stdout
    assert (tmp_path / "page.html").is_file()


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"not a dataset: no manifest\.json"):
        inspect_dataset(tmp_path)


@pytest.mark.browser
def test_a_browser_shows_the_page(
    tiny_dataset: Path, tmp_path: Path, screenshot: Screenshot
) -> None:
    inspection = inspect_dataset(tiny_dataset)
    write_page(inspection, tmp_path / "page.html", quality=shuffle_quality(inspection))
    assert screenshot(tmp_path / "page.html").std() > 20, "the page is not blank"
