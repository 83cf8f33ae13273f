"""The loader comparison as Markdown tables and as a picture, from its record.

python -m bench.loaders.report bench-results/loaders.json      writes loaders.md and loaders.png
beside it
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

SEED_ENGINE = "png-tree"
OUR_COLOUR, PEER_COLOUR, SEED_COLOUR = "#3b7dd8", "#9aa5b1", "#b45f4d"
PAIRS = (
    ("cpu, raw", "DataLoader, mapped array", 2.0),
    ("cpu, raw", "DataLoader, PNG tree (the original)", 60.0),
    ("cpu, jpg", "webdataset, jpg", 1.5),
    ("cpu, jpg cached", "cpu, raw", 0.9),
    ("dali, raw", "DALI reader, raw", 1.0),
    ("dali, jpg", "DALI reader, jpg", 1.0),
)
"""What is held against what, and the ratio that was aimed at."""


def loader_blocks(record: dict[str, Any]) -> dict[str, str]:
    """Return the blocks ``loaders`` (every contender), ``loader-targets`` (ratios aimed at) and
    ``loader-machine``.
    """
    return {
        "loaders": _table(record),
        "loader-targets": _targets(record),
        "loader-machine": _machine(record),
    }


def _on_cpu(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in record["records"] if "GPU" not in entry["name"]]


def _table(record: dict[str, Any]) -> str:
    entries = sorted(record["records"], key=lambda entry: -entry["samples_per_s"]["median"])
    seed = next(e["samples_per_s"]["median"] for e in entries if e["engine"] == SEED_ENGINE)
    best = {
        codec: max(
            e["samples_per_s"]["median"]
            for e in entries
            if e["codec"] == codec and not e["is_ours"]
        )
        for codec in {e["codec"] for e in entries if not e["is_ours"]}
    }
    lines = [
        "| loader | codec | samples/s | range | x best peer of its codec | x the original |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        rate, codec = entry["samples_per_s"], entry["codec"]
        name = f"**{entry['name']}**" if entry["is_ours"] else entry["name"]
        lines.append(
            f"| {name} | {codec} | {rate['median']:,.0f} | {rate['min']:,.0f} - {rate['max']:,.0f} "
            f"| {rate['median'] / best[codec]:.2f} | {rate['median'] / seed:.1f} |"
        )
    left_out = [
        f"| {entry['name']} | | left out: {entry['reason']} | | | |" for entry in record["skipped"]
    ]
    return "\n".join(lines + left_out)


def _targets(record: dict[str, Any]) -> str:
    medians = {entry["name"]: entry["samples_per_s"]["median"] for entry in record["records"]}
    runs = {entry["name"]: entry["samples_per_s"]["runs"] for entry in record["records"]}
    lines = [
        "| ours / other | ratio of medians | range over turns | aimed at | |",
        "|---|---|---|---|---|",
    ]
    for ours, other, target in PAIRS:
        if ours in medians and other in medians:
            ratios = sorted(a / b for a, b in zip(runs[ours], runs[other], strict=True))
            ratio = medians[ours] / medians[other]
            lines.append(
                f"| {ours} / {other} | {ratio:.2f} | {ratios[0]:.2f} - {ratios[-1]:.2f} |"
                f" {target:g} | {'reached' if ratio >= target else 'missed'} |"
            )
    return "\n".join(lines)


def _machine(record: dict[str, Any]) -> str:
    machine, first = record["machine"], record["records"][0]
    num_runs = len(first["samples_per_s"]["runs"])
    return (
        f"{machine['processor']}, {machine['usable_cores']} cores, {first['threads']} threads or"
        f" worker processes, batches of {first['batch_size']}, medians of {num_runs} turns"
    )


def plot_loaders(record: dict[str, Any], path: Path) -> None:
    """Draw the medians with their ranges, fastest first; this project's bars are blue, the
    original's is red.
    """
    entries = sorted(_on_cpu(record), key=lambda entry: entry["samples_per_s"]["median"])
    medians = [entry["samples_per_s"]["median"] for entry in entries]
    spread = [
        [
            median - entry["samples_per_s"]["min"]
            for median, entry in zip(medians, entries, strict=True)
        ],
        [
            entry["samples_per_s"]["max"] - median
            for median, entry in zip(medians, entries, strict=True)
        ],
    ]
    colours = [
        (
            OUR_COLOUR
            if entry["is_ours"]
            else SEED_COLOUR
            if entry["engine"] == SEED_ENGINE
            else PEER_COLOUR
        )
        for entry in entries
    ]
    figure = Figure(figsize=(8.5, 0.9 + 0.32 * len(entries)), dpi=110, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [entry["name"] for entry in entries],
        medians,
        xerr=spread,
        color=colours,
        ecolor="#444444",
        capsize=3,
    )
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6)
    for label, entry in zip(axes.get_yticklabels(), entries, strict=True):
        label.set_fontweight("bold" if entry["is_ours"] else "normal")
    axes.set_title(
        f"10-channel flow samples per second on {record['machine']['usable_cores']} cores: median"
        " and range\nblue: this project, red: the original's way, gray: peers",
        loc="left",
        fontsize=10,
    )
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    path = Path(sys.argv[1])
    record = json.loads(path.read_text(encoding="utf-8"))
    blocks = loader_blocks(record)
    text = f"{blocks['loader-machine']}\n\n{blocks['loaders']}\n\n{blocks['loader-targets']}\n"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    plot_loaders(record, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
