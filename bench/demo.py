"""The whole path on generated data, in the commands a user would type: synth, build, train both
streams, test and fuse.

    python bench/demo.py demo --seed 0

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

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from pipelines.dataset import open_dataset
from shard_builder.images import decode_gray, decode_rgb
from shard_builder.inspection.flow_picture import flow_to_rgb

NUM_SUBJECTS = 30
NUM_FOLDS = 5
EPOCHS = {"flow": 26, "rgb": 14}
LR = {"flow": "0.01", "rgb": "0.002"}


def step_commands(out: Path, seed: int) -> list[tuple[str, Path, list[str]]]:
    """List the steps as (name, folder it writes, command line)."""
    release, dataset, test = out / "release", out / "dataset", out / "test"
    train = [
        "--arch",
        "resnet18",
        "--weights",
        "none",
        "--folds",
        str(NUM_FOLDS),
        "--fold",
        "0",
        "--seed",
        str(seed),
    ]
    train += ["--batch-size", "16", "--iter-size", "1", "--dropout", "0.3", "--val-every", "4"]
    steps = [
        (
            "synth",
            release,
            [
                "ckshard",
                "synth",
                str(release),
                "--subjects",
                str(NUM_SUBJECTS),
                "--image-scale",
                "0.5",
            ],
        ),
        ("build", dataset, ["ckshard", "build", str(release), str(dataset), "--workers", "2"]),
    ]
    steps[0][2].extend(["--max-frames", "16", "--seed", str(seed), "--workers", "2"])
    for stream in ("flow", "rgb"):
        run = out / stream
        epochs = EPOCHS[stream]
        schedule = [
            "--epochs",
            str(epochs),
            "--lr",
            LR[stream],
            "--lr-steps",
            f"{epochs * 2 // 3},{epochs * 9 // 10}",
        ]
        steps.append(
            (
                f"train {stream}",
                run,
                ["cktrain", stream, str(dataset), "--out", str(run), *train, *schedule],
            )
        )
    steps.append(
        (
            "test",
            test,
            [
                "cktrain",
                "test",
                str(out / "rgb"),
                str(out / "flow"),
                str(dataset),
                "--out",
                str(test),
            ],
        )
    )
    return steps


def run_steps(out: Path, seed: int, console: Console) -> dict[str, float]:
    """Run what has not finished yet; return the seconds of every step, also of the reused ones."""
    record = out / "steps.json"
    finished = json.loads(record.read_text()) if record.exists() else []
    seconds: dict[str, float] = {}
    for number, (name, folder, command) in enumerate(step_commands(out, seed)):
        known = finished[number] if number < len(finished) else None
        if known and known["command"] == command and folder.is_dir():
            console.print(f"[green]reused[/] {name}: {folder}")
            seconds[name] = known["seconds"]
            continue
        finished = finished[:number]
        record.write_text(json.dumps(finished, indent=1))
        if folder.exists():
            console.print(
                f"[yellow]starting over[/] {name}: {folder} is unfinished or was made with another"
                " command"
            )
            shutil.rmtree(folder)
        console.print(f"[bold]{' '.join(command)}[/]", soft_wrap=True)
        begin = time.monotonic()
        program = Path(sys.executable).with_name(command[0])
        subprocess.run([str(program), *command[1:]], check=True)
        seconds[name] = round(time.monotonic() - begin, 1)
        finished.append({"name": name, "command": command, "seconds": seconds[name]})
        record.write_text(json.dumps(finished, indent=1))
    return seconds


def write_sample_figure(dataset_dir: Path, path: Path) -> None:
    """Draw one subject's seven peak frames over the flow summed in the middle of each sequence."""
    with open_dataset(dataset_dir) as dataset:
        subject = str(dataset.subjects[0])
        rows = [row for row in range(len(dataset)) if str(dataset.subjects[row]) == subject]
        rows.sort(key=lambda row: int(dataset.labels[row]))
        flow = dataset.manifest.flow
        assert flow is not None, "the demo builds both streams"
        figure, axes = plt.subplots(2, len(rows), figsize=(2.1 * len(rows), 3.6), squeeze=False)
        for column, row in enumerate(rows):
            peak = decode_rgb(dataset.read_member("rgb", row, -1))
            pairs = int(dataset.num_pairs[row])
            levels = decode_gray(dataset.read_member("flow", row, pairs // 2))
            axes[0, column].set_title(dataset.class_names[int(dataset.labels[row])], fontsize=10)
            assert peak is not None and levels is not None, (
                "members of a dataset just built can be decoded"
            )
            axes[0, column].imshow(peak)
            axes[1, column].imshow(flow_to_rgb(levels, bound_px=flow.bound_px))
            for axis in axes[:, column]:
                axis.set_xticks([])
                axis.set_yticks([])
        axes[0, 0].set_ylabel("peak frame", fontsize=9)
        axes[1, 0].set_ylabel("flow, mid-sequence", fontsize=9)
        figure.suptitle(
            f"Subject {subject}: the rgb stream sees the peak frame, the flow stream the motion",
            fontsize=11,
        )
        figure.tight_layout()
        figure.savefig(path, dpi=110)
        plt.close(figure)


def collect(out: Path, seconds: dict[str, float], seed: int) -> dict[str, object]:
    """Gather the figures and the numbers of all steps into ``out`` and return the summary."""
    report = json.loads((out / "test" / "test.json").read_text())
    for stream in ("flow", "rgb"):
        shutil.copyfile(out / stream / "figures" / "curves.png", out / f"curves-{stream}.png")
    for name in ("flow", "rgb", "fused"):
        shutil.copyfile(out / "test" / f"confusion-{name}.png", out / f"confusion-{name}.png")
    write_sample_figure(out / "dataset", out / "sample.png")
    return {
        "flow_accuracy": report["flow"]["accuracy"],
        "rgb_accuracy": report["rgb"]["accuracy"],
        "fused_accuracy": report["fused"]["accuracy"],
        "num_test_sequences": report["num_sequences"],
        "num_test_subjects": report["num_subjects"],
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
    console = Console(highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        seconds = run_steps(options.out, options.seed, console)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: step failed with exit code {error.returncode}: {' '.join(error.cmd)}")
    summary = collect(options.out, seconds, options.seed)
    temporary = options.out / "summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=1) + "\n")
    temporary.replace(options.out / "summary.json")
    table = Table()
    table.add_column("stream")
    table.add_column("accuracy", justify="right")
    for name in ("flow", "rgb", "fused"):
        table.add_row(name, f"{100 * float(str(summary[f'{name}_accuracy'])):.1f} %")
    console.print(
        f"{summary['num_test_sequences']} sequences of subjects never trained on (chance is 1/7):"
    )
    console.print(table)
    console.print(
        f"{summary['seconds']} s of work; summary.json and the figures are in {options.out}/"
    )


if __name__ == "__main__":
    main()
