"""The loader comparison as tables of Markdown and as a picture, from its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.harness import Record, cores_of, markdown_table, median_and_range, ratio_in_turns

ORIGINAL = "DataLoader, PNG tree (the original)"
OUR_COLOUR, PEER_COLOUR, ORIGINAL_COLOUR = "#3b7dd8", "#9aa5b1", "#b45f4d"
COPYING_NAME, OUR_KERNEL = "copying the crops alone", ", our kernel"
BEST, BEST_JPEG = "fastest peer", "fastest JPEG peer"
TARGETS = (
    ("cpu, raw", BEST, 3.0),
    ("cpu, raw", ORIGINAL, 115.0),
    ("cpu, raw", COPYING_NAME, 0.55),
    ("cpu, lz4", BEST_JPEG, 5.0),
    ("cpu, raw float32", "cpu, raw", 0.6),
    ("cpu, jpg", BEST_JPEG, 1.3),
    ("cpu, jpg cached", "cpu, raw", 0.9),
    ("dali, raw", "DALI reader, raw", 1.0),
    ("dali, jpg", "DALI reader, jpg", 1.0),
)
"""What is held against what, and the ratio that was aimed at. Peers cut with cv2, as users do."""


def loader_blocks(record: Record) -> dict[str, str]:
    """Return the blocks ``loaders`` and ``loader-kernel`` (every contender, those with our kernel
    apart) and ``loader-targets`` (ratios aimed at).
    """
    first = record["records"][0]
    caption = (
        f"{cores_of(record)}, {first['threads']} threads or worker processes, batches of"
        f" {first['batch_size']},\nmedians of {len(first['samples_per_s']['runs'])} turns:"
    )
    return {
        "loaders": f"{caption}\n\n{_table(record, with_kernel=False)}",
        "loader-kernel": _table(record, with_kernel=True),
        "loader-targets": _targets(record),
    }


def speeds_of(record: Record) -> dict[str, Record]:
    """Return the spread of each contender by name, and those of the fastest peers: of peers as
    their users have them, cut with cv2.
    """
    speeds = {entry["name"]: entry["samples_per_s"] for entry in record["records"]}
    for entry in sorted(record["records"], key=lambda e: e["samples_per_s"]["median"]):
        if not entry["is_ours"] and not entry["name"].endswith((COPYING_NAME, OUR_KERNEL)):
            speeds[BEST] = entry["samples_per_s"]  # the fastest comes last
            if entry["codec"] == "jpg":
                speeds[BEST_JPEG] = entry["samples_per_s"]
    return speeds


def _table(record: Record, *, with_kernel: bool) -> str:
    original, rows = speeds_of(record).get(ORIGINAL), []
    for entry in sorted(record["records"], key=lambda e: -e["samples_per_s"]["median"]):
        name, speed = entry["name"], entry["samples_per_s"]
        if name.endswith(OUR_KERNEL) == with_kernel:
            title = f"**{name}**" if entry["is_ours"] else name
            ratio = f"{speed['median'] / original['median']:.1f}" if original else ""
            rows.append(f"{title} | {entry['codec']} | {median_and_range(speed)} | {ratio}")
    skipped = [e for e in record["skipped"] if e["name"].endswith(OUR_KERNEL) == with_kernel]
    rows += [f"{e['name']} | | left out: {e['reason']} | |" for e in skipped]
    return markdown_table("loader | codec | samples/s | range | x the original", rows)


def _targets(record: Record) -> str:
    speeds, rows = speeds_of(record), []
    for ours, other, target in TARGETS:
        if ours in speeds and other in speeds:
            turns = ratio_in_turns(speeds[ours], speeds[other])
            held = "reached" if turns["median"] >= target else "missed"
            rows.append(f"{ours} / {other} | {median_and_range(turns, 2)} | {target:g} | {held}")
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
    title = (
        f"10-channel flow samples per second on {record['machine']['usable_cores']} cores: median"
        " and range\nblue: this project, red: the original's way, gray: peers"
    )
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
