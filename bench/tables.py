"""Write every measured table and figure of README and docs from the records in docs/results.

python -m bench.tables            rewrite the blocks between <!-- begin: NAME --> and <!-- end -->,
and the plot
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from bench.building.model import build_blocks
from bench.endurance import endurance_blocks
from bench.gpu.report import gpu_blocks
from bench.loaders.report import loader_blocks, plot_loaders
from bench.scaling.model import scaling_blocks

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = (
    "README.md",
    "docs/benchmarks.md",
    "docs/scaling.md",
    "docs/decisions.md",
    "docs/results.md",
)
BLOCK = re.compile(r"<!-- begin: ([\w-]+) -->(.*?)<!-- end -->", re.DOTALL)
NO_GPU = (
    "**Not measured: anything on a GPU.** `bash bench/gpu.sh` has not run on one yet. The GPU half"
    ' of the DALI engine, `device="mixed"` decoding, pinned copies, fp16 on CUDA, NCCL and the'
    " CUDA-event stall accounting were written against documentation and ran on a CPU only; `bash"
    " bench/gpu.sh --cpu` runs the same steps in small, with the gpu tests skipped."
)


def read_record(name: str) -> Any:
    """Return a record of docs/results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def all_blocks() -> dict[str, str]:
    """Render every block from the committed records."""
    gpu = gpu_blocks(read_record("gpu")) if (RESULTS / "gpu.json").is_file() else {"gpu": NO_GPU}
    return {
        **_demo_blocks(),
        **_cross_validation_block(),
        **_training_blocks(),
        **_bench_command_block(),
        **_headline_blocks(),
        **_memory_block(),
        **loader_blocks(read_record("loaders-cpu")),
        **build_blocks(read_record("build-cpu")),
        **endurance_blocks(read_record("endurance-cpu")),
        **scaling_blocks(read_record("scaling")),
        **gpu,
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


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _demo_blocks() -> dict[str, str]:
    summaries = [read_record(f"demo-seed-{seed}") for seed in range(3)]
    lines = ["| seed | flow | rgb | fused |", "|---|---|---|---|"]
    for seed, summary in enumerate(summaries):
        cells = [_percent(summary[f"{name}_accuracy"]) for name in ("flow", "rgb", "fused")]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    minutes = max(summary["seconds"] for summary in summaries) / 60
    return {
        "demo": "\n".join(lines),
        "demo-minutes": textwrap.fill(
            f"It takes under {int(minutes) + 1} minutes on two cores of an AMD EPYC, twice that on"
            " a slow pair, after the installation. Run again, it reuses what is finished and says"
            " so.",
            100,
        ),
    }


def _cross_validation_block() -> dict[str, str]:
    lines = ["| split | stream | sequences | accuracy | 95 % interval |", "|---|---|---|---|---|"]
    names = {"subject-kfold": "subject folds", "original-random": "the original's random split"}
    for entry in read_record("cv-demo")["series"]:
        low, high = entry["pooled"]["interval"]
        lines.append(
            f"| {names[entry['split']]} | {entry['stream']} | {entry['pooled']['num_sequences']} |"
            f" {_percent(entry['pooled']['accuracy'])} | {100 * low:.1f} to {100 * high:.1f} |"
        )
    return {"cross-validation": "\n".join(lines)}


def _training_blocks() -> dict[str, str]:
    record = read_record("train-resnet152-cpu")
    medians = {
        result["case"]["name"]: result["median_samples_per_s"] for result in record["results"]
    }
    lines = [
        "| batches | precision | layout | samples/s | range | data wait |",
        "|---|---|---|---|---|---|",
    ]
    for result in record["results"]:
        case, speeds = result["case"], result["samples_per_s"]
        layout = "channels_last" if case["channels_last"] else "NCHW"
        lines.append(
            f"| {case['name']} | {case['precision']} | {layout} |"
            f" {result['median_samples_per_s']:.2f} | {min(speeds):.2f} - {max(speeds):.2f} |"
            f" {result['median_data_wait_pct']:.2f} % |"
        )
    real = next(
        result for result in record["results"] if result["case"]["name"] == "real, cpu engine"
    )
    ratio = medians["real, cpu engine"] / medians["synthetic, fp32 NCHW"]
    return {
        "training": "\n".join(lines),
        "training-ratio": f"{ratio:.2f} times",
        "training-stall": (
            f"{medians['real, cpu engine'] / medians['synthetic']:.3f} of the speed on a batch that"
            f" is there already, and the net waits {real['median_data_wait_pct']:.2f} % of the time"
        ),
        "training-machine": (
            f"{record['arch']}, {record['stream']} stream, batch {record['batch_size']},"
            f" {record['codec']}, {record['device_name']}, {record['num_cores']} cores, medians of"
            f" {len(real['samples_per_s'])} interleaved repeats"
        ),
    }


def _bench_command_block() -> dict[str, str]:
    lines = [
        "| record | stream | loader | codec | samples/s | range | x PNG tree |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("loader-raw-cpu", "loader-jpg-cpu"):
        records = read_record(name)
        tree = {
            r["stream"]: r["samples_per_s"]["median"] for r in records if r["engine"] == "png-tree"
        }
        for record in records:
            speed = record["samples_per_s"]
            lines.append(
                f"| {name}.json | {record['stream']} | {record['name']} | {record['codec']} |"
                f" {speed['median']:,.0f} | {speed['min']:,.0f} - {speed['max']:,.0f} |"
                f" {speed['median'] / tree[record['stream']]:.1f} |"
            )
    return {"bench-command": "\n".join(lines)}


def _headline_blocks() -> dict[str, str]:
    """Say what the loader comparison came to: in a sentence, and in three rows."""
    comparison = read_record("loaders-cpu")
    speeds = {record["name"]: record["samples_per_s"] for record in comparison["records"]}
    tree = next(r["name"] for r in comparison["records"] if r["engine"] == "png-tree")
    best = max(
        (r["name"] for r in comparison["records"] if not r["is_ours"] and r["codec"] != "png"),
        key=lambda name: float(speeds[name]["median"]),
    )
    ours, machine = "cpu, raw", comparison["machine"]
    ratio = {name: speeds[ours]["median"] / speeds[name]["median"] for name in (tree, best)}
    lines = ["| loader | samples/s | range | x PNG tree |", "|---|---|---|---|"]
    for name, title in ((ours, f"**{ours}**"), (best, f"fastest peer: {best}"), (tree, tree)):
        speed = speeds[name]
        lines.append(
            f"| {title} | {speed['median']:,.0f} | {speed['min']:,.0f} - {speed['max']:,.0f} |"
            f" {speed['median'] / speeds[tree]['median']:.1f} |"
        )
    return {
        "headline": textwrap.fill(
            f"On {machine['usable_cores']} cores of an {machine['processor']} it delivers"
            f" **{speeds[ours]['median']:,.0f} ten-channel samples a second**,"
            f" {ratio[tree]:.0f} times the tree of PNG files and {ratio[best]:.1f} times the"
            f" fastest peer ({best}).",
            100,
        ),
        "loaders-short": "\n".join(lines),
    }


def _memory_block() -> dict[str, str]:
    record = read_record("build-memory")
    return {
        "build-memory": (
            f"{record['num_sequences']:,} sequences of six 64x48 frames on {record['workers']}"
            f" workers peak at {record['main_peak_mb']} MB in the main process and"
            f" {record['worker_peak_mb']} MB in the largest worker"
        )
    }


def main() -> None:
    blocks = all_blocks()
    for page in PAGES:
        path = ROOT / page
        path.write_text(fill(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    plot_loaders(read_record("loaders-cpu"), ROOT / "docs" / "loaders.png")


if __name__ == "__main__":
    main()
