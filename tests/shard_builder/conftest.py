"""Small releases written by hand, and the trees prepared from one."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_builder.building.prepare import prepare_trees
from shard_builder.sources.ckplus import scan_ckplus
from tests.ckplus_release import write_sequence, write_small_release


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences each of five subjects. Read only."""
    return write_small_release(tmp_path_factory.mktemp("small") / "CK+", num_subjects=5)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_small_release(tmp_path_factory.mktemp("sources") / "CK+")
    write_sequence(root, "S004_001", channels=3, emotion="5")
    (root / "cohn-kanade-images" / "S001" / "001" / ".DS_Store").write_bytes(b"junk")
    return root


@pytest.fixture(scope="session")
def trees(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trees") / "out"
    report = prepare_trees(scan_ckplus(release), out, workers=2)
    assert (report.num_written, report.num_kept, report.num_pairs) == (7, 0, 35)
    return out
