"""The drawn release: CK+'s shape, repeatable, known motion, identity over class; its quirks are no
faults, its faults are found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_builder.building.build import build_dataset
from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import BuildOptions
from shard_builder.errors import InputError, SourceError
from shard_builder.faces.frames import read_image
from shard_builder.images import to_gray
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.synth.options import ReleaseOptions
from shard_builder.synth.quirks import FAULTS
from shard_builder.synth.release import draw_sequence, draw_subject, write_release

SMALL = ReleaseOptions(num_subjects=2, image_scale=0.2, max_frames=8)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_release_has_ckplus_shape_and_follows_from_its_seed(tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 1), ("b", 3, 2), ("c", 4, 1)):
        write_release(tmp_path / name, replace(SMALL, seed=seed), workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    source = scan_ckplus(tmp_path / "a")
    assert sorted(s.code for s in source.sequences) == [
        code for code in range(1, 8) for _ in range(2)
    ]
    assert all(
        6 <= len(s.frames) <= 8 and len(s.landmarks) == len(s.frames) for s in source.sequences
    )
    assert read_image(source.sequences[0].frames[0], gray=True).shape == (98, 128)


def test_identity_matters_more_to_the_pixels_than_the_class(tiny_release: Path) -> None:
    peaks = [
        (s.subject, s.emotion, to_gray(read_image(s.frames[-1])).astype(float))
        for s in scan_ckplus(tiny_release).sequences
    ]
    size = (150, 120)
    peaks = [(subject, emotion, cv2.resize(image, size)) for subject, emotion, image in peaks]
    same_subject = [
        np.abs(a[2] - b[2]).mean() for a in peaks for b in peaks if a[0] == b[0] and a[1] != b[1]
    ]
    same_class = [
        np.abs(a[2] - b[2]).mean() for a in peaks for b in peaks if a[0] != b[0] and a[1] == b[1]
    ]
    assert 2 * np.mean(same_subject) < np.mean(same_class)


def test_the_motion_is_known_and_flow_finds_its_sign() -> None:
    """Where a raised brow or a dropped jaw moves by a pixel or more, Farneback sees the same
    direction."""
    options = ReleaseOptions(num_subjects=1, image_scale=0.5, max_frames=9)
    face = draw_subject(0, options)
    motion, generator = draw_sequence(face, 0, 7, options)
    frames = [to_gray(motion.render(index, generator)) for index in (0, len(motion.course) - 1)]
    found = make_flow_estimator("farneback")(*frames)
    moved = np.hypot(motion.peak_field[..., 0], motion.peak_field[..., 1]) > 3
    assert moved.mean() > 0.01
    agreement = np.sign(found[..., 1][moved]) == np.sign(motion.peak_field[..., 1][moved])
    assert agreement.mean() > 0.7


def test_quirks_are_no_faults(tmp_path: Path) -> None:
    write_release(tmp_path / "plain", SMALL)
    write_release(tmp_path / "quirky", SMALL, quirks=True)
    plain, quirky = (scan_ckplus(tmp_path / name) for name in ("plain", "quirky"))
    assert [(s.key, s.code, len(s.frames)) for s in plain.sequences] == [
        (s.key, s.code, len(s.frames)) for s in quirky.sequences
    ]
    assert quirky.num_unlabelled == 1
    names = {path.name for path in (tmp_path / "quirky").rglob("*")}
    assert {".DS_Store", "Thumbs.db"} <= names
    assert quirky.sequences[0].frames[0].parts[-5:-3] == (
        "cohn-kanade-images",
        "cohn-kanade-images",
    )
    one, two = (read_image(source.sequences[0].frames[0], gray=True) for source in (plain, quirky))
    differs = np.flatnonzero((one != two).any(axis=1))
    assert differs.size and differs.min() > 0.85 * one.shape[0], (
        "the counter is burnt into the lower edge"
    )


@pytest.mark.parametrize("name", list(FAULTS))
def test_every_fault_is_found_by_scan_or_build(name: str, tmp_path: Path) -> None:
    write_release(tmp_path / "CK+", SMALL, broken=name)
    with pytest.raises(SourceError) as raised:
        source = scan_ckplus(tmp_path / "CK+")
        options = BuildOptions(flow_method="dis", width=64, height=48)
        build_dataset(source, tmp_path / "CK+", tmp_path / "dataset", options)
    assert "S005_001" in str(raised.value) and "on_error='skip'" in str(raised.value)
    assert not (tmp_path / "dataset" / "manifest.json").exists()


def test_an_unknown_fault_lists_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="broken='fire', expected one of gap, starts-at-two"):
        write_release(tmp_path / "CK+", SMALL, broken="fire")
    assert not (tmp_path / "CK+").exists()


@given(order=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_a_scan_does_not_depend_on_the_order_of_the_file_system(tiny_release: Path, order) -> None:  # type: ignore[no-untyped-def]
    walk = os.walk

    def shuffled(root: Path, followlinks: bool):  # type: ignore[no-untyped-def]
        for folder, subfolders, names in walk(root, followlinks=followlinks):
            order.shuffle(subfolders)
            order.shuffle(names)
            yield folder, subfolders, names

    expected = scan_ckplus(tiny_release)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shard_builder.sources.walk.os.walk", shuffled)
        assert scan_ckplus(tiny_release) == expected
