"""Prepared trees: every fault is named, or skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shard_builder.errors import SourceError
from shard_builder.sources.tree import scan_tree


def test_a_tree_without_flow_has_it_computed(trees: Path, tmp_path: Path) -> None:
    shutil.copytree(trees / "rgb", tmp_path / "rgb")
    source = scan_tree(tmp_path)
    assert len(source.sequences) == 7 and all(not s.pairs for s in source.sequences)
    assert all(len(s.pairs) == 5 for s in scan_tree(trees).sequences)


def missing_plane(root: Path) -> str:
    (root / "flow" / "1" / "S001_001" / "y_flow" / "S001_001_00000005.png").unlink()
    return r"y_flow: 4 planes, expected 5 for 6 frames"


def gap_in_frames(root: Path) -> str:
    (root / "rgb" / "1" / "S001_001" / "S001_001_00000003.png").unlink()
    return r"S001_001_00000004\.png: frame 4 follows frame 2, expected frame 3"


def foreign_class(root: Path) -> str:
    (root / "rgb" / "1").rename(root / "rgb" / "9")
    return r"class folder '9', expected CK\+'s codes 0 to 7"


def no_flow_of_one(root: Path) -> str:
    shutil.rmtree(root / "flow" / "1" / "S001_001" / "x_flow")
    return r"x_flow: no such folder"


def no_number(root: Path) -> str:
    folder = root / "rgb" / "1" / "S001_001"
    (folder / "S001_001_00000001.png").rename(folder / "peak.png")
    return r"peak\.png: no frame number at the end of its name"


@pytest.mark.parametrize(
    "fault", [missing_plane, gap_in_frames, foreign_class, no_flow_of_one, no_number]
)
def test_every_fault_of_a_tree_is_named_or_skipped(
    fault: Callable[[Path], str], trees: Path, tmp_path: Path
) -> None:
    shutil.copytree(trees, tmp_path / "out")
    words = fault(tmp_path / "out")
    with pytest.raises(SourceError, match=words):
        scan_tree(tmp_path / "out")
    assert scan_tree(tmp_path / "out", on_error="skip").skipped
