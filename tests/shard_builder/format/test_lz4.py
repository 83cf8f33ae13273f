"""Flow as bare LZ4 blocks: built, verified, inspected and read by strangers, bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import lz4.block
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.errors import DatasetError
from shard_builder.files import digest_file
from shard_builder.format.codecs import encode_lz4
from shard_builder.format.manifest import MANIFEST_NAME, read_manifest
from shard_builder.format.verify import verify_dataset
from shard_builder.inspection.dataset import inspect_dataset, read_pair
from tests.carphone import carphone_video

CKSHARD = Path(sys.executable).with_name("ckshard")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CKSHARD, *map(str, words)], capture_output=True, text=True)


def raw_planes(raw_dataset: Path, key: str) -> np.ndarray:
    """All planes of a sequence of the raw build, (2n, 256, 340)."""
    with open_dataset(raw_dataset) as dataset:
        row = int(dataset.rows_of([key])[0])
        return dataset.members("flow").read_array(row, (2 * int(dataset.num_pairs[row]), 256, 340))


@pytest.fixture(scope="module")
def built(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny release, built by the command."""
    dataset = tmp_path_factory.mktemp("lz4") / "dataset"
    done = run(
        *("build", tiny_release, dataset, "--flow-codec", "lz4", "--codec", "png"),
        *("--flow-method", "dis", "--workers", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "lz4" in done.stdout
    return dataset


def test_the_command_builds_blocks_that_verify_and_inspect_read(
    built: Path, raw_dataset: Path
) -> None:
    manifest = read_manifest(built)
    assert manifest.streams["flow"].codec == "lz4" and manifest.streams["flow"].quality is None
    assert manifest.streams["rgb"].codec == "png"
    assert manifest.tools["lz4"]
    verified = run("verify", built)
    assert verified.returncode == 0, verified.stderr
    inspected = run("inspect", built, "--html", built.parent / "page.html")
    assert inspected.returncode == 0 and "lz4" in inspected.stdout
    assert "flow of pair" in (built.parent / "page.html").read_text()
    inspection = inspect_dataset(built)
    for row in inspection.rows[:5]:
        planes = raw_planes(raw_dataset, row["key"])
        for number in range(row["num_pairs"]):
            pair = read_pair(inspection, row, number)
            assert np.array_equal(pair.reshape(2, 256, 340), planes[2 * number : 2 * number + 2])


def test_a_jpeg_build_is_measured_against_a_lossless_lz4_build(
    built: Path, tiny_dataset: Path
) -> None:
    done = run("inspect", tiny_dataset, "--lossless", built)
    assert done.returncode == 0 and "codec error, flow:" in done.stdout, done.stderr
    done = run("inspect", built, "--lossless", tiny_dataset)
    assert done.returncode == 2 and "expected codec png, raw, lz4" in done.stderr


def test_another_number_of_workers_gives_the_same_bytes(
    built: Path, tiny_release: Path, tmp_path: Path
) -> None:
    done = run(
        *("build", tiny_release, tmp_path / "other", "--flow-codec", "lz4", "--codec", "png"),
        *("--flow-method", "dis", "--workers", 1),
    )
    assert done.returncode == 0, done.stderr
    for path in built.iterdir():
        assert digest_file(path) == digest_file(tmp_path / "other" / path.name), path.name


def test_tar_and_two_lines_of_lz4_read_a_pair(
    built: Path, raw_dataset: Path, tmp_path: Path
) -> None:
    tar = sorted(built.glob("flow-*.tar"))[0]
    with tarfile.open(tar) as opened:
        opened.extractall(tmp_path, filter="data")
    blocks = sorted(tmp_path.glob("*.flow-*.lz4"))
    assert blocks
    for path in blocks[:30]:
        pixels = lz4.block.decompress(path.read_bytes(), uncompressed_size=2 * 256 * 340)
        pair = np.frombuffer(pixels, np.uint8).reshape(2, 256, 340)
        key, _, rest = path.name.partition(".flow-")
        number = int(rest.removesuffix(".lz4"))
        planes = raw_planes(raw_dataset, key)
        assert np.array_equal(pair, planes[2 * number : 2 * number + 2])


def test_webdataset_and_dalis_reader_give_the_members(built: Path) -> None:
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    tars = sorted(built.glob("flow-*.tar"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False))
    pipeline = Pipeline(batch_size=6, num_threads=1, device_id=None)
    with pipeline:
        members = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["flow-003.lz4"],
            missing_component_behavior="error",
        )
        pipeline.set_outputs(members)
    pipeline.build()
    (blocks,) = pipeline.run()
    with open_dataset(built) as dataset:
        assert [sample["__key__"] for sample in samples] == dataset.keys
        for row in range(6):
            expected = dataset.read_member("flow", row, 3)
            assert np.array_equal(np.asarray(blocks[row]), expected)
            assert samples[row]["flow-003.lz4"] == expected.tobytes()


def test_a_block_of_another_size_is_found_and_named(built: Path, tmp_path: Path) -> None:
    """Its checksums fit: only decoding tells."""
    dataset = tmp_path / "dataset"
    shutil.copytree(built, dataset)
    with open_dataset(dataset) as opened:
        key, block = opened.keys[0], opened.read_member("flow", 0, 2).copy()
    smaller = encode_lz4(np.zeros((16, 16), np.uint8))
    tar = next(path for path in dataset.glob("flow-*.tar") if block.tobytes() in path.read_bytes())
    content = tar.read_bytes()
    spoiled = smaller + bytes(len(block) - len(smaller))
    tar.write_bytes(content.replace(block.tobytes(), spoiled, 1))
    record = json.loads((dataset / MANIFEST_NAME).read_text())
    record["files"] = {name: digest_file(dataset / name).to_json() for name in record["files"]}
    (dataset / MANIFEST_NAME).write_text(json.dumps(record))
    whats = [f"{fault.member}: {fault.what}" for fault in verify_dataset(dataset).faults]
    member = f"{key}.flow-002.lz4"
    assert any(what.startswith(f"{member}: CRC-32") for what in whats)
    assert f"{member}: cannot be decoded as an LZ4 block of 174080 bytes" in whats


def test_lz4_is_for_flow_alone(built: Path, tiny_release: Path, tmp_path: Path) -> None:
    done = run("build", tiny_release, tmp_path / "dataset", "--codec", "lz4")
    assert done.returncode == 2 and not (tmp_path / "dataset").exists()
    assert "--codec lz4, expected one of jpg, png, raw" in done.stderr
    done = run("build", tiny_release, tmp_path / "dataset", "--flow-codec", "bmp")
    assert done.returncode == 2 and "--flow-codec bmp, expected one of same, jpg" in done.stderr
    dataset = tmp_path / "edited"
    dataset.mkdir()
    text = (built / MANIFEST_NAME).read_text().replace('"codec": "png"', '"codec": "lz4"')
    (dataset / MANIFEST_NAME).write_text(text)
    with pytest.raises(DatasetError, match="codec 'lz4' of stream rgb, expected it of flow only"):
        read_manifest(dataset)


@pytest.mark.slow
def test_flow_of_a_real_face_takes_less_than_45_percent_of_raw(tmp_path: Path) -> None:
    for emotion in ("happy", "sadness"):
        (tmp_path / "videos" / emotion).mkdir(parents=True)
        shutil.copy(carphone_video(), tmp_path / "videos" / emotion / f"{emotion}.mp4")
    done = run(
        *("build", tmp_path / "videos", tmp_path / "dataset", "--flow-codec", "lz4"),
        *("--streams", "flow", "--no-subjects", "--yes"),
    )
    assert done.returncode == 0, done.stderr
    with open_dataset(tmp_path / "dataset") as dataset:
        assert dataset.manifest.flow is not None
        assert dataset.manifest.flow.method == "farneback"
        assert dataset.num_pairs.tolist() == [119, 119]
        num_bytes = sum(
            len(dataset.read_member("flow", row, k)) for row in range(2) for k in range(119)
        )
    assert num_bytes <= 0.45 * 2 * 119 * 2 * 256 * 340
