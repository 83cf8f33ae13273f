"""The dataset's files as three strangers read them: webdataset, DALI's reader, plain tar; and their
exact bytes."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.dataset import open_dataset
from shard_builder.files import digest_file
from shard_builder.format.manifest import read_manifest
from shard_builder.format.shards import ShardWriter

SAMPLES = {
    "S005_001": {"cls": b"2", "flow-000.jpg": b"a" * 700, "flow-001.jpg": b"", "json": b"{}"},
    "S010_004": {"cls": b"10", "flow-000.jpg": b"b" * 512, "json": b'{"a": 1}'},
    "S" + "9" * 75 + "_001": {"cls": b"0", "json": b"x" * 5000},
}


def write_samples(folder: Path) -> Path:
    writer = ShardWriter(folder, "flow-000000", temporary_dir=folder)
    for key, members in SAMPLES.items():
        writer.write(key, members)
    writer.finish()
    return folder / "flow-000000.tar"


def test_the_bytes_are_those_of_webdatasets_own_writer(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        ours = write_samples(tmp_path)
        theirs = io.BytesIO()
        with webdataset.TarWriter(theirs, mtime=0, encoder=False) as writer:
            for key, members in SAMPLES.items():
                writer.write({"__key__": key, **members})
    assert ours.read_bytes() == theirs.getvalue()


def test_the_index_is_what_wds2idx_writes(tiny_dataset: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("wds2idx")
    for tar in [write_samples(tmp_path), *sorted(tiny_dataset.glob("*.tar"))[:3]]:
        out = tmp_path / "theirs.idx"
        done = subprocess.run([str(program), str(tar), str(out)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert out.read_text().splitlines() == tar.with_suffix(".idx").read_text().splitlines()


def test_webdataset_reads_the_shards(tiny_dataset: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        urls = [str(path) for path in sorted(tiny_dataset.glob("flow-*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    with open_dataset(tiny_dataset) as dataset:
        assert [sample["__key__"] for sample in samples] == dataset.keys
        for row, sample in enumerate(samples):
            assert int(sample["cls"]) == dataset.labels[row]
            pairs = sorted(name for name in sample if name.startswith("flow-"))
            assert len(pairs) == dataset.num_pairs[row]
            assert sample[pairs[-1]] == bytes(dataset.read_member("flow", row, -1))


def test_dalis_reader_reads_the_shards_by_our_index(tiny_dataset: Path) -> None:
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    tars = sorted(tiny_dataset.glob("flow-*.tar"))
    pipeline = Pipeline(batch_size=6, num_threads=1, device_id=None)
    with pipeline:
        data, label = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["flow-000.jpg", "cls"],
            missing_component_behavior="error",
        )
        pipeline.set_outputs(data, label)
    pipeline.build()
    images, labels = pipeline.run()
    with open_dataset(tiny_dataset) as dataset:
        for row in range(6):
            assert np.array_equal(np.asarray(images[row]), dataset.read_member("flow", row, 0))
            assert bytes(np.asarray(labels[row])) == str(dataset.labels[row]).encode()


def test_plain_tar_unpacks_images_of_the_manifests_geometry(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(tiny_dataset)
    tar = sorted(tiny_dataset.glob("flow-*.tar"))[0]
    subprocess.run(["tar", "-xf", str(tar), "-C", str(tmp_path)], check=True)
    images = list(tmp_path.glob("*.flow-*.jpg"))
    assert images
    for path in images[:5]:
        shape = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
        assert shape == (2 * manifest.geometry.height, manifest.geometry.width)
    with tarfile.open(tar) as opened:
        for entry in opened:
            assert (entry.mtime, entry.mode, entry.isreg()) == (0, 0o444, True)


def test_the_manifest_names_every_file_and_its_digest(tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    present = {path.name for path in tiny_dataset.iterdir()} - {"manifest.json"}
    assert set(manifest.files) == present
    for name, digest in manifest.files.items():
        assert digest_file(tiny_dataset / name) == digest


def test_a_shard_that_is_not_finished_leaves_no_final_name(tmp_path: Path) -> None:
    final, temporary = tmp_path / "final", tmp_path / "temporary"
    final.mkdir()
    temporary.mkdir()
    writer = ShardWriter(final, "rgb-000000", temporary_dir=temporary)
    writer.write("S005_001", {"cls": b"1"})
    writer.close()
    assert not list(final.iterdir())


@pytest.mark.parametrize("key", ["", "a.b", "a b", "ä", "x" * 81, "a/b"])
def test_keys_that_a_tar_reader_would_split_are_refused(key: str, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "rgb-000000", temporary_dir=tmp_path)
    with pytest.raises(ValueError, match="key"):
        writer.write(key, {"cls": b"1"})
    writer.close()
