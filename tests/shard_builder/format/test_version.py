"""Version 2 of the folder names apex and part; folders of version 1 are opened as they are."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.errors import DatasetError, SourceError
from shard_builder.files import digest_file
from shard_builder.format.index import INDEX_NAME, index_schema, read_index, write_index
from shard_builder.format.manifest import read_manifest
from shard_builder.format.shards import ShardWriter
from shard_builder.format.verify import verify_dataset
from shard_builder.images import decode_gray
from shard_builder.sources.detect import scan_source
from shard_builder.sources.options import ScanOptions
from tests.face_sets import write_frames, write_video

OPTIONS = BuildOptions(codec="png", width=64, height=48, flow_method="dis")


def write_version_1(dataset: Path, out: Path) -> Path:
    """Write a dataset again as version 1: no fold and no apex, in the index and in the shards."""
    out.mkdir()
    manifest = read_manifest(dataset)
    rows = read_index(dataset / INDEX_NAME, streams=manifest.streams, version=2).to_pylist()
    row_of = {row["key"]: row for row in rows}
    files = {}
    for stream, entry in manifest.streams.items():
        for shard in entry.shards:
            writer = ShardWriter(out, shard.name.removesuffix(".tar"), temporary_dir=out)
            samples: dict[str, dict[str, bytes]] = {}
            with tarfile.open(dataset / shard.name) as tar:
                for info in tar:
                    key, _, extension = info.name.partition(".")
                    data = tar.extractfile(info)
                    assert data is not None
                    samples.setdefault(key, {})[extension] = data.read()
            for key, members in samples.items():
                fields = json.loads(members["json"])
                del fields["fold"], fields["apex"]
                members["json"] = json.dumps(fields, sort_keys=True).encode()
                places = writer.write(key, members)
                images = [places[name] for name in places if name not in ("cls", "json")]
                row_of[key][f"{stream}_offset"] = [place.offset for place in images]
            writer.finish()
            files |= writer.files
    batch = pa.RecordBatch.from_pylist(rows, schema=index_schema(manifest.streams, version=1))
    with (
        pa.OSFile(str(out / INDEX_NAME), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as file,
    ):
        file.write_batch(batch)
    files[INDEX_NAME] = digest_file(out / INDEX_NAME)
    source = {name: manifest.source[name] for name in ("kind", "num_unlabelled", "num_skipped")}
    num_bytes = {
        stream: sum(files[shard.name].num_bytes for shard in entry.shards)
        for stream, entry in manifest.streams.items()
    }
    streams = {
        stream: replace(entry, num_bytes=num_bytes[stream])
        for stream, entry in manifest.streams.items()
    }
    older = replace(manifest, version=1, files=files, source=source, streams=streams)
    record = json.loads(older.to_json())
    del record["sampling"], record["flow"]["rest_fraction"], record["flow"]["size"]
    (out / "manifest.json").write_text(json.dumps(record))
    return out


def test_a_folder_of_version_1_is_whole_and_reads_the_same(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    older = write_version_1(tiny_dataset, tmp_path / "dataset")
    assert json.loads((older / "manifest.json").read_text())["version"] == 1
    assert "apex" not in pa.ipc.open_file(str(older / INDEX_NAME)).schema.names
    assert verify_dataset(older).faults == ()
    with open_dataset(older) as one, open_dataset(tiny_dataset) as two:
        assert one.manifest.version == 1 and two.manifest.version == 2
        assert np.array_equal(one.apex, two.apex) and np.array_equal(one.apex, one.num_frames - 1)
        assert one.folds == two.folds == [""] * len(one)
        assert one.keys == two.keys and one.manifest.has_subjects
        assert one.manifest.sampling == two.manifest.sampling
        for stream in ("rgb", "flow"):
            assert bytes(one.read_member(stream, 3, 1)) == bytes(two.read_member(stream, 3, 1))


@pytest.mark.parametrize("version", [0, 3, True, "2", None, 1.5])
def test_any_other_version_is_refused(version: object, tiny_dataset: Path, tmp_path: Path) -> None:
    record = json.loads((tiny_dataset / "manifest.json").read_text()) | {"version": version}
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match=r"version .*, expected 1 or 2"):
        read_manifest(tmp_path)


def build_table(root: Path, text: str, **options: object) -> Path:
    (root / "table.csv").write_text(text)
    source = scan_source(root / "table.csv", ScanOptions(**options))  # type: ignore[arg-type]
    build_dataset(source, root, root / "dataset", OPTIONS, overwrite=True)
    return root / "dataset"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_frames(tmp_path / "a", "{}.png", first=95, num_frames=9)
    write_video(tmp_path / "b.avi", num_frames=9)
    return tmp_path


def test_onset_to_offset_is_kept_and_the_apex_counts_from_the_onset(root: Path) -> None:
    dataset = build_table(
        root,
        "path,label,subject,onset,apex,offset,fold\na,joy,A,97,100,102,train\n"
        "b.avi,sad,B,1,3,6,val\n",
    )
    assert verify_dataset(dataset).faults == ()
    with open_dataset(dataset) as opened:
        rows = {key: row for row, key in enumerate(opened.keys)}
        for key, first, apex, num_frames, fold in (("a", 2, 3, 6, "train"), ("b", 1, 2, 6, "val")):
            row = rows[key]
            assert (opened.apex[row], opened.num_frames[row]) == (apex, num_frames)
            assert (opened.num_pairs[row], opened.folds[row]) == (num_frames - 1, fold)
            frames = [decode_gray(opened.read_member("rgb", row, n)) for n in range(num_frames)]
            levels = [round((float(np.median(frame)) - 10) / 10) for frame in frames]
            assert levels == list(range(first, first + num_frames))


def test_an_apex_behind_the_end_of_a_video_is_a_fault(root: Path) -> None:
    with pytest.raises(SourceError, match=r"line 2: .*apex 9, expected 0 to 8"):
        build_table(root, "path,label,subject,apex\nb.avi,joy,A,9\n")


def leave_unfinished(root: Path, text: str, out: Path, patch: pytest.MonkeyPatch) -> None:
    """Build what a table says up to its last step, as a kill leaves it."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    (root / "table.csv").write_text(text)
    with patch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr("shard_builder.building.build.finish_dataset", die)
        build_dataset(scan_source(root / "table.csv"), root, out, OPTIONS)


@pytest.mark.parametrize(
    ("change", "num_reused"),
    [
        (("", ""), 1),
        (("A,98", "C,98"), 0),
        (("joy", "fun"), 0),
        (("98,", "99,"), 0),
        ((",val", ",test"), 0),
        ((",3,5", ",3,6"), 0),
    ],
)
def test_a_resumed_build_takes_no_shard_of_another_table(
    change: tuple[str, str], num_reused: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "path,label,subject,apex,offset,fold\na,joy,A,98,,train\nb.avi,sad,B,3,5,val\n"
    leave_unfinished(root, text, root / "dataset", monkeypatch)
    (root / "table.csv").write_text(text.replace(*change))
    source = scan_source(root / "table.csv")
    report = build_dataset(source, root, root / "dataset", OPTIONS)
    assert (report.num_shards, report.num_reused_shards) == (1, num_reused)
    assert verify_dataset(root / "dataset").faults == ()


def test_an_apex_outside_the_sequence_is_found(root: Path) -> None:
    dataset = build_table(root, "path,label,subject\na,joy,A\nb.avi,sad,B\n")
    rows = read_index(dataset / INDEX_NAME, streams=("rgb", "flow"), version=2).to_pylist()
    rows[0]["apex"] = 9
    write_index(dataset / INDEX_NAME, rows, streams=("rgb", "flow"), temporary_dir=dataset)
    faults = [str(fault) for fault in verify_dataset(dataset, quick=True).faults]
    assert any("apex 9, expected 0 to 8" in fault for fault in faults)
