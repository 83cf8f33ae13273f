"""Every measured number in the documentation is that of a committed JSON file."""

from __future__ import annotations

import json
import re
import statistics
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


def test_the_training_bench_is_that_of_its_record() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    record = json.loads((RESULTS / "train-resnet152-cpu.json").read_text())
    medians = {}
    for result in record["results"]:
        case, speeds = result["case"], result["samples_per_s"]
        assert len(speeds) >= 5
        medians[case["name"]] = result["median_samples_per_s"]
        cells = [f"{medians[case['name']]:.2f}", f"{min(speeds):.2f} - {max(speeds):.2f}"]
        row = rf"\| {re.escape(case['name'])} \|.*\| {cells[0]} \| {cells[1]} \| {result['median_data_wait_pct']:.2f} % \|"
        assert re.search(row, text), case["name"]
    ratio = medians["real, cpu engine"] / medians["synthetic, fp32 NCHW"]
    assert f"is {ratio:.2f} times as fast" in text


def test_the_memory_of_a_build_is_that_of_its_record() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    record = json.loads((RESULTS / "build-memory.json").read_text())
    assert f"{record['num_sequences']:,} sequences" in text
    assert f"{record['main_peak_mb']} MB in the main process and {record['worker_peak_mb']} MB" in text


def test_the_cross_validation_is_that_of_its_record() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    series = {
        (entry["stream"], entry["split"]): entry
        for entry in json.loads((RESULTS / "cv-demo.json").read_text())["series"]
    }

    def percent(stream: str, split: str = "subject-kfold") -> str:
        return f"{100 * series[stream, split]['pooled']['accuracy']:.1f} %"

    def interval(stream: str, split: str = "subject-kfold") -> str:
        low, high = series[stream, split]["pooled"]["interval"]
        return f"{100 * low:.1f} to {100 * high:.1f}"

    assert series["flow", "subject-kfold"]["pooled"]["num_sequences"] == 210
    honest = (
        f"flow {percent('flow')} (95 % interval {interval('flow')}), rgb {percent('rgb')}, fused {percent('fused')}."
    )
    assert honest in readme
    assert f"gives {percent('flow', 'seed-random')} ({interval('flow', 'seed-random')})" in readme


def test_the_loader_tables_are_those_of_their_records() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("loader-raw-cpu.json", "loader-jpg-cpu.json"):
        records = json.loads((RESULTS / name).read_text())
        tree = {r["stream"]: r["samples_per_s"]["median"] for r in records if r["engine"] == "png-tree"}
        for record in records:
            speed = record["samples_per_s"]
            cells = f"{speed['median']:,.0f} | {speed['min']:,.0f} - {speed['max']:,.0f}"
            ratio = f"{speed['median'] / tree[record['stream']]:.1f}"
            assert f"| {name} | {record['stream']} | {record['name']} | {record['codec']} | {cells} | {ratio} |" in text
    peers = json.loads((RESULTS / "loader-peers-cpu.json").read_text())["samples_per_s"]
    medians = {name: statistics.median(speeds) for name, speeds in peers.items()}
    rows = re.findall(r"^\| ([\w, ]+) / ([\w, ]+) \| ([\d,]+) / ([\d,]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    for ours, peer, fast, slow, ratio in rows:
        assert (fast, slow) == (f"{medians[ours]:,.0f}", f"{medians[peer]:,.0f}")
        assert ratio == f"{medians[ours] / medians[peer]:.2f}"
