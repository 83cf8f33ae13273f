"""What is pooled proves by hash that it belongs: all else is refused, or tested again.

Before, a fold was finished if it had a test.json: three folds then ``--folds 4``, another dataset
or other options were pooled with the old ones, exit 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import BuildDataset
from tests.train.tiny_net import SHORT, Cktrain, make_tiny_net
from train.config import TrainConfig
from train.evaluation.cross_validate import run_folds
from train.evaluation.cv_options import CvOptions
from train.evaluation.cv_protocol import fold_dir
from train.evaluation.cv_summary import read_folds

WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items()]


@pytest.fixture(scope="module")
def finished(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow cross-validation of two folds. Read only."""
    out = tmp_path_factory.mktemp("finished") / "cv"
    config = TrainConfig(stream="flow", **SHORT)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        assert run_folds(config, small_dataset, out, CvOptions(folds=2)) == 0
    return out


@pytest.fixture
def cv(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "cv"))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def words(dataset: Path, out: Path, *more: object, stream: str = "flow") -> list[object]:
    return ["cv", stream, dataset, "--out", out, "--folds=2", *WORDS, *more]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("--folds 3", r"--folds 3, but it was begun with 2"),
        ("--select inner --folds 3", r"--folds 3, but it was begun with 2"),
        ("--seed 1", r"--seed 1, but .*flow-subject-kfold was begun with 0"),
        ("--epochs 2", r"--epochs 2, but .* was begun with 1"),
        ("--arch tiny-norm", r"--arch tiny-norm, but .* was begun with 'tiny'"),
        ("--batch-size 6", r"--batch-size 6, but .* was begun with 7"),
        ("--lr 0.5", r"--lr 0.5, but .* was begun with 0.001"),
        ("--class-weights balanced", r"--class-weights balanced, but .* begun with 'none'"),
        ("--untrained wrong", r"--untrained wrong, but .* begun with 'raise'"),
    ],
)
@pytest.mark.parametrize("has_protocol", [True, False])
def test_folds_of_another_experiment_are_refused_by_the_option(
    cktrain: Cktrain, small_dataset: Path, cv: Path, more: str, expected: str, has_protocol: bool
) -> None:
    if not has_protocol:  # the folds themselves tell
        (cv / "flow-subject-kfold" / "protocol.json").unlink()
        expected = {
            "--folds 3": r"fold-00: trained on another split .*num_folds 2\), expected fold 0 of 3",
            "--select inner --folds 3": r"fold-00: trained on another split",
        }.get(more, expected.split(", but")[0] + ", but it was trained with")
    before = digests(cv)
    code, printed, errors = cktrain(*words(small_dataset, cv, *more.split()))
    assert code == 2 and re.search(expected, errors), errors
    assert "nothing was trained" in errors and "remove" in errors and "training" not in printed
    assert digests(cv) == before


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_another_dataset_is_refused_for_either_stream(
    cktrain: Cktrain, small_dataset: Path, build_small: BuildDataset, cv: Path, stream: str
) -> None:
    before, raw_dataset = digests(cv), build_small(codec="raw")
    code, _, errors = cktrain(*words(raw_dataset, cv, stream=stream))
    assert code == 2 and digests(cv) == before
    assert f"{raw_dataset} is another dataset than {cv / 'flow-subject-kfold'} was begun" in errors
    assert str(small_dataset) in errors, "found and expected are named"


def test_the_other_stream_must_have_the_same_folds(
    cktrain: Cktrain, small_dataset: Path, cv: Path
) -> None:
    code, _, errors = cktrain(*words(small_dataset, cv, "--folds=3", stream="rgb"))
    assert code == 2 and "--folds 3, but it was begun with 2" in errors
    assert not (cv / "rgb-subject-kfold").exists()


def test_inner_selection_is_another_experiment(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path
) -> None:
    config = TrainConfig(stream="flow", **SHORT)  # type: ignore[arg-type]
    assert run_folds(config, small_dataset, tmp_path / "cv", CvOptions(folds=3, only=(0,))) == 0
    line = words(small_dataset, tmp_path / "cv", "--folds=3", "--select=inner")
    code, _, errors = cktrain(*line)
    assert code == 2 and "--select inner, but" in errors and "begun with 'fixed'" in errors


def test_another_file_of_weights_under_the_same_name_is_refused(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path
) -> None:
    for number in (0, 1):
        torch.manual_seed(number)
        torch.save(make_tiny_net("tiny").state_dict(), tmp_path / "weights.pt")
        line = words(small_dataset, tmp_path / "cv", "--weights", tmp_path / "weights.pt")
        code, _, errors = cktrain("cv", "rgb", *line[2:], "--only", number)
        assert code == 2 * number, errors
    assert "weights.pt: another file than" in errors


def test_what_decides_nothing_may_differ_and_each_accuracy_is_printed(
    cktrain: Cktrain, small_dataset: Path, cv: Path
) -> None:
    code, printed, errors = cktrain(*words(small_dataset, cv, "--workers=2", "--log-every=3"))
    assert code == 0, errors
    lines = re.findall(r"fold (\d): finished already, kept: (\d+\.\d) % of \d+ sequences", printed)
    accuracies = read_folds(cv).series[0].fold_accuracies
    assert lines == [(str(n), f"{100 * share:.1f}") for n, share in enumerate(accuracies)]


def other_weights(cv: Path) -> None:
    shutil.copyfile(cv / "fold-01" / "last.pt", cv / "fold-00" / "last.pt")


def other_test(cv: Path) -> None:
    shutil.rmtree(cv / "fold-00" / "test")
    shutil.copytree(cv / "fold-01" / "test", cv / "fold-00" / "test")


def other_scores(cv: Path) -> None:
    name = Path("test") / "scores.parquet"
    shutil.copyfile(cv / "fold-01" / name, cv / "fold-00" / name)


def cut_scores(cv: Path) -> None:
    (cv / "fold-00" / "test" / "scores.parquet").write_bytes(b"PAR1 cut")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_test, "its test is of other weights than last.pt"),
        (other_scores, "of another test"),
        (cut_scores, "is not a scores table"),
    ],
)
def test_a_test_that_is_not_the_folds_is_made_again(
    cktrain: Cktrain, small_dataset: Path, cv: Path, change, reason: str
) -> None:
    before = digests(cv)
    change(cv / "flow-subject-kfold")
    (missing,) = read_folds(cv).missing
    assert missing.fold == 0 and reason in missing.reason
    code, printed, errors = cktrain(*words(small_dataset, cv))
    assert code == 0 and reason in printed and "fold 0: finished: " in printed, errors
    name = "flow-subject-kfold/fold-00/last.pt"
    assert digests(cv)[name] == before[name], "it is not trained again"
    assert read_folds(cv).series[0].folds == (0, 1)


def test_weights_of_another_fold_are_refused(
    cktrain: Cktrain, small_dataset: Path, cv: Path
) -> None:
    other_weights(cv / "flow-subject-kfold")
    code, _, errors = cktrain(*words(small_dataset, cv))
    assert code == 2 and "begun with another split" in errors, errors


def test_weights_may_be_removed_from_a_finished_fold(
    cktrain: Cktrain, small_dataset: Path, cv: Path
) -> None:
    for fold in (0, 1):
        (fold_dir(cv, "flow", "subject-kfold", fold) / "last.pt").unlink()
    code, printed, errors = cktrain(*words(small_dataset, cv))
    assert code == 0 and printed.count("finished already, kept") == 2, errors


def test_other_views_are_tested_again_without_training(
    cktrain: Cktrain, small_dataset: Path, cv: Path
) -> None:
    before = digests(cv)
    code, printed, errors = cktrain(*words(small_dataset, cv, "--views=original"))
    assert code == 0 and "--views" not in errors, errors
    assert "it was tested with 'ten'" in printed
    for fold in (0, 1):
        test = fold_dir(cv, "flow", "subject-kfold", fold) / "test" / "test.json"
        assert json.loads(test.read_text())["views"] == "original"
        name = f"flow-subject-kfold/fold-0{fold}/last.pt"
        assert digests(cv)[name] == before[name]


def test_an_interrupted_fold_goes_on_where_it_stopped(
    cktrain: Cktrain, small_dataset: Path, finished: Path, tmp_path: Path, monkeypatch
) -> None:
    import signal

    from train.running import step

    finish_step = step.finish_step

    def interrupted(session, *, is_stopping):  # type: ignore[no-untyped-def]
        done = finish_step(session, is_stopping=is_stopping)
        if session.progress.step == 1 and session.config.fold == 1:
            signal.raise_signal(signal.SIGTERM)  # asked for between two steps: the next one ends it
        return done

    out = tmp_path / "cv"
    with monkeypatch.context() as patch:
        patch.setattr(step, "finish_step", interrupted)
        code, printed, errors = cktrain(*words(small_dataset, out))
    assert code == 143 and "fold 1: not finished" in printed, errors
    code, printed, errors = cktrain(*words(small_dataset, out))
    assert code == 0 and "fold 0: finished already, kept" in printed, errors
    once, twice = (
        torch.load(fold_dir(cv, "flow", "subject-kfold", 1) / "last.pt", weights_only=True)["model"]
        for cv in (finished, out)
    )
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_a_folder_of_something_else_is_refused(
    cktrain: Cktrain, small_dataset: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """A cross-validation was written into a dataset and into a run."""
    (tmp_path / "file").write_text("years of work")
    for out, words_of_error in (
        (small_dataset, "holds flow-000000.idx, expected a new folder"),
        (runs["flow"], "holds best.pt, expected a new folder"),
        (tmp_path / "file", "is a file, expected a folder"),
    ):
        before = sorted(out.iterdir()) if out.is_dir() else out.read_text()
        code, _, errors = cktrain(*words(small_dataset, out))
        assert code == 2 and words_of_error in errors, errors
        assert before == (sorted(out.iterdir()) if out.is_dir() else out.read_text())


@pytest.mark.parametrize("kind", ["fifo", "link", "cut"])
def test_a_damaged_protocol_is_named_and_not_replaced(
    cktrain: Cktrain, small_dataset: Path, cv: Path, kind: str
) -> None:
    path = cv / "flow-subject-kfold" / "protocol.json"
    whole = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (cv / "elsewhere.json").write_bytes(whole)
        path.symlink_to(cv / "elsewhere.json")
    else:
        path.write_bytes(whole[:50])
    for line in (words(small_dataset, cv), ["report", cv]):
        code, _, errors = cktrain(*line)
        assert code == 2 and f"{path}: is " in errors, errors
    assert path.is_fifo() or path.is_symlink() or path.read_bytes() == whole[:50]
