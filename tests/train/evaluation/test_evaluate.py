"""The test of runs: on unseen subjects only, fused where there are two, and what is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.fusion import softmax
from pipelines.dataset import open_dataset
from shard_builder.errors import InputError
from shard_builder.split import Split, write_split
from tests.train.tiny_net import SHORT
from train.config import TrainConfig
from train.evaluation.evaluate import evaluate_runs
from train.running.train_run import run_train


def test_two_runs_are_tested_and_fused(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    report = evaluate_runs([runs["flow"], runs["rgb"]], tiny_dataset, out=tmp_path / "test")
    assert (
        set(report.results) == {"flow", "rgb", "fused"}
        and report.num_sequences == 14
        and report.num_subjects == 2
    )
    record = json.loads((tmp_path / "test" / "test.json").read_text())
    assert record["fusion"]["rgb"] == 1.0 and record["fusion"]["flow"] == 1.5
    assert record["mcnemar"]["p_value"] <= 1
    for name in ("flow", "rgb", "fused"):
        assert np.array(record[name]["confusion"]).sum() == 14
        assert (tmp_path / "test" / f"confusion-{name}.png").is_file()
    table = pq.read_table(tmp_path / "test" / "scores.parquet").to_pylist()
    views = {
        name: [row for row in table if row["stream"] == name and row["view"] is not None]
        for name in ("rgb", "flow")
    }
    assert len(views["rgb"]) == 14 * 10 and len(views["flow"]) == 14 * 50
    key = table[0]["key"]
    logits = np.mean([row["logits"] for row in views["flow"] if row["key"] == key], axis=0)
    whole = next(
        row
        for row in table
        if row["stream"] == "flow" and row["key"] == key and row["view"] is None
    )
    np.testing.assert_allclose(whole["probs"], softmax(logits), rtol=1e-5)
    lines = [
        json.loads(line)
        for line in (tmp_path / "test" / "predictions.jsonl").read_text().splitlines()
    ]
    assert all(sum(line["probs"]["fused"]) == pytest.approx(1, abs=1e-4) for line in lines)


def test_the_originals_views_are_its_own(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    ten, original = (
        evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / views, views=views).results[
            "flow"
        ]
        for views in ("ten", "original")
    )
    assert ten.num_sequences == original.num_sequences == 14
    tables = [
        pq.read_table(tmp_path / views / "scores.parquet").column("probs")
        for views in ("ten", "original")
    ]
    assert tables[0] != tables[1]


def test_runs_of_different_splits_are_refused_with_a_subject(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"their splits differ.*subject S\d{3}"):
        evaluate_runs([runs["rgb"], runs["other"]], tiny_dataset, out=tmp_path / "test")
    with pytest.raises(InputError, match="both are flow runs"):
        evaluate_runs([runs["flow"], runs["other"]], tiny_dataset, out=tmp_path / "test")
    assert not (tmp_path / "test").exists()


def test_a_run_that_saw_a_test_subject_is_refused_with_its_name(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        keys = sorted(dataset.keys)
    leaky = [key for key in keys if key.endswith(keys[0][-3:])]
    write_split(
        tmp_path / "split.json",
        Split(kind="list", train=tuple(set(keys) - set(leaky)), val=tuple(leaky)),
    )
    config = TrainConfig(stream="flow", split=str(tmp_path / "split.json"), **SHORT)  # type: ignore[arg-type]
    assert run_train(config, tiny_dataset, tmp_path / "run", resume=False) == 0
    with pytest.raises(
        InputError, match=rf"was trained on 6 of the 6 test subjects \({leaky[0][:4]}"
    ):
        evaluate_runs([tmp_path / "run"], tiny_dataset, out=tmp_path / "test")


def test_a_dataset_of_another_geometry_or_flow_is_refused(
    runs: dict[str, Path], build_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    smaller = build_tiny(codec="jpg", width=320, height=240)
    with pytest.raises(
        InputError, match=r"frame size \(320, 240\), but .* was trained on \(340, 256\)"
    ):
        evaluate_runs([runs["flow"]], smaller, out=tmp_path / "test")
    coarser = build_tiny(codec="jpg", bound_px=20.0)
    with pytest.raises(
        InputError, match=r"flow .* \('dis', 20\.0, None\), but .* \('dis', 10\.0, None\)"
    ):
        evaluate_runs([runs["flow"]], coarser, out=tmp_path / "test")


def test_a_missing_or_foreign_run_is_refused(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        evaluate_runs([tmp_path / "nowhere"], tiny_dataset, out=tmp_path / "test")
    shutil.copytree(runs["flow"], tmp_path / "run")
    (tmp_path / "run" / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        evaluate_runs([tmp_path / "run"], tiny_dataset, out=tmp_path / "test")
    with pytest.raises(InputError, match="checkpoint='first', expected one of last, best"):
        evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / "test", checkpoint="first")


def test_a_test_says_that_the_dataset_is_another_and_leaves_no_figure_of_an_earlier_one(
    runs: dict[str, Path], tiny_dataset: Path, raw_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "test"
    pair = evaluate_runs([runs["flow"], runs["rgb"]], tiny_dataset, out=out)
    assert pair.notices == () and (out / "confusion-fused.png").is_file()
    single = evaluate_runs([runs["flow"]], raw_dataset, out=out)
    assert single.notices == (
        f"notice: {raw_dataset} is another dataset than {runs['flow']} was trained on",
    )
    assert [path.name for path in out.glob("confusion-*")] == ["confusion-flow.png"]


def test_a_dataset_of_other_face_crops_is_refused(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    """Nothing but the pictures would tell: their size is the same."""
    cropped = Path(shutil.copytree(tiny_dataset, tmp_path / "cropped"))
    manifest = json.loads((cropped / "manifest.json").read_text())
    manifest["crop"] = "landmarks, margin 0.2"
    (cropped / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"face crop landmarks, margin 0\.2, but .* on none"):
        evaluate_runs([runs["flow"]], cropped, out=tmp_path / "test")
