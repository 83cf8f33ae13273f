"""Write every measured table and figure of README and docs from the records in docs/results.

    python -m bench.tables

It rewrites the blocks between <!-- begin: NAME --> and <!-- end -->, and the plot.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from bench.building import build_blocks
from bench.cloud import cloud_blocks
from bench.endurance import endurance_blocks
from bench.harness import Record, cores_of, markdown_table, median_and_range
from bench.loaders.report import BEST, ORIGINAL, loader_blocks, plot_loaders, speeds_of
from bench.scaling import scaling_blocks

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->(.*?)<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_record(name: str) -> Any:
    """Return a record of docs/results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def all_blocks() -> dict[str, str]:
    """Render every block from the committed records."""
    loaders = read_record("loaders-cpu")
    return {
        **_demo_blocks(),
        "cross-validation": _cross_validation_table(read_record("cv-demo")),
        "training": _training_table(read_record("train-resnet152-cpu")),
        "bench-command": _bench_command_table(),
        "headline": _headline(loaders),
        **loader_blocks(loaders),
        **build_blocks(read_record("build-cpu")),
        **endurance_blocks(read_record("endurance-cpu")),
        **scaling_blocks(read_record("scaling")),
        **cloud_blocks(read_record("cloud")),
    }


def fill(text: str, blocks: dict[str, str]) -> str:
    """Put the blocks into a page; one of several lines gets lines of its own.

    Raises:
        KeyError: If the page names a block that does not exist.
    """

    def replace(match: re.Match[str]) -> str:
        block = blocks[match[1]]
        border = "\n" if "\n" in block else ""
        return f"<!-- begin: {match[1]} -->{border}{block}{border}<!-- end -->"

    return BLOCK.sub(replace, text)


def _of_an(record: Record) -> str:
    return cores_of(record).replace(" of ", " of an ")


def _demo_blocks() -> dict[str, str]:
    records = [read_record(f"demo-seed-{seed}") for seed in range(3)]
    rows = []
    for record in records:
        accuracies = (record[f"{name}_accuracy"] for name in ("flow", "rgb", "fused"))
        cells = " | ".join(f"{100 * accuracy:.1f} %" for accuracy in accuracies)
        rows.append(f"{record['seed']} | {cells}")
    fastest = min(records, key=lambda record: record["seconds"])  # others ran beside it
    return {
        "demo": markdown_table("seed | flow | rgb | fused", rows),
        "demo-minutes": f"{int(fastest['seconds'] / 60) + 1} minutes on {_of_an(fastest)}",
    }


def _cross_validation_table(record: Record) -> str:
    rows = []
    for entry in record["series"]:
        pooled = entry["pooled"]
        low, high = (100 * bound for bound in pooled["interval"])
        rows.append(
            f"{entry['stream']} | {pooled['num_sequences']} | {100 * pooled['accuracy']:.1f} %"
            f" | {low:.1f} to {high:.1f}"
        )
    return markdown_table("stream | sequences | accuracy | 95 % interval", rows)


def _training_table(record: Record) -> str:
    medians = {r["case"]["name"]: r["median_samples_per_s"] for r in record["results"]}
    plain, rows = medians["synthetic, fp32 NCHW"], []
    for result in record["results"]:
        case, speeds, wait = result["case"], result["samples_per_s"], result["median_data_wait_pct"]
        median, layout = medians[case["name"]], "channels_last" if case["channels_last"] else "NCHW"
        rows.append(
            f"{case['name']} | {case['precision']} | {layout} | {median:.2f} | {min(speeds):.2f} -"
            f" {max(speeds):.2f} | {wait:.2f} % | {median / medians['synthetic']:.3f}"
            f" | {median / plain:.2f}"
        )
    batch = " x ".join(str(record[n]) for n in ("batch_size", "iter_size") if n in record)
    caption = (
        f"{record['arch']}, {record['stream']} stream, batch {batch}, {record['codec']};"
        f" {record['device_name']}, {record['num_cores']} cores, medians of {len(speeds)}"
        " interleaved repeats:"
    )
    header = "batches | precision | layout | samples/s | range | data wait"
    return f"{caption}\n\n{markdown_table(f'{header} | x synthetic | x fp32 NCHW', rows)}"


def _bench_command_table() -> str:
    rows = []
    for name in ("loader-raw-cpu", "loader-jpg-cpu"):
        records = read_record(name)
        tree = {r["stream"]: r["samples_per_s"]["median"] for r in records if "tree" in r["name"]}
        for record in records:
            stream, speed = record["stream"], record["samples_per_s"]
            rows.append(
                f"{name}.json | {stream} | {record['name']} | {record['codec']}"
                f" | {median_and_range(speed)} | {speed['median'] / tree[stream]:.1f}"
            )
    header = "record | stream | loader | codec | samples/s | range | x PNG tree"
    return markdown_table(header, rows)


def _headline(record: Record) -> str:
    """Say what the loader comparison came to."""
    speeds = speeds_of(record)
    ours, best, tree = (speeds[name]["median"] for name in ("cpu, raw", BEST, ORIGINAL))
    peer = next(name for name, speed in speeds.items() if speed is speeds[BEST])
    sentence = (
        f"On {_of_an(record)} it delivers **{ours:,.0f} ten-channel samples a second**,"
        f" {ours / tree:.0f} times the tree of PNG files and {ours / best:.1f} times the fastest"
        f" peer ({peer})."
    )
    return textwrap.fill(sentence, 100)


def main() -> None:
    blocks = all_blocks()
    for page in pages():
        page.write_text(fill(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    plot_loaders(read_record("loaders-cpu"), ROOT / "docs" / "loaders.png")


if __name__ == "__main__":
    main()
