"""Damaged records and lines: one line that names file and field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shard_builder.format.manifest import MANIFEST_NAME
from tests.system.mutations.base import Base
from tests.system.untrusted.changes import Cli, edit_json

RECORDS = {
    "version: true": (r'"version": \d+', '"version": true'),
    "a key twice": (r"^\{", '{"format": "x", '),
    "1e400": (r'"version": \d+', '"version": 1e400'),
    "deep nesting": (r'"version": \d+', '"version": 1, "x": ' + "[" * 100_000 + "]" * 100_000),
    "a lone surrogate": (r'"version": \d+', '"version": 1, "x": "\\\\ud800"'),
    "not JSON": (r'"version": \d+', '"version": }'),
    "a list": (r"(?s).*", "[]"),
    "nothing": (r"(?s).*", ""),
    "no field": (r'"version": \d+', '"other": 1'),
}


@pytest.mark.parametrize("fault", RECORDS)
@pytest.mark.parametrize("name", [MANIFEST_NAME, "config.json", "test/test.json"])
def test_a_damaged_record_is_one_line_with_its_file(
    fault: str, name: str, dataset: Path, run: Path, cli: Cli
) -> None:
    path = (dataset if name == MANIFEST_NAME else run) / name
    text, count = re.subn(*RECORDS[fault], path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    words = ("ckshard", "verify", dataset) if name == MANIFEST_NAME else ("cktrain", "report", run)
    code, printed = cli(*words)
    assert code == 2, printed
    assert printed.startswith(f"{words[0]}: error: {path}: ")
    assert len(printed.splitlines()) <= 2 and len(printed) < 1000


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("config.json", lambda r: r["options"].update(stack_length="5"), "options.stack_length"),
        ("config.json", lambda r: r["options"].update(stack_length=10**6), "options"),
        ("config.json", lambda r: r["options"].update(lr=-1), "options"),
        ("config.json", lambda r: r["split"].update(sha256="x"), "split.sha256"),
        ("config.json", lambda r: r.pop("dataset"), "dataset"),
        ("split.json", lambda r: r.update(train=[1]), "train[0]"),
        ("split.json", lambda r: r.update(kind="other"), "kind"),
        ("test/test.json", lambda r: r["flow"].update(accuracy=7), "flow.accuracy"),
        ("test/test.json", lambda r: r.pop("flow"), "no result"),
    ],
)
def test_a_damaged_field_is_named(
    name: str,
    change: Callable[[dict], None],  # type: ignore[type-arg]
    field: str,
    run: Path,
    cli: Cli,
) -> None:
    edit_json(run / name, change)
    code, printed = cli("cktrain", "report", run)
    assert code == 2 and f"{run / name}: " in printed and field in printed, printed


@pytest.mark.parametrize("file", ["metrics.jsonl", "test/predictions.jsonl"])
def test_a_damaged_line_is_named(file: str, run: Path, cli: Cli) -> None:
    lines = (run / file).read_text().splitlines()
    lines[1] = lines[1].replace(": ", ": {", 1)
    (run / file).write_text("\n".join(lines) + "\n")
    code, printed = cli("cktrain", "report", run)
    assert code == 2 and f"{run / file}, line 2: " in printed


def test_a_torn_last_line_is_dropped_with_a_notice(run: Path, base: Base, cli: Cli) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epo')
    assert cli("cktrain", "report", run)[0] == 0
    assert "its last line is cut short" in (run / "report.html").read_text()
    more = ["--out", run, "--resume", "--epochs", 3, "--workers", 1]
    code, printed = cli("cktrain", "flow", base.datasets["jpg"], *more)
    assert code == 0 and "its last line is cut short and left out" in printed
    assert all(json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
