"""scores.parquet: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.fusion import late_fusion, softmax
from shard_builder.errors import InputError
from train.evaluation.scores import SCHEMA, StreamScores, read_scores, read_sequences, write_scores


def make_scores(stream: str, seed: int, num_views: int = 10) -> StreamScores:
    rng = np.random.default_rng(seed)
    return StreamScores(
        stream=stream,
        keys=("S010_001", "S005_002", "S011_003"),
        subjects=("S010", "S005", "S011"),
        labels=np.array([0, 2, 1]),
        logits=rng.normal(size=(3, num_views, 3)).astype(np.float32),
    )


def test_every_view_and_sequence_comes_back(tmp_path: Path) -> None:
    rgb, flow = make_scores("rgb", 0), make_scores("flow", 1, num_views=50)
    fused = late_fusion(rgb=rgb.probs, flow=flow.probs)
    write_scores(tmp_path / "scores.parquet", [rgb, flow], class_names=["a", "b", "c"], fused=fused)
    table, names = read_scores(tmp_path / "scores.parquet")
    assert names == ("a", "b", "c")
    assert table.num_rows == 3 * (10 + 1) + 3 * (50 + 1) + 3
    rows = table.to_pylist()
    view = next(
        r for r in rows if r["stream"] == "flow" and r["key"] == "S005_002" and r["view"] == 49
    )
    assert view["logits"] == pytest.approx(flow.logits[1, 49].tolist())
    assert view["label"] == 2 and view["subject"] == "S005"
    whole = next(
        r for r in rows if r["stream"] == "rgb" and r["key"] == "S011_003" and r["view"] is None
    )
    assert whole["probs"] == pytest.approx(softmax(rgb.logits[2].mean(0)).tolist(), abs=1e-6)
    last = next(r for r in rows if r["stream"] == "fused" and r["key"] == "S010_001")
    assert last["probs"] == pytest.approx(fused[0].tolist()) and last["logits"] is None
    assert all(abs(sum(r["probs"]) - 1) < 1e-9 for r in rows)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_logits_are_averaged_before_the_softmax() -> None:
    logits = np.array([[[4.0, 0.0], [-1.0, 0.0]]], np.float32)
    scores = StreamScores(
        stream="rgb", keys=("k",), subjects=("s",), labels=np.array([0]), logits=logits
    )
    assert scores.probs[0] == pytest.approx(softmax(np.array([1.5, 0.0])))
    assert scores.probs[0] != pytest.approx(softmax(logits[0]).mean(0), abs=1e-3)


def test_scores_check_themselves() -> None:
    with pytest.raises(ValueError, match="2 keys, 1 subjects"):
        StreamScores(
            stream="rgb",
            keys=("a", "b"),
            subjects=("s",),
            labels=np.array([0]),
            logits=np.zeros((1, 1, 2), np.float32),
        )
    with pytest.raises(ValueError, match="not finite"):
        StreamScores(
            stream="rgb",
            keys=("a",),
            subjects=("s",),
            labels=np.array([0]),
            logits=np.full((1, 1, 2), np.nan, np.float32),
        )


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="not a scores table"):
        read_scores(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="not a scores table"):
        read_scores(tmp_path / "foreign.parquet")


def written(path: Path, columns: dict[str, pa.Array]) -> Path:
    """Write a file with the right columns, whatever they hold."""
    num_rows = len(columns["key"])
    usual = {
        "stream": pa.repeat("rgb", num_rows),
        "subject": pa.repeat("s", num_rows),
        "label": pa.repeat(pa.scalar(0, pa.int32()), num_rows),
        "view": pa.nulls(num_rows, pa.int32()),
        "logits": pa.nulls(num_rows, SCHEMA.field("logits").type),
        "probs": pa.array([[0.5, 0.5]], SCHEMA.field("probs").type).take(
            pa.repeat(pa.scalar(0, pa.int32()), num_rows)
        ),
    }
    table = pa.table({name: (usual | columns)[name] for name in SCHEMA.names}, schema=SCHEMA)
    table = table.replace_schema_metadata({"class_names": '["a", "b"]'})
    pq.write_table(table, path, compression="zstd")
    return path


@pytest.mark.parametrize("what", ["rows", "values of one row"])
def test_a_small_file_of_many_equal_values_is_not_unpacked(what: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    if what == "rows":
        written(path, {"key": pa.repeat("k", 6_000_000)})
    else:
        probs = pa.FixedSizeListArray.from_arrays(pa.repeat(0.5, 1 << 25), 1 << 25)
        written(path, {"key": pa.repeat("k", 1), "probs": probs.cast(SCHEMA.field("probs").type)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="more than 33554432 values"):
        read_sequences(path)


def test_a_long_text_in_many_rows_stands_in_memory_once(tmp_path: Path) -> None:
    key = "k" * 1_000_000
    keys = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int32)), pa.array([key]))
    path = written(tmp_path / "scores.parquet", {"key": keys.cast(pa.string())})
    before = pa.total_allocated_bytes()
    table, _ = read_scores(path)
    assert table.nbytes < 10_000_000 and pa.total_allocated_bytes() - before < 20_000_000
    scores, _ = read_sequences(path)
    assert scores["rgb"].keys == (key,) * 1000


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stream", "sound", "stream 'sound', expected flow, fused, rgb"),
        ("label", 2, "k1: label 2 and 2 probabilities of 2 classes"),
        ("label", -1, "k1: label -1 and 2 probabilities of 2 classes"),
        ("probs", [1.0], "k1: label 0 and 1 probabilities of 2 classes"),
        ("probs", [1.5, 0.0], "k1: probabilities .1.5, 0.0., expected 0 to 1"),
        ("probs", [float("nan"), 0.0], "k1: probabilities .nan, 0.0., expected 0 to 1"),
    ],
)
def test_a_row_of_a_sequence_is_checked(
    name: str, value: object, words: str, tmp_path: Path
) -> None:
    whole = {"stream": "rgb", "label": 0, "probs": [0.25, 0.75]}[name]
    column = pa.array([whole, value, whole], SCHEMA.field(name).type)
    path = written(tmp_path / "scores.parquet", {"key": pa.array(["k0", "k1", "k2"]), name: column})
    with pytest.raises(InputError, match=words):
        read_sequences(path)
