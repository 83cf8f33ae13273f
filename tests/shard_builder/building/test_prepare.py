"""``ckshard prepare`` writes what the original writes, and build reads it to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from shard_builder.building.build import build_dataset
from shard_builder.building.flow import make_flow_estimator
from shard_builder.building.options import BuildOptions
from shard_builder.building.prepare import prepare_trees
from shard_builder.errors import InputError
from shard_builder.files import digest_file
from shard_builder.format.levels import quantize_flow
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.detect import scan_source
from tests.programs import ckshard

SMALL = {"flow_method": "farneback", "width": 64, "height": 48, "shard_bytes": 20_000}


def test_the_trees_are_the_originals(release: Path, trees: Path) -> None:
    for stream in ("rgb", "flow"):
        assert sorted(p.name for p in (trees / stream).iterdir()) == list("01234567")
        assert not list((trees / stream / "0").iterdir())
    frames = sorted((trees / "rgb" / "1" / "S001_001").iterdir())
    assert [p.name for p in frames] == [f"S001_001_{n:08d}.png" for n in range(1, 7)]
    originals = release / "cohn-kanade-images" / "S001" / "001"
    assert all(path.read_bytes() == (originals / path.name).read_bytes() for path in frames)
    for axis in ("x_flow", "y_flow"):
        planes = sorted((trees / "flow" / "1" / "S001_001" / axis).iterdir())
        assert [p.name for p in planes] == [f"S001_001_{n:08d}.png" for n in range(1, 6)]
    one, two = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in frames[:2])
    levels = quantize_flow(make_flow_estimator("farneback")(one, two), bound_px=10)
    for number, axis in enumerate(("x_flow", "y_flow")):
        stored = cv2.imread(
            str(trees / "flow" / "1" / "S001_001" / axis / "S001_001_00000001.png"),
            cv2.IMREAD_UNCHANGED,
        )
        assert np.array_equal(stored, levels[..., number])
    assert not (trees / ".prepare").exists()


def test_what_is_missing_is_prepared_and_the_rest_kept(
    release: Path, trees: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trees, out)
    shutil.rmtree(out / "flow" / "7" / "S002_002")
    (out / ".prepare" / "S003_001").mkdir(parents=True)
    report = prepare_trees(scan_ckplus(release), out)
    assert (report.num_written, report.num_kept) == (1, 6)
    names = [
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*")) for root in (trees, out)
    ]
    assert names[0] == names[1]
    assert all(
        (out / name).read_bytes() == (trees / name).read_bytes()
        for name in names[0]
        if (out / name).is_file()
    )


def test_a_folder_with_other_things_is_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        prepare_trees(scan_ckplus(release), tmp_path)


def test_trees_of_another_release_are_refused_and_changed_frames_prepared_again(
    release: Path, trees: Path, tmp_path: Path
) -> None:
    """Sequences of both releases stood side by side; a frame of the same size was kept."""
    own = shutil.copytree(release, tmp_path / "release")
    out = shutil.copytree(trees, tmp_path / "out")
    frame = own / "cohn-kanade-images" / "S001" / "001" / "S001_001_00000002.png"
    data = bytearray(frame.read_bytes())
    picture = cv2.imread(str(frame), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(frame), 255 - picture)
    changed = frame.read_bytes()
    size = max(len(data), len(changed))  # equal sizes: a PNG may have anything behind its end
    for path, content in (
        (frame, changed),
        (out / "rgb" / "1" / "S001_001" / frame.name, bytes(data)),
    ):
        path.write_bytes(content.ljust(size, b"\0"))
    assert prepare_trees(scan_ckplus(own), out).num_written == 1
    written = out / "rgb" / "1" / "S001_001" / frame.name
    assert written.read_bytes() == frame.read_bytes()
    (out / "rgb" / "3" / "S999_001").mkdir()
    with pytest.raises(InputError, match="rgb/3/S999_001: this release has no such sequence"):
        prepare_trees(scan_ckplus(own), out)


def test_a_build_states_the_flow_that_its_trees_were_made_with(
    release: Path, tmp_path: Path
) -> None:
    """The manifest said farneback, and predict would have computed that."""
    out = tmp_path / "trees"
    prepare_trees(scan_ckplus(release), out, flow_method="dis", bound_px=5)
    for given, words in (
        ({}, "flow_method='farneback', but .*trees was prepared with 'dis'"),
        ({"flow_method": "dis"}, "bound_px=10.0, but .*trees was prepared with 5.0"),
    ):
        options = BuildOptions(**(SMALL | {"flow_method": "farneback"} | given))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            build_dataset(scan_source(out), out, tmp_path / "dataset", options)
    options = BuildOptions(**(SMALL | {"flow_method": "dis", "bound_px": 5.0}))  # type: ignore[arg-type]
    flow = build_dataset(scan_source(out), out, tmp_path / "dataset", options).manifest.flow
    assert flow is not None and (flow.method, flow.bound_px) == ("dis", 5.0)


@pytest.mark.parametrize(
    "codecs", [{"codec": "png"}, {"codec": "raw"}, {"codec": "png", "flow_codec": "lz4"}]
)
def test_build_from_the_release_and_from_the_tree_gives_the_same_shards(
    codecs: dict[str, str], release: Path, trees: Path, tmp_path: Path
) -> None:
    shards = []
    for name, root in (("release", release), ("tree", trees)):
        source = scan_source(root)
        assert source.kind == ("ckplus" if name == "release" else "tree")
        options = BuildOptions(**codecs, **SMALL)  # type: ignore[arg-type]
        build_dataset(source, root, tmp_path / name, options)
        files = sorted([*(tmp_path / name).glob("*.tar"), *(tmp_path / name).glob("*.idx")])
        shards.append({path.name: digest_file(path).sha256 for path in files})
    assert shards[0] == shards[1] and len(shards[0]) > 4


def test_the_commands_prepare_and_build_from_the_tree(release: Path, tmp_path: Path) -> None:
    trees, dataset = tmp_path / "trees", tmp_path / "dataset"
    for words in (
        ("prepare", release, trees, "--flow-method", "dis"),
        ("build", trees, dataset, "--size", "64x48", "--yes", "--flow-method", "dis"),
        ("verify", dataset),
    ):
        done = ckshard(*words)
        assert done.returncode == 0, done.stderr
    assert "no fault found in" in done.stdout
