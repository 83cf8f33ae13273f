"""The whole path on generated data, in the commands a user would type: synth, build, train both
streams, test and fuse.

    python -m bench.demo demo --seed 0

Both streams start from ImageNet weights that a Python package brings (:mod:`bench.pretrained`).
Each step that has finished is remembered with its exact command, ``release`` in
``demo/release.json`` and so on; a second run reuses it and says so. A step whose command has
changed, or that did not finish, starts over, and so do all steps after it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from matplotlib.figure import Figure

from bench.harness import make_parser, program_words
from pipelines.dataset import open_dataset
from pipelines.throughput.turns import machine_facts
from shard_builder.files import write_json
from shard_builder.images import decode_gray, decode_rgb
from shard_builder.inspection.flow_picture import flow_to_rgb

TRAINING = (
    "OUT/dataset --weights OUT/weights/efficientnet_lite0.pth --seed SEED"
    " --arch timm/efficientnet_lite0 --folds 5 --fold 0 --batch-size 16 --iter-size 1"
    " --optimizer adamw --lr 0.001 --head-lr-scale 5 --weight-decay 0.02 --schedule one-cycle"
    " --label-smoothing 0.1 --dropout 0.2 --precision fp32 --val-every 5 --cache ram"
)
STEPS = {
    "release": "ckshard synth OUT/release --subjects 30 --image-scale 0.5 --max-frames 16"
    " --workers 2 --seed SEED",
    "dataset": "ckshard build OUT/release OUT/dataset --crop landmarks --workers 2",
    "weights": "python -m bench.pretrained OUT/weights",
    "flow": f"cktrain flow {TRAINING} --out OUT/flow --epochs 10",
    "rgb": f"cktrain rgb {TRAINING} --out OUT/rgb --epochs 18 --rgb-apex-frames 3",
    "test": "cktrain test OUT/rgb OUT/flow OUT/dataset --out OUT/test",
}
"""The folder that a step writes, and its command."""
RESULTS = ("flow", "rgb", "fused")


def step_commands(out: Path, seed: int) -> dict[str, str]:
    """Return each step's command, by the folder it writes."""
    place = shlex.quote(str(out))
    return {
        name: command.replace("OUT", place).replace("SEED", str(seed))
        for name, command in STEPS.items()
    }


def run_steps(out: Path, seed: int) -> float:
    """Run what has not finished yet, and all after it; return the seconds of every step, also of
    the reused ones.
    """
    is_new, total_s = False, 0.0
    for name, command in step_commands(out, seed).items():
        folder, record = out / name, out / f"{name}.json"
        finished = json.loads(record.read_text()) if record.exists() else {}
        is_new |= finished.get("command") != command or not folder.is_dir()
        if is_new:
            record.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            print(command, flush=True)
            begin = time.monotonic()
            subprocess.run(program_words(command), check=True)
            seconds = round(time.monotonic() - begin, 1)
            write_json(record, finished := {"command": command, "seconds": seconds})
        else:
            print(f"reused {name}: {folder}", flush=True)
        total_s += finished["seconds"]
    return round(total_s, 1)


def write_sample_figure(dataset_dir: Path, path: Path) -> None:
    """Draw one subject's seven peak frames over the flow in the middle of each sequence."""
    with open_dataset(dataset_dir) as dataset:
        subject, flow = dataset.subjects[0], dataset.manifest.flow
        assert flow is not None, "the demo builds both streams"
        rows = [row for row in range(len(dataset)) if dataset.subjects[row] == subject]
        rows.sort(key=lambda row: int(dataset.labels[row]))
        figure = Figure(figsize=(2.1 * len(rows), 3.6), dpi=110, layout="tight")
        axes = figure.subplots(2, len(rows), squeeze=False, subplot_kw={"xticks": [], "yticks": []})
        for row, (above, below) in zip(rows, axes.T, strict=True):
            last, middle = dataset.num_usable("rgb")[row] - 1, dataset.num_pairs[row] // 2
            peak = decode_rgb(dataset.read_member("rgb", row, int(last)))
            levels = decode_gray(dataset.read_member("flow", row, int(middle)))
            assert peak is not None and levels is not None, "members just built can be decoded"
            picture, full_px = flow_to_rgb(levels, bound_px=flow.bound_px)
            above.set_title(dataset.class_names[int(dataset.labels[row])], fontsize=10)
            above.imshow(peak)
            below.imshow(picture)
            below.set_xlabel(f"bright: {full_px:.2g} px", fontsize=8)
    axes[0, 0].set_ylabel("peak frame", fontsize=9)
    axes[1, 0].set_ylabel("flow, mid-sequence", fontsize=9)
    title = f"Subject {subject}: the rgb stream sees the peak frame, the flow stream the motion"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    try:
        seconds = run_steps(out, options.seed)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: step failed with exit code {error.returncode}")
    write_sample_figure(out / "dataset", out / "sample.png")
    report = json.loads((out / "test" / "test.json").read_text())
    accuracies = {f"{name}_accuracy": report[name]["accuracy"] for name in RESULTS}
    facts = {"seconds": seconds, "machine": machine_facts(), "seed": options.seed}
    write_json(out / "summary.json", accuracies | facts)
    print(f"{report['num_sequences']} sequences of subjects never trained on; chance is 1/7:")
    for name in RESULTS:
        print(f"  {name:5} {100 * report[name]['accuracy']:5.1f} %")
    print(f"{seconds} s of work; {out}/ has summary.json, sample.png and all figures")


if __name__ == "__main__":
    main()
