"""Checkpoints: damaged, of gigabytes, with other fields, with answers that are no numbers."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest
import torch

from tests.system.mutations.base import Base
from tests.system.untrusted.changes import Cli


def test_a_flipped_bit_in_a_checkpoint_is_always_found(run: Path, base: Base, cli: Cli) -> None:
    path, draw = run / "last.pt", random.Random(0)
    whole = path.read_bytes()
    for _ in range(6):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        code, printed = cli("cktrain", "test", run, base.datasets["jpg"])
        assert code == 2 and f"{path}: " in printed, printed


def test_a_sealed_checkpoint_is_still_one_of_torch(run: Path) -> None:
    content = torch.load(run / "last.pt", weights_only=True)
    assert content["format"] == "ckshard-checkpoint"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_an_error(
    value: float, run: Path, base: Base, cli: Cli, tmp_path: Path
) -> None:
    from train.running.checkpoint import write_checkpoint

    content = torch.load(run / "last.pt", weights_only=True)
    content["model"]["conv.weight"].fill_(value)
    write_checkpoint(run / "last.pt", content)
    code, printed = cli("cktrain", "predict", run, base.frames, "--out", tmp_path / "prediction")
    assert code == 2 and "numbers that are not finite" in printed


@pytest.mark.parametrize("command", ["test", "weights"])
def test_a_checkpoint_that_unpacks_to_gigabytes_is_refused(
    command: str, run: Path, base: Base, cli: Cli, tmp_path: Path
) -> None:
    import zipfile

    path = run / "last.pt"
    source = zipfile.ZipFile(path)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            with target.open(entry.filename, "w", force_zip64=True) as file:
                if entry.filename.endswith("data/0"):
                    for _ in range(48):
                        file.write(bytes(1 << 26))
                else:
                    file.write(source.read(entry))
    (tmp_path / "bomb").replace(path)
    dataset = base.datasets["jpg"]
    words = ["test", run, dataset]
    if command == "weights":
        words = ["flow", dataset, "--out", tmp_path / "new", "--weights", path, "--folds", 3]
    code, printed = cli("cktrain", *words)
    assert code == 2 and f"{path}: cannot be read as" in printed


def test_fields_of_a_sealed_checkpoint_are_checked(run: Path, base: Base, cli: Cli) -> None:
    from train.running.checkpoint import write_checkpoint

    whole = torch.load(run / "last.pt", weights_only=True)
    for name, value, words in (
        ("stack_length", 10**6, "stack_length"),
        ("classes", "x", "classes"),
        ("output_of_class", [0, 99], "output_of_class"),
        ("progress", None, "progress"),
        ("model", {}, "other tensors than the net's"),
        ("geometry", {"height": 30_000, "width": 30_000}, "geometry.height"),
    ):
        write_checkpoint(run / "last.pt", whole | {name: value})
        code, printed = cli("cktrain", "test", run, base.datasets["jpg"])
        assert code == 2 and words in printed, printed


@pytest.mark.timeout(60)
def test_a_checkpoint_of_an_epoch_without_end_is_no_loop(run: Path, base: Base, cli: Cli) -> None:
    from train.running.checkpoint import write_checkpoint

    whole = torch.load(run / "last.pt", weights_only=True)
    elsewhere = {"loader": whole["loader"] | {"epoch": 1 << 40}}
    resume = ("cktrain", "flow", base.datasets["jpg"], "--out", run, "--resume")
    write_checkpoint(run / "last.pt", whole | elsewhere)
    code, printed = cli(*resume)
    assert code == 2 and f"epoch {whole['epoch']}, but loader.epoch {1 << 40}" in printed, printed
    write_checkpoint(run / "last.pt", whole | elsewhere | {"epoch": 1 << 40})
    code, printed = cli(*resume)
    assert code == 2 and f"but {1 << 40} are done" in printed, printed


def test_a_small_checkpoint_that_names_a_net_of_gigabytes_takes_none(
    run: Path, base: Base, cli: Cli
) -> None:
    from train.running.checkpoint import write_checkpoint

    content = torch.load(run / "last.pt", weights_only=True)
    write_checkpoint(run / "last.pt", content | {"arch": "timm/vit_huge_patch14_224"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, printed = cli("cktrain", "predict", run, base.frames, "--out", run / "prediction")
    assert code == 2 and "other tensors than the net's" in printed
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
