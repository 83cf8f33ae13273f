"""Every measured number in the documentation is that of a committed JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def test_the_demos_accuracies_are_those_of_its_summaries() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", readme, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    for seed, *cells in rows:
        summary = json.loads((RESULTS / f"demo-seed-{seed}.json").read_text())
        assert summary["seed"] == int(seed) and summary["num_test_sequences"] == 42
        measured = [summary[f"{name}_accuracy"] for name in ("flow", "rgb", "fused")]
        assert cells == [f"{100 * value:.1f}" for value in measured]
