"""``ckshard inspect``: the counts of the index, and a page that shows all and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shard_builder.errors import DatasetError
from shard_builder.format.frames import FrameSampling, Geometry
from shard_builder.inspection.dataset import inspect_dataset, write_page
from shard_builder.inspection.quality import shuffle_quality
from tests.programs import ckshard

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


def test_the_page_says_how_frames_were_taken_and_flow_computed(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    inspection = inspect_dataset(tiny_dataset)
    quality, page = shuffle_quality(inspection), tmp_path / "page.html"
    write_page(inspection, page, quality=quality)
    assert "frames taken: all" in page.read_text()
    assert "computed at the source&#39;s size" in page.read_text()
    manifest = inspection.manifest
    assert manifest.flow
    flow = replace(manifest.flow, size=Geometry(height=98, width=128))
    sampled = replace(manifest, flow=flow, sampling=FrameSampling(fps=12.5))
    write_page(replace(inspection, manifest=sampled), page, quality=quality)
    assert "frames taken: 12.5 a second" in page.read_text()
    assert "computed at 128x98" in page.read_text()
    assert "source&#39;s size" not in page.read_text()


def test_the_counts_are_those_of_the_index(tiny_dataset: Path) -> None:
    inspection = inspect_dataset(tiny_dataset)
    assert inspection.classes() == [(name, 6, 6) for name in inspection.manifest.class_names]
    assert len(inspection.subjects()) == 6 and all(num == 7 for _, num, _ in inspection.subjects())
    assert sum(count for _, count in inspection.lengths()) == 42
    assert inspection.num_frames[0] <= inspection.num_frames[1] <= inspection.num_frames[2]


def test_the_command_prints_and_writes(tiny_dataset: Path, tmp_path: Path) -> None:
    done = ckshard("inspect", tiny_dataset, "--html", tmp_path / "page.html")
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
