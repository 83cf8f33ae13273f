"""Cross-validation: each sequence tested once, by a net that never saw its subject."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset
from shard_builder.building.options import BuildOptions
from shard_builder.commands.split import run_split
from shard_builder.errors import InputError
from shard_builder.lock import lock_path, this_process
from shard_builder.sources.detect import scan_source
from tests.face_sets import write_video
from tests.train.tiny_net import SHORT, Cktrain
from train.config import TrainConfig
from train.evaluation.cross_validate import fold_splits, run_folds
from train.evaluation.cv_options import CvOptions
from train.evaluation.cv_protocol import fold_dir
from train.evaluation.cv_summary import summarize


def run(dataset: Path, out: Path, stream: str = "flow", **options: object) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    config = TrainConfig(stream=stream, **SHORT)  # type: ignore[arg-type]
    if options.get("split") != "fold":
        options = {"folds": 3} | options
    chosen = CvOptions(**options)  # type: ignore[arg-type]
    code = run_folds(
        config, dataset, out, chosen, on_fold=lambda fold, text: told.append((fold, text))
    )
    assert code == 0
    return told


def test_folds_pool_to_every_sequence_once_and_both_streams_are_fused(
    small_dataset: Path, tmp_path: Path
) -> None:
    for stream in ("flow", "rgb"):
        run(small_dataset, tmp_path / "cv", stream)
    summary = summarize(tmp_path / "cv")
    for stream in ("rgb", "flow", "fused"):
        series = summary.find(stream, "subject-kfold")
        assert series is not None and series.folds == (0, 1, 2)
        assert series.pooled.num_sequences == sum(series.fold_sizes) == 21
    record = json.loads((tmp_path / "cv" / "cv.json").read_text())
    assert {entry["stream"] for entry in record["series"]} == {"rgb", "flow", "fused"}
    assert (tmp_path / "cv" / "flow-subject-kfold" / "confusion.png").is_file()


def test_finished_folds_are_kept_and_an_unfinished_one_is_resumed(
    small_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    told = run(small_dataset, out, only=(0, 2))
    assert [text.split(":")[0] for _, text in told] == ["training (not begun)", "finished"] * 2
    accuracies = [text.split(": ")[1] for _, text in told[1::2]]
    assert all(re.fullmatch(r"\d+\.\d % of 7 sequences", text) for text in accuracies)
    before = (fold_dir(out, "flow", "subject-kfold", 0) / "last.pt").read_bytes()
    unfinished = fold_dir(out, "flow", "subject-kfold", 2)
    weights = torch.load(unfinished / "last.pt", weights_only=True)["model"]
    (unfinished / "test" / "test.json").unlink()
    told = run(small_dataset, out)
    assert told[0] == (0, f"finished already, kept: {accuracies[0]}")
    assert [(fold, text.split(":")[0]) for fold, text in told[1:]] == [
        (1, "training (not begun)"),
        (1, "finished"),
        (2, "training (not finished)"),
        (2, "finished"),
    ]
    assert told[-1][1] == f"finished: {accuracies[1]}"
    assert (fold_dir(out, "flow", "subject-kfold", 0) / "last.pt").read_bytes() == before
    again = torch.load(unfinished / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(again[name], weights[name]) for name in weights), (
        "a trained fold is tested, not trained again"
    )


def test_a_fold_that_another_process_works_on_is_left_to_it(
    small_dataset: Path, tmp_path: Path
) -> None:
    lock = lock_path(fold_dir(tmp_path / "cv", "flow", "subject-kfold", 1))
    lock.parent.mkdir(parents=True)
    holder = replace(this_process(), host="elsewhere", pid=7)
    lock.write_text(json.dumps(asdict(holder)))
    told = dict(run(small_dataset, tmp_path / "cv", only=(1,)))
    since = f"process 7 on elsewhere since {holder.since}"
    assert told == {1: f"left to {since}; has it died? Then --take-over"}
    (missing,) = [m for m in summarize(tmp_path / "cv").missing if m.fold == 1]
    assert missing.reason == f"not begun, {since} is at it"
    config = TrainConfig(stream="flow", **SHORT)  # type: ignore[arg-type]
    options = CvOptions(folds=3, only=(1,))
    assert run_folds(config, small_dataset, tmp_path / "cv", options, take_over=True) == 0
    assert summarize(tmp_path / "cv").series[0].folds == (1,)


def test_the_originals_split_needs_ten_sequences_a_class(
    small_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no class has 10 sequences"):
        run(small_dataset, tmp_path / "cv", split="original-random", only=(0,))


def test_an_inner_fold_is_neither_trained_on_nor_tested(
    small_dataset: Path, tmp_path: Path
) -> None:
    options = CvOptions(folds=3, select="inner")
    with open_dataset(small_dataset) as dataset:
        outer, trained = fold_splits(dataset, options, 0)
        assert set(trained.train) | set(trained.val) == set(outer.train)
        subjects = [{key[:4] for key in side} for side in (trained.train, trained.val, outer.val)]
        assert [len(side) for side in subjects] == [1, 1, 1] and len(set.union(*subjects)) == 3
    run(small_dataset, tmp_path / "cv", select="inner", only=(0,))
    report = json.loads(
        (fold_dir(tmp_path / "cv", "flow", "subject-kfold", 0) / "test" / "test.json").read_text()
    )
    assert report["checkpoint"] == "best" and report["num_sequences"] == len(outer.val)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "loso"}, "split='loso', expected one of subject-kfold, original-random"),
        ({"select": "best"}, "select='best'"),
        ({"only": (3,)}, "only=3, expected an integer from 0 to 2"),
        ({"split": "original-random", "select": "inner"}, "select='inner' needs"),
        ({"split": "fold"}, "folds=3 with split='fold': the dataset names its folds"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CvOptions(folds=3, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three official folds, numbered 1, 2 and 5, and a test part."""
    root = tmp_path_factory.mktemp("official")
    lines = ["path,label,subject,fold"]
    for fold in ("set_1", "set_2", "set_5", "test"):
        for label in ("joy", "sad"):
            write_video(root / f"{fold}-{label}.avi")
            lines.append(f"{fold}-{label}.avi,{label},p{fold},{fold}")
    (root / "table.csv").write_text("\n".join(lines))
    options = BuildOptions(codec="png", width=64, height=48, flow_method="dis")
    build_dataset(scan_source(root / "table.csv"), root, root / "dataset", options)
    return root / "dataset"


def test_official_folds_are_run_and_pooled_without_the_third_part(
    official: Path, cktrain: Cktrain, tmp_path: Path
) -> None:
    words = [f"--{n.replace('_', '-')}={v}" for n, v in SHORT.items() if n != "batch_size"]
    code, printed, errors = cktrain(
        *("cv", "flow", official, "--out", tmp_path / "cv", "--split", "fold"),
        *("--batch-size", 2, *words),
    )
    assert code == 0, errors
    for number in (1, 2, 5):
        assert re.search(rf"flow, fold, fold {number}: finished: \d+\.\d % of 2 seq", printed)
    summary = summarize(tmp_path / "cv")
    series = summary.find("flow", "fold")
    assert series is not None and series.folds == (1, 2, 5)
    assert series.fold_sizes == (2, 2, 2) and series.pooled.num_sequences == 6
    for fold in (1, 2, 5):
        folder = fold_dir(tmp_path / "cv", "flow", "fold", fold)
        content = torch.load(folder / "last.pt", weights_only=True)
        assert not any("test" in key for key in content["train_keys"] + content["val_keys"])
        assert len(content["test_keys"]) == 2
    code, _, errors = cktrain(
        "cv", "flow", official, "--out", tmp_path / "x", "--split", "fold", "--only", "3"
    )
    assert code == 2 and "--only 3, expected some of the official folds 1, 2, 5" in errors


def test_a_dataset_without_folds_is_refused(small_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the dataset names 0 official folds, expected two"):
        run(small_dataset, tmp_path / "cv", split="fold")


def test_a_class_that_a_fold_cannot_train_is_said_before_any_training(
    cktrain: Cktrain, tmp_path: Path
) -> None:
    """Folds 0 and 1 were trained before fold 2 ended with the message."""
    lines = ["path,label,subject"]
    for subject in ("a", "b", "c"):
        for label in ("joy", "sad", *(("fun",) if subject == "c" else ())):
            write_video(tmp_path / f"{subject}-{label}.avi")
            lines.append(f"{subject}-{label}.avi,{label},{subject}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    options = BuildOptions(codec="png", width=64, height=48, flow_method="dis")
    build_dataset(scan_source(tmp_path / "table.csv"), tmp_path, tmp_path / "dataset", options)
    words = [f"--{n.replace('_', '-')}={v}" for n, v in SHORT.items() if n != "batch_size"]
    cv = ("cv", "flow", tmp_path / "dataset", "--out", tmp_path / "cv", "--folds", 3)
    code, printed, errors = cktrain(*cv, "--batch-size", 2, *words)
    assert code == 2 and "training" not in printed
    assert "class fun: fold 2 tests its 1 sequence (subject c)" in errors
    assert "--classes 'fun='" in errors and "--untrained wrong" in errors
    assert not list((tmp_path / "cv").glob("*/fold-*"))
    code, printed, errors = cktrain(*cv, "--batch-size", 2, *words, "--untrained", "wrong")
    assert code == 0, errors
    assert summarize(tmp_path / "cv").series[0].pooled.num_sequences == 7


def test_fewer_subjects_than_ten_are_as_many_folds_unless_a_number_was_given(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    monkeypatch.setattr(
        "train.evaluation.cross_validate._run_fold", lambda *a: trained.append(a[4]) or 143
    )
    words = [f"--{n.replace('_', '-')}={v}" for n, v in SHORT.items()]
    cv = ("cv", "flow", small_dataset, "--out", tmp_path / "cv", *words)
    code, printed, errors = cktrain(*cv)
    assert code == 143 and trained == [0], errors
    assert "notice: 3 subjects, so 3 folds in place of 10" in printed
    assert printed.count("flow, subject-kfold, fold ") == 1 + 3 and "fold 2: not begun" in printed
    code, _, errors = cktrain(*cv[:-1], "--folds", 10)
    assert code == 2 and "--folds 10, expected 2 to 3 (the number of subjects)" in errors


def test_a_training_and_a_split_adapt_alike(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{n.replace('_', '-')}={v}" for n, v in SHORT.items()]
    code, printed, errors = cktrain("flow", small_dataset, "--out", tmp_path / "run", *words)
    assert code == 0 and "notice: 3 subjects, so 3 folds in place of 10" in printed, errors
    assert "validating on 7 sequences of 1 subject" in printed
    none = {"fold": 0, "subject": "", "seed": 0, "kind": "subject-kfold"}
    for folds, notice in ((None, True), (3, False)):
        run_split(small_dataset, out=None, original_format=None, folds=folds, **none)
        assert ("3 folds in place of 10" in capsys.readouterr().out) == notice


def test_folds_without_end_are_refused() -> None:
    with pytest.raises(InputError, match=f"folds={10**20}, expected 1000000 or less"):
        CvOptions(folds=10**20)
