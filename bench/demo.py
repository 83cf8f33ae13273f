"""The whole path on generated data, in the commands a user would type: synth, build, train both
streams, test and fuse.

    python -m bench.demo demo --seed 0

Both streams start from ImageNet weights that a Python package brings (:mod:`bench.pretrained`).
Each step that has finished is remembered with its exact command in ``demo/steps.json``; a second
run reuses it and says so. A step whose command has changed, or that did not finish, starts over,
and so do all steps after it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.pretrained import NAME
from pipelines.dataset import open_dataset
from pipelines.throughput.turns import machine_facts
from shard_builder.console import make_console
from shard_builder.files import write_atomically
from shard_builder.images import decode_gray, decode_rgb
from shard_builder.inspection.flow_picture import flow_to_rgb

RELEASE = "--subjects 30 --image-scale 0.5 --max-frames 16 --workers 2"
TRAINING = (
    "--arch timm/efficientnet_lite0 --folds 5 --fold 0 --batch-size 16 --iter-size 1"
    " --optimizer adamw --lr 0.001 --head-lr-scale 5 --weight-decay 0.02 --schedule one-cycle"
    " --label-smoothing 0.1 --dropout 0.2 --precision fp32 --val-every 5 --cache ram"
)
OF_STREAM = {"flow": "--epochs 10", "rgb": "--epochs 18 --rgb-apex-frames 3"}


def step_commands(out: Path, seed: int) -> list[tuple[str, Path, list[str]]]:
    """List the steps as (name, folder it writes, command line)."""
    release, dataset, test = out / "release", out / "dataset", out / "test"
    weights = out / "weights"
    seeded = ["--seed", str(seed)]
    synth = ["ckshard", "synth", str(release), *RELEASE.split(), *seeded]
    build = ["ckshard", "build", str(release), str(dataset), "--crop", "landmarks"]
    build += ["--workers", "2"]
    pretrained = ["python", "-m", "bench.pretrained", str(weights)]
    steps = [("synth", release, synth), ("build", dataset, build), ("weights", weights, pretrained)]
    for stream, own in OF_STREAM.items():
        words = ["cktrain", stream, str(dataset), "--out", str(out / stream)]
        words += ["--weights", str(weights / NAME), *TRAINING.split(), *own.split(), *seeded]
        steps.append((f"train {stream}", out / stream, words))
    runs = [str(out / "rgb"), str(out / "flow")]
    return [*steps, ("test", test, ["cktrain", "test", *runs, str(dataset), "--out", str(test)])]


def run_steps(out: Path, seed: int, console: Console) -> dict[str, float]:
    """Run what has not finished yet; return the seconds of every step, also of the reused ones."""
    record = out / "steps.json"
    finished = json.loads(record.read_text()) if record.exists() else []
    for number, (name, folder, command) in enumerate(step_commands(out, seed)):
        known = finished[number] if number < len(finished) else None
        if known and known["command"] == command and folder.is_dir():
            console.print(f"reused {name}: {folder}")
            continue
        finished = finished[:number]
        write_json(record, finished)
        if folder.exists():
            reason = "is unfinished or was made with another command"
            console.print(f"starting over {name}: {folder} {reason}")
            shutil.rmtree(folder)
        console.print(" ".join(command))
        begin = time.monotonic()
        program = Path(sys.executable).with_name(command[0])
        subprocess.run([str(program), *command[1:]], check=True)
        seconds = round(time.monotonic() - begin, 1)
        finished.append({"name": name, "command": command, "seconds": seconds})
        write_json(record, finished)
    return {step["name"]: step["seconds"] for step in finished}


def write_json(path: Path, value: Any) -> None:
    """Write a value whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def write_sample_figure(dataset_dir: Path, path: Path) -> None:
    """Draw one subject's seven peak frames over the flow in the middle of each sequence."""
    with open_dataset(dataset_dir) as dataset:
        subject, flow = str(dataset.subjects[0]), dataset.manifest.flow
        assert flow is not None, "the demo builds both streams"
        rows = [row for row in range(len(dataset)) if str(dataset.subjects[row]) == subject]
        rows.sort(key=lambda row: int(dataset.labels[row]))
        figure = Figure(figsize=(2.1 * len(rows), 3.6), dpi=110, layout="tight")
        axes = figure.subplots(2, len(rows), squeeze=False)
        for row, (above, below) in zip(rows, axes.T, strict=True):
            middle_pair = int(dataset.num_pairs[row]) // 2
            peak = decode_rgb(
                dataset.read_member("rgb", row, int(dataset.num_usable("rgb")[row]) - 1)
            )
            levels = decode_gray(dataset.read_member("flow", row, middle_pair))
            assert peak is not None and levels is not None, "members just built can be decoded"
            above.set_title(dataset.class_names[int(dataset.labels[row])], fontsize=10)
            above.imshow(peak)
            picture, full_px = flow_to_rgb(levels, bound_px=flow.bound_px)
            below.imshow(picture)
            below.set_xlabel(f"bright: {full_px:.2g} px", fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("peak frame", fontsize=9)
    axes[1, 0].set_ylabel("flow, mid-sequence", fontsize=9)
    title = f"Subject {subject}: the rgb stream sees the peak frame, the flow stream the motion"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def collect(out: Path, seconds: dict[str, float], seed: int) -> dict[str, Any]:
    """Gather the figures and the numbers of all steps into ``out`` and return the summary."""
    report = json.loads((out / "test" / "test.json").read_text())
    for stream in ("flow", "rgb"):
        shutil.copyfile(out / stream / "figures" / "curves.png", out / f"curves-{stream}.png")
    for name in ("flow", "rgb", "fused"):
        shutil.copyfile(out / "test" / f"confusion-{name}.png", out / f"confusion-{name}.png")
    write_sample_figure(out / "dataset", out / "sample.png")
    return {
        **{f"{name}_accuracy": report[name]["accuracy"] for name in ("flow", "rgb", "fused")},
        "num_test_sequences": report["num_sequences"],
        "num_test_subjects": report["num_subjects"],
        "machine": machine_facts(),
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_step": seconds,
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = make_console()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        seconds = run_steps(options.out, options.seed, console)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: step failed with exit code {error.returncode}: {' '.join(error.cmd)}")
    summary = collect(options.out, seconds, options.seed)
    write_json(options.out / "summary.json", summary)
    table = Table("stream", "accuracy")
    for name in ("flow", "rgb", "fused"):
        table.add_row(name, f"{100 * summary[f'{name}_accuracy']:.1f} %")
    sequences, seconds_of_work = summary["num_test_sequences"], summary["seconds"]
    console.print(f"{sequences} sequences of subjects never trained on (chance is 1/7):")
    console.print(table)
    console.print(f"{seconds_of_work} s of work; summary.json and figures: {options.out}/")


if __name__ == "__main__":
    main()
