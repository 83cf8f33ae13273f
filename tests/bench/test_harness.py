"""What every benchmark shares: its command, its options, processes of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bench.harness import in_fresh_process, run_benchmark


def test_a_command_measures_writes_its_record_and_prints_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--json", str(path), "--subjects", "3"])
    run_benchmark(
        "A benchmark.",
        lambda folder, *, repeats, subjects: {"folder": str(folder), "subjects": subjects},
        lambda record: {"first": f"{record['subjects']} subjects", "second": "a table"},
        subjects=(6, "seven sequences each"),
    )
    record = json.loads(path.read_text())
    assert record["subjects"] == 3 and record["machine"]["processor"] and record["versions"]
    assert not Path(record["folder"]).exists()
    assert capsys.readouterr().out == "3 subjects\n\na table\n"


def test_too_few_repeats_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--repeats", "4"])
    with pytest.raises(SystemExit, match="2"):
        run_benchmark("A benchmark.", lambda folder, *, repeats: {}, lambda record: {})
    assert "--repeats: '4', expected 5 or more" in capsys.readouterr().err


def test_a_fresh_process_is_another_one() -> None:
    assert in_fresh_process(os.getpid) != os.getpid()
    assert in_fresh_process(max, 3, 5) == 5
