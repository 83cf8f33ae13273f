"""``cktrain test`` through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.train.tiny_net import Cktrain


def test_fusion_weights_are_those_asked_for(
    cktrain: Cktrain, runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    words = ("test", runs["rgb"], runs["flow"], tiny_dataset, "--out", tmp_path / "test")
    code, out, _ = cktrain(*words, "--fusion", "1:3")
    assert code == 0 and "fused with weights rgb 1, flow 3 (given)" in out
    code, _, error = cktrain(*words, "--fusion", "nonsense")
    assert code == 2 and error.startswith("cktrain: error: --fusion nonsense: no colon")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--views=all", "--views all, expected one of ten, original"),
        ("--checkpoint=first", "--checkpoint first, expected one of last, best"),
        ("--batch-size=0", "--batch-size 0, expected an integer from 1"),
    ],
)
def test_bad_options_are_named_by_their_flags(
    cktrain: Cktrain,
    runs: dict[str, Path],
    tiny_dataset: Path,
    tmp_path: Path,
    option: str,
    words: str,
) -> None:
    out = tmp_path / "test"
    code, _, error = cktrain("test", runs["flow"], tiny_dataset, "--out", out, option)
    assert code == 2 and error.startswith(f"cktrain: error: {words}")
    assert not out.exists()


def test_what_cannot_be_computed_of_a_class_is_a_dash_and_null(
    cktrain: Cktrain, runs: dict[str, Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(runs["flow"], tmp_path / "run")
    code, printed, error = cktrain("test", run, tiny_dataset)
    assert code == 0, error
    record = json.loads((run / "test" / "test.json").read_text())
    predicted = [sum(column) for column in zip(*record["flow"]["confusion"], strict=True)]
    classes = record["flow"]["per_class"]
    assert [entry["precision"] is None for entry in classes] == [not count for count in predicted]
    never = [entry["name"] for entry in classes if entry["precision"] is None]
    assert never, "a net of one epoch predicts few classes"
    rows = [line.split("│")[1:3] for line in printed.splitlines() if line.count("│") == 6]
    assert [name.strip() for name, precision in rows if precision.strip() == "-"] == never
    assert cktrain("report", run)[0] == 0
    assert f"<td>{never[0]}</td>\n<td>-</td><td>0.00</td>" in (run / "report.html").read_text()

    for entry in classes:  # as version 3 wrote it
        entry["precision"] = entry["precision"] or 0.0
    (run / "test" / "test.json").write_text(json.dumps(record | {"version": 3}))
    code, _, error = cktrain("report", run)
    assert code == 0 and json.loads((run / "test" / "test.json").read_text())["version"] == 3, error
    assert f"<td>{never[0]}</td>\n<td>0.00</td>" in (run / "report.html").read_text()
