"""Seeded cases: a fresh copy, one mutation, some commands in a box, and what they did."""

from __future__ import annotations

import importlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from tests.system.mutations.base import Base
from tests.system.mutations.box import EXTRA_BYTES, Outcome, Victims, run_in_box
from tests.system.mutations.commands import (
    dataset_actions,
    export_actions,
    fold_actions,
    run_actions,
)
from tests.system.mutations.datasets import mutate_dataset
from tests.system.mutations.exports import mutate_export
from tests.system.mutations.runs import mutate_any_file, mutate_run

NUM_CLEAN = 4
Subject = Literal["dataset", "run", "folds", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case and its outcome.

    Args:
        number: Of the case; with the seed it gives the same case again.
        mutation: Class of the mutation.
        actions: Names of what was done.
        outcome: What happened.
    """

    number: int
    mutation: str
    actions: tuple[str, ...]
    outcome: Outcome = field(repr=False)

    def __str__(self) -> str:
        faults = ", ".join(self.outcome.faults) or "ok"
        done = " ".join(
            f"{name}:{code}" for name, code in zip(self.actions, self.outcome.codes, strict=False)
        )
        return f"case {self.number}: {self.mutation}: {faults} ({done or self.actions})"


def run_cases(
    base: Base, of: Subject, numbers: range, *, seed: int = 0, keep: Path | None = None
) -> Iterator[CaseResult]:
    """Run some cases; a clean one first says how much memory is usual."""
    torch.set_num_threads(1)
    importlib.import_module("captum.attr")  # else each forked process that reports would do it
    clean_bytes = 0
    for number in range(NUM_CLEAN):
        result = run_case(base, of, number, seed=seed, mutated=False)
        clean_bytes = max(clean_bytes, result.outcome.peak_bytes)
        is_clean = not result.outcome.faults and not any(result.outcome.codes)
        assert is_clean, f"{result}\n{result.outcome.output}"
    for number in numbers:
        result = run_case(base, of, number, seed=seed, keep=keep)
        if result.outcome.peak_bytes > clean_bytes + EXTRA_BYTES:
            result.outcome.faults.append("memory")
        yield result


def run_case(
    base: Base,
    of: Subject,
    number: int,
    *,
    seed: int,
    mutated: bool = True,
    keep: Path | None = None,
) -> CaseResult:
    """Run one case in a folder of its own."""
    draw = random.Random(f"{of}-{seed}-{number}")
    folder = Path(tempfile.mkdtemp(prefix="ckshard-case-")) if keep is None else keep
    try:
        victims = Victims(folder / "outside")
        inside, scratch, out = folder / "inside", folder / "scratch", folder / "out"
        scratch.mkdir()
        out.mkdir()
        if of == "dataset":
            source = base.datasets[draw.choice(("jpg", "jpg", "png", "raw", "lz4"))]
            shutil.copytree(source, inside)
            actions = dataset_actions(draw, inside, out)
            mutation = mutate_dataset(draw, inside, victims) if mutated else "clean"
        elif of == "export":
            source = draw.choice(base.exports)
            inside.mkdir()
            file = Path(shutil.copy(source, inside))
            actions = export_actions(draw, file, base, out)
            if not mutated:  # it is neither weights nor a face detector
                actions = {"predict": actions["predict"]}
            mutation = mutate_export(draw, file, victims) if mutated else "clean"
            if mutation.startswith("link-"):  # that of a face model is followed
                actions.pop("faces", None)
        elif of == "folds":
            shutil.copytree(base.folds, inside)
            actions = fold_actions(draw, inside, base, out)
            mutation = mutate_any_file(draw, inside, victims) if mutated else "clean"
        else:
            stream = draw.choice(("rgb", "flow"))
            shutil.copytree(base.runs[stream], inside)
            actions = run_actions(draw, inside, base, stream, out)
            mutation = mutate_run(draw, inside, victims) if mutated else "clean"
        victims.arm()
        outcome = run_in_box(list(actions.values()), scratch, victims)
        return CaseResult(number=number, mutation=mutation, actions=tuple(actions), outcome=outcome)
    finally:
        if keep is None:
            shutil.rmtree(folder)
