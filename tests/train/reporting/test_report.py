"""The report: one page with everything in it, of a run and of a cross-validation, that a real
browser shows."""

from __future__ import annotations

import html.parser
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shard_builder.errors import InputError
from tests.conftest import BuildDataset
from tests.train.tiny_net import SHORT, make_tiny_net
from train.config import TrainConfig
from train.evaluation.cross_validate import run_folds
from train.evaluation.cv_options import CvOptions
from train.evaluation.evaluate import evaluate_runs
from train.reporting.report import write_report
from train.running.train_run import run_train

Screenshot = Callable[[Path], np.ndarray]


class Addresses(html.parser.HTMLParser):
    """Collects what a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href")]


@pytest.fixture(scope="module")
def trained(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``flow`` and ``rgb``, not tested. Read only."""
    folder = tmp_path_factory.mktemp("trained")
    options = SHORT | {"epochs": 2, "folds": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        for stream in ("flow", "rgb"):
            config = TrainConfig(stream=stream, **options)  # type: ignore[arg-type]
            assert run_train(config, small_dataset, folder / stream, resume=False) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "flow", tmp_path / "run"))


def test_a_run_that_was_not_tested_is_tested_and_the_page_is_self_contained(
    run: Path, tmp_path: Path
) -> None:
    page = write_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert (run / "test" / "test.json").is_file()
    addresses = Addresses(text).found
    assert len(addresses) >= 4 and all(address.startswith("data:image/") for address in addresses)
    assert sum(num for _, _, num in page.subjects) == 7 and len(page.classes) == 7
    assert page.mistakes and all(len(mistake["pictures"]) == 2 for mistake in page.mistakes)
    margins = [max(v for _, v in m["bars"]) - dict(m["bars"])[m["true"]] for m in page.mistakes]
    assert margins == sorted(margins, reverse=True)
    for words in (
        "Data wait",
        "between epochs",
        "batch_size",
        "manifest",
        "git revision",
        "How to repeat it",
        "95 %",
    ):
        assert words in text


def test_without_its_dataset_the_page_says_why_there_are_no_pictures(
    run: Path, tmp_path: Path
) -> None:
    write_report(run, tmp_path / "first.html")
    page = write_report(run, tmp_path / "report.html", dataset=tmp_path / "nowhere")
    assert any("No pictures" in notice and "nowhere" in notice for notice in page.notices)
    assert page.mistakes and not any(mistake["pictures"] for mistake in page.mistakes)


def test_a_cross_validation_has_a_page_with_the_folds_pooled(
    small_dataset: Path, tmp_path: Path
) -> None:
    for stream in ("rgb", "flow"):
        config = TrainConfig(stream=stream, **SHORT)  # type: ignore[arg-type]
        options = CvOptions(folds=2)
        run_folds(config, small_dataset, tmp_path / "cv", options)
    page = write_report(tmp_path / "cv", tmp_path / "report.html")
    assert [row[0] for row in page.rows] == [
        f"{s}, subject-kfold" for s in ("rgb", "flow", "fused")
    ]
    assert sum(num for _, _, num in page.subjects) == 21


def test_an_unfinished_cross_validation_has_a_page_that_says_what_is_missing(
    small_dataset: Path, tmp_path: Path
) -> None:
    """Nothing of it was written before all folds of a process were done."""
    config = TrainConfig(stream="flow", **SHORT)  # type: ignore[arg-type]
    run_folds(config, small_dataset, tmp_path / "cv", CvOptions(folds=3, only=(1,)))
    before = sorted((tmp_path / "cv").rglob("*"))
    page = write_report(tmp_path / "cv", tmp_path / "report.html")
    assert [row[:2] for row in page.rows] == [["flow, subject-kfold", "1/3"]]
    assert page.notices == [
        f"Not finished: flow, subject-kfold, fold {n}: not begun." for n in (0, 2)
    ]
    assert sorted((tmp_path / "cv").rglob("*")) == before, "a report changes nothing in it"
    shutil.rmtree(tmp_path / "cv" / "flow-subject-kfold" / "fold-01")
    page = write_report(tmp_path / "cv", tmp_path / "report.html")
    assert len(page.notices) == 3 and not page.rows


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"neither a run nor a cross-validation, expected config\.json in it or protocol",
    ):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_test_of_two_runs_is_stale_if_either_has_changed(
    run: Path, trained: Path, small_dataset: Path, build_small: BuildDataset, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(trained / "rgb", tmp_path / "rgb"))
    raw_dataset = build_small(codec="raw")
    evaluate_runs([run, other], small_dataset, out=run / "test")
    (notice,) = write_report(run, tmp_path / "report.html").notices
    assert f"{run} and {other}" in notice and "of both streams together" in notice
    config = TrainConfig(stream="rgb", folds=3, **(SHORT | {"epochs": 3}))  # type: ignore[arg-type]
    assert run_train(config, small_dataset, other, resume=True, given={"epochs"}) == 0
    left_out = write_report(run, tmp_path / "report.html", dataset=raw_dataset)
    reason = f"The test was of other weights than {other} has now"
    assert f"{reason}; it is left out." in left_out.notices and not left_out.rows
    assert f"{reason}; tested again." in write_report(run, tmp_path / "report.html").notices
    evaluate_runs([run], raw_dataset, out=run / "test")
    page = write_report(run, tmp_path / "report.html")
    assert page.notices == ["The test is on another dataset than the training."]


@pytest.mark.browser
def test_a_browser_shows_the_page(run: Path, tmp_path: Path, screenshot: Screenshot) -> None:
    write_report(run, tmp_path / "report.html")
    assert screenshot(tmp_path / "report.html").std() > 20, "the page is not blank"
