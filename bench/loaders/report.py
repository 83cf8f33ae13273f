"""The loader comparison as tables of Markdown and as a picture, from its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.markdown import cores_of, low_to_high, markdown_table, ratio_in_turns
from bench.records import Record

ORIGINAL = "DataLoader, PNG tree (the original)"
OUR_COLOUR, PEER_COLOUR, ORIGINAL_COLOUR = "#3b7dd8", "#9aa5b1", "#b45f4d"
TARGETS = (
    ("cpu, raw", "DataLoader, mapped array", 2.0),
    ("cpu, raw", ORIGINAL, 60.0),
    ("cpu, jpg", "webdataset, jpg", 1.5),
    ("cpu, jpg cached", "cpu, raw", 0.9),
    ("dali, raw", "DALI reader, raw", 1.0),
    ("dali, jpg", "DALI reader, jpg", 1.0),
)
"""What is held against what, and the ratio that was aimed at."""


def loader_blocks(record: Record) -> dict[str, str]:
    """Return the blocks ``loaders`` (every contender) and ``loader-targets`` (ratios aimed at)."""
    first = record["records"][0]
    caption = (
        f"{cores_of(record)}, {first['threads']} threads or worker processes, batches of"
        f" {first['batch_size']},\nmedians of {len(first['samples_per_s']['runs'])} turns:"
    )
    return {"loaders": f"{caption}\n\n{_table(record)}", "loader-targets": _targets(record)}


def best_peers(record: Record) -> dict[str, Record]:
    """Return the fastest peer of each codec."""
    peers = [entry for entry in record["records"] if not entry["is_ours"]]
    ranked = sorted(peers, key=lambda entry: entry["samples_per_s"]["median"])
    return {entry["codec"]: entry for entry in ranked}


def _table(record: Record) -> str:
    medians = {e["name"]: e["samples_per_s"]["median"] for e in record["records"]}
    original, best, rows = medians.get(ORIGINAL), best_peers(record), []
    for entry in sorted(record["records"], key=lambda entry: -medians[entry["name"]]):
        name, codec, median = entry["name"], entry["codec"], medians[entry["name"]]
        of_peer = f"{median / medians[best[codec]['name']]:.2f}" if codec in best else "-"
        of_original = f"{median / original:.1f}" if original else "-"
        rows.append(
            f"{f'**{name}**' if entry['is_ours'] else name} | {codec} | {median:,.0f}"
            f" | {low_to_high(entry['samples_per_s'])} | {of_peer} | {of_original}"
        )
    rows += [f"{e['name']} | | left out: {e['reason']} | | |" for e in record["skipped"]]
    header = "loader | codec | samples/s | range | x best peer of its codec | x the original"
    return markdown_table(header, rows)


def _targets(record: Record) -> str:
    speeds, rows = {e["name"]: e["samples_per_s"] for e in record["records"]}, []
    for ours, other, target in TARGETS:
        if ours in speeds and other in speeds:
            turns = ratio_in_turns(speeds[ours], speeds[other])
            ratio, held = turns["ratio"], "reached" if turns["ratio"] >= target else "missed"
            span = low_to_high(turns, 2)
            rows.append(f"{ours} / {other} | {ratio:.2f} | {span} | {target:g} | {held}")
    header = "ours / other | ratio of medians | range over turns | aimed at | so"
    return markdown_table(header, rows)


def plot_loaders(record: Record, path: Path) -> None:
    """Draw the medians with their ranges, fastest first."""
    from matplotlib.figure import Figure  # a GPU machine that only measures may not have it

    on_cpu = [entry for entry in record["records"] if "GPU" not in entry["name"]]
    entries = sorted(on_cpu, key=lambda entry: entry["samples_per_s"]["median"])
    names, speeds = [e["name"] for e in entries], [e["samples_per_s"] for e in entries]
    medians, low, high = (np.array([s[name] for s in speeds]) for name in ("median", "min", "max"))
    colours = [OUR_COLOUR if entry["is_ours"] else PEER_COLOUR for entry in entries]
    colours = [ORIGINAL_COLOUR if n == ORIGINAL else c for n, c in zip(names, colours, strict=True)]
    figure = Figure(figsize=(8.5, 0.9 + 0.32 * len(entries)), dpi=110, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, medians, xerr=[medians - low, high - medians], color=colours, capsize=3)
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=6)
    for label, entry in zip(axes.get_yticklabels(), entries, strict=True):
        label.set_fontweight("bold" if entry["is_ours"] else "normal")
    title = (
        f"10-channel flow samples per second on {record['machine']['usable_cores']} cores: median"
        " and range\nblue: this project, red: the original's way, gray: peers"
    )
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
