"""What meets a mutated folder: the commands of ckshard and cktrain, and the loaders."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import shard_builder.cli
import train.cli
from pipelines.dataset import open_dataset
from pipelines.loader import make_loader
from pipelines.reading import Reading
from shard_builder.console import print_error, quiet_libraries
from shard_builder.errors import CkError
from tests.system.mutations.base import TRAINING, Base
from tests.system.mutations.box import Action


def command(program: str, *words: object) -> Action:
    """Run a command in this process."""

    def act() -> None:
        sys.argv = [program, *map(str, words)]
        (shard_builder.cli.main if program == "ckshard" else train.cli.main)()

    return act


def load(dataset: Path, stream: str, engine: str, *, on_error: str = "raise") -> Action:
    """Load two epochs, as a user's script would."""

    def act() -> None:
        try:
            with quiet_libraries(), open_dataset(dataset) as opened:
                reading = Reading(engine=engine, num_threads=1, on_error=on_error)  # type: ignore[arg-type]
                loader = make_loader(
                    opened,
                    stream,  # type: ignore[arg-type]
                    training=True,
                    batch_size=8,
                    reading=reading,
                )
                with loader:
                    for _ in range(2):
                        for batch in loader:
                            batch.images.sum()
        except CkError as error:
            print_error("load", str(error))
            sys.exit(error.exit_code)

    return act


def dataset_actions(draw: random.Random, dataset: Path, out: Path) -> dict[str, Action]:
    """What is done to a mutated dataset: verify, and two more."""
    stream = draw.choice(("rgb", "flow"))
    training = _training()
    rest = {
        "quick": command("ckshard", "verify", dataset, "--quick"),
        "inspect": command("ckshard", "inspect", dataset),
        "page": command("ckshard", "inspect", dataset, "--html", out / "page.html"),
        "split": command("ckshard", "split", dataset, "--folds", 3, "--out", out / "splits"),
        "load": load(dataset, stream, "cpu"),
        "skip": load(dataset, stream, "cpu", on_error="skip"),
        "train": command("cktrain", stream, dataset, "--out", out / "run", *training),
    }
    names = draw.sample(sorted(rest), 2)
    if draw.random() < 0.08:
        rest["dali"], names = load(dataset, stream, "dali"), [*names, "dali"]
    return {"verify": command("ckshard", "verify", dataset)} | {name: rest[name] for name in names}


def run_actions(
    draw: random.Random, run: Path, base: Base, stream: str, out: Path
) -> dict[str, Action]:
    """What is done to a mutated run: two of the commands that read one."""
    dataset = base.datasets["jpg"]
    more = ["--out", run, "--resume", "--epochs", 3, "--workers", 1]
    weights = run / draw.choice(("last.pt", "best.pt"))
    training = _training(but="weights")
    other = base.runs["flow" if stream == "rgb" else "rgb"]
    actions = {
        "test": command("cktrain", "test", run, dataset, "--out", out / "test"),
        "test in it": command("cktrain", "test", run, dataset),
        "fuse": command("cktrain", "test", run, other, dataset, "--out", out / "fused"),
        "resume": command("cktrain", stream, dataset, *more),
        "predict": command("cktrain", "predict", run, base.frames, "--out", out / "predict"),
        "predict in it": command("cktrain", "predict", run, base.frames, "--out", run),
        "report": command("cktrain", "report", run, "--out", out / "report.html"),
        "weights": command(
            *("cktrain", stream, dataset, "--out", out / "new", "--weights", weights), *training
        ),
    }
    return {name: actions[name] for name in draw.sample(sorted(actions), 2)}


def fold_actions(draw: random.Random, folds: Path, base: Base, out: Path) -> dict[str, Action]:
    """What is done to a mutated cross-validation: it goes on, and another command reads it."""
    training = _training(but="folds")
    dataset = base.datasets["jpg"]
    rest = {
        "report": command("cktrain", "report", folds, "--out", out / "report.html"),
        "report in it": command("cktrain", "report", folds),
        "compare": command(
            "cktrain", "report", folds, base.runs["flow"], "--out", out / "two.html"
        ),
    }
    name = draw.choice(sorted(rest))
    cv = command("cktrain", "cv", "flow", dataset, "--out", folds, "--folds", 2, *training)
    actions = {"cv": cv, name: rest[name]}
    return {name: actions[name] for name in draw.sample(sorted(actions), 2)}


def export_actions(draw: random.Random, file: Path, base: Base, out: Path) -> dict[str, Action]:
    """What is done to a file that a person names: two of the commands that read one."""
    training = _training(but="weights")
    dataset, stream = base.datasets["jpg"], file.stem
    actions = {
        "predict": command("cktrain", "predict", file, base.frames, "--out", out / "predict"),
        "weights": command(
            *("cktrain", stream, dataset, "--out", out / "new", "--weights", file), *training
        ),
        "faces": command(
            *("ckshard", "build", base.release, out / "dataset", "--crop", "faces"),
            *("--face-model", file, "--streams", "rgb", "--yes", "--workers", 1),
        ),
    }
    names = ["predict"] + [draw.choice(("weights", "faces"))] * (draw.random() < 0.3)
    return {name: actions[name] for name in names}


def _training(*, but: str = "") -> list[object]:
    """Return the options of a small training, all but one."""
    pairs = ((f"--{name.replace('_', '-')}", v) for name, v in TRAINING.items() if name != but)
    return [word for pair in pairs for word in pair]
