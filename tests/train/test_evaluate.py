"""cktrain test and predict: unseen subjects only, fusion, what is written, and prediction on a real
face without any dataset."""

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
from tests.system.test_system import carphone_video, read_video
from tests.tiny_net_cktrain import make_tiny_net
from train.config import TrainConfig
from train.evaluation.evaluate import evaluate_runs
from train.evaluation.fusion_choice import choose_weights
from train.prediction.predict import run_predict
from train.running.train_run import run_train

OPTIONS = {
    "arch": "tiny",
    "weights": "none",
    "epochs": 1,
    "batch_size": 7,
    "iter_size": 1,
    "workers": 1,
}
OPTIONS |= {"precision": "fp32", "folds": 3, "lr": 0.1}


@pytest.fixture(scope="module")
def runs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An rgb and a flow run of the tiny net on the same split, and a flow run on another."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        for name, stream, fold in (("rgb", "rgb", 0), ("flow", "flow", 0), ("other", "flow", 1)):
            config = TrainConfig(stream=stream, fold=fold, **OPTIONS)  # type: ignore[arg-type]
            assert run_train(config, tiny_dataset, folder / name, resume=False) == 0
    return {name: folder / name for name in ("rgb", "flow", "other")}


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.build._torchvision_model", make_tiny_net)


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


def test_fusion_weights_are_given_or_searched_on_other_subjects(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    both = [runs["rgb"], runs["flow"]]
    given = evaluate_runs(both, tiny_dataset, out=tmp_path / "given", fusion="1:3").weights
    assert given is not None and (given.rgb, given.flow, given.origin) == (1.0, 3.0, "given")
    with pytest.raises(InputError, match=r"2 of its subjects are tested now \(S\d{3}"):
        evaluate_runs(both, tiny_dataset, out=tmp_path / "again", fusion=str(tmp_path / "given"))
    searched = choose_weights(
        str(tmp_path / "given"), tested_subjects={"S999"}, class_names=class_names(tiny_dataset)
    )
    assert searched.origin == "validation" and searched.rgb + searched.flow == pytest.approx(1)
    single = evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / "single")
    assert single.weights is None
    for text, words in (
        ("1;2", "no colon"),
        ("0:0", "one positive"),
        (str(tmp_path / "single"), "a test of one stream"),
    ):
        with pytest.raises(InputError, match=words):
            choose_weights(text, tested_subjects={"S999"}, class_names=class_names(tiny_dataset))


def class_names(folder: Path) -> tuple[str, ...]:
    with open_dataset(folder) as dataset:
        return dataset.class_names


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
    config = TrainConfig(stream="flow", split=str(tmp_path / "split.json"), **OPTIONS)  # type: ignore[arg-type]
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
        InputError, match=r"flow \('dis', 20\.0\), but .* was trained on \('dis', 10\.0\)"
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
    with pytest.raises(InputError, match="--checkpoint 'first', expected one of last, best"):
        evaluate_runs([runs["flow"]], tiny_dataset, out=tmp_path / "test", checkpoint="first")


def test_a_real_video_is_predicted_from_the_checkpoints_alone(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """Windows that sum to one, the first of them before the whole video is read, and figures over
    its own frames."""
    windows: list[int] = []
    clip = run_predict(
        [runs["rgb"], runs["flow"]],
        carphone_video(),
        out=tmp_path / "out",
        overlay=tmp_path / "out" / "overlay.mp4",
        on_window=lambda window, end_s, names: windows.append(window.last_frame),
    )
    assert clip.num_frames == 120 and clip.num_windows == len(windows) == 24
    assert windows[0] == 5 and windows[-1] == 119
    assert clip.first_output_s < clip.seconds / 4
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    assert [line["kind"] for line in lines] == ["window"] * 24 + ["clip"]
    for line in lines:
        for probs in line["probs"].values():
            assert sum(probs.values()) == pytest.approx(1, abs=1e-6)
    assert len(read_video(tmp_path / "out" / "overlay.mp4")) == 120
    for name in ("bars.png", "timeline.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_ckplus_sequence_is_predicted_too(
    runs: dict[str, Path], tiny_release: Path, tmp_path: Path
) -> None:
    sequence = next(
        path for path in sorted(tiny_release.rglob("S*/0*")) if list(path.glob("*.png"))
    )
    clip = run_predict([runs["flow"]], sequence, out=tmp_path / "out")
    assert clip.num_frames == len(list(sequence.glob("*.png"))) and set(clip.probs) == {"flow"}
