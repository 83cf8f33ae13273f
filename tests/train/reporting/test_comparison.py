"""Runs beside each other: what they reached, how they differ, and which of them do not compare."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.tiny_net import Cktrain, make_tiny_net
from train.evaluation.evaluate import evaluate_runs

Screenshot = Callable[[Path], np.ndarray]


@pytest.fixture(scope="session")
def tested(
    runs: dict[str, Path], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the runs, tested; ``changed`` is ``flow`` after it was told another number."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.build._torchvision_model", make_tiny_net)
        for name, run in runs.items():
            shutil.copytree(run, folder / name)
            evaluate_runs([folder / name], tiny_dataset, out=folder / name / "test")
    changed = Path(shutil.copytree(folder / "flow", folder / "changed"))
    change_config(changed, "options", weight_decay=0.125)
    return folder


@pytest.fixture
def copies(tested: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(tested, tmp_path / "runs"))


def change_config(run: Path, part: str, **values: object) -> None:
    config = json.loads((run / "config.json").read_text())
    config[part] |= values
    (run / "config.json").write_text(json.dumps(config))


def test_runs_are_compared_and_another_split_is_named(
    copies: Path, cktrain: Cktrain, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    folders = [copies / name for name in ("flow", "rgb", "changed", "other")]
    code, text, error = cktrain("report", *folders, "--out", out)
    assert code == 0, error
    page = out.read_text()
    tests = {run.name: json.loads((run / "test" / "test.json").read_text()) for run in folders}
    for name, stream in (("flow", "flow"), ("rgb", "rgb"), ("other", "flow")):
        accuracy = f"{100 * tests[name][stream]['accuracy']:.1f} %"
        row = next(r for r in rows_of(page) if r[0] == name)
        assert accuracy in row and row[1] == stream, row
        low, high = tests[name][stream]["interval"]
        assert f"{100 * low:.1f} - {100 * high:.1f}" in row
    assert "notice: other is of another split than flow: not comparable." in text
    assert "other is of another split than flow" in page and "rgb is of another" not in page
    results = {row[0]: row for row in rows_of(page)}
    assert results["changed"][-1] == "+0.0 points, p = 1", "the same net"
    assert results["flow"][-1] == results["other"][-1] == "-"
    right = {
        name: tests[name][stream]["num_correct"]
        for name, stream in (("flow", "flow"), ("rgb", "rgb"))
    }
    points = 100 * (right["rgb"] - right["flow"]) / tests["rgb"]["num_sequences"]
    assert results["rgb"][-1].startswith(f"{points:+.1f} points, p = ")
    settings = {
        row[0]: row[1:]
        for row in rows_of(page)
        if row[0] in ("weight_decay", "fold", "stream", "lr")
    }
    assert settings["weight_decay"] == ["0.0005", "0.0005", "0.125", "0.0005"]
    assert settings["fold"] == ["0", "0", "0", "1"] and "lr" not in settings
    happy = next(row for row in rows_of(page) if row[0] == "happy")
    recall = next(c for c in tests["rgb"]["rgb"]["per_class"] if c["name"] == "happy")
    assert happy[2] == f"{recall['recall']:.2f} / {recall['f1']:.2f}"


def rows_of(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row) for row in rows if "<td>" in row]


def test_another_dataset_is_named_and_one_that_is_gone_leaves_a_run_untested(
    copies: Path, cktrain: Cktrain, tmp_path: Path, tiny_dataset: Path
) -> None:
    change_config(copies / "rgb", "dataset", manifest_sha256="0" * 64)
    change_config(copies / "other", "dataset", path=str(tmp_path / "gone"))
    shutil.rmtree(copies / "other" / "test")
    out = tmp_path / "page.html"
    words = [copies / name for name in ("flow", "rgb", "other")]
    code, text, error = cktrain("report", *words, "--out", out)
    assert code == 0, error
    assert "rgb is of another dataset than flow: not comparable." in text
    assert "other: Not tested." in text and "gone" in text
    code, text, error = cktrain("report", *words, "--out", out, "--dataset", tiny_dataset)
    assert code == 0 and "Not tested" not in text, error


def test_what_is_no_run_or_given_twice_is_refused(
    copies: Path, cktrain: Cktrain, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    for other, complaint in ((tmp_path, "not a run"), (copies / "flow" / ".", "given twice")):
        code, _, error = cktrain("report", copies / "flow", other, "--out", out)
        assert code == 2 and complaint in error and not out.exists()


@pytest.mark.browser
def test_a_browser_shows_the_comparison(
    copies: Path, cktrain: Cktrain, tmp_path: Path, screenshot: Screenshot
) -> None:
    cktrain("report", copies / "flow", copies / "rgb", "--out", tmp_path / "page.html")
    assert screenshot(tmp_path / "page.html").std() > 20, "the page is not blank"
