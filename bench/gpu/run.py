"""``bench/gpu.sh``: run what wants a GPU step by step, each with a time limit, and write one record
and one table.

A step that fails, hangs or cannot run is recorded with the reason and does not stop the others.
Only what the steps themselves need is imported, so that the command runs on a machine without this
project's other dependencies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import cv2
import torch

from bench.gpu.report import gpu_blocks, short_reason
from pipelines.throughput.measure import MIN_REPEATS
from pipelines.throughput.turns import machine_facts
from shard_builder.files import write_atomically
from shard_builder.provenance import git_revision, package_versions

ROOT = Path(__file__).parent.parent.parent
CKSHARD, CKTRAIN = (
    [
        sys.executable,
        "-c",
        f"import sys; sys.argv[0] = '{name}'; from {package}.cli import main; main()",
        "--debug",
    ]
    for name, package in (("ckshard", "shard_builder"), ("cktrain", "train"))
)
SEQUENCES_PER_SUBJECT = 7
LOG_END_CHARS = 3000
PEER_SHM_BYTES = 2 << 30
"""What worker processes may fill of shared memory before their batches are taken; a container often
has 64 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured.

    Args:
        num_subjects: Subjects drawn, seven sequences each; together a multiple of ``batch_size``,
            so that no batch is short.
        arch: Net of the training bench.
        batch_size: Samples of a training step.
        steps: Training steps of a repeat.
        loader_samples: Samples of a loader's epoch.
        loader_seconds: Least duration of a repeat of a loader.
        limit_s: Most seconds of all steps together; the rest is left out then.
    """

    num_subjects: int
    arch: str
    batch_size: int
    steps: int
    loader_samples: int
    loader_seconds: float
    limit_s: float

    def __post_init__(self) -> None:
        if self.num_subjects * SEQUENCES_PER_SUBJECT % self.batch_size:
            raise ValueError(
                f"{self.num_subjects} subjects, expected a multiple of {self.batch_size} sequences"
            )


GPU_SCALE = Scale(
    num_subjects=24,
    arch="resnet152",
    batch_size=56,
    steps=20,
    loader_samples=1024,
    loader_seconds=0.5,
    limit_s=460,
)
CPU_SCALE = Scale(
    num_subjects=2,
    arch="resnet18",
    batch_size=7,
    steps=2,
    loader_samples=128,
    loader_seconds=0.1,
    limit_s=1800,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command of the run.

    Args:
        name: For the record.
        command: Program and arguments.
        limit_s: Seconds after which it is stopped.
        needs: Names of steps without which it is not run.
        missing: Why it cannot run here; empty if it can.
        environment: Added to the environment.
    """

    name: str
    command: Sequence[object]
    limit_s: float
    needs: tuple[str, ...] = ()
    missing: str = ""
    environment: tuple[tuple[str, str], ...] = ()


def make_steps(scale: Scale, data: Path, *, on_gpu: bool) -> list[Step]:
    """List the steps, the most telling first: time may run out."""
    draw = (
        "import pathlib, bench.loaders.windows as w; "
        f"w.make_window_folders(pathlib.Path({str(data)!r}), num_subjects={scale.num_subjects})"
    )
    build = [*CKSHARD, "build", data / "tree"]
    return [
        Step(name="data", command=[sys.executable, "-c", draw], limit_s=scale.limit_s / 3),
        Step(name="data jpg", command=[*build, data / "train-jpg"], limit_s=60, needs=("data",)),
        test_step(data, on_gpu=on_gpu),
        train_step(scale, data, "flow", "jpg"),
        train_step(scale, data, "rgb", "jpg"),
        loader_step(scale, data),
        Step(
            name="data raw",
            command=[*build, data / "train-raw", "--codec", "raw"],
            limit_s=60,
            needs=("data",),
        ),
        train_step(scale, data, "flow", "raw"),
    ]


def test_step(data: Path, *, on_gpu: bool) -> Step:
    """Run the gpu tests; their files only, because others import what may be missing here.

    Warnings do not fail them: other versions than the pinned ones have others, and without
    pytest-timeout pytest warns of its option.
    """
    files = [
        path
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if "mark.gpu" in path.read_text("utf-8")
    ]
    options = [
        "-m",
        "gpu",
        "-W",
        "default",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"--junitxml={data / 'tests.xml'}",
    ]
    return Step(
        name="tests",
        command=[
            sys.executable,
            "-m",
            "pytest",
            "--rootdir",
            ROOT,
            "-c",
            ROOT / "pyproject.toml",
            *options,
            *files,
        ],
        limit_s=150,
        missing=import_error("pytest"),
        environment=(("REQUIRE_GPU", "1" if on_gpu else "0"),),
    )


def loader_step(scale: Scale, data: Path) -> Step:
    """Compare loaders, with the peers whose worker processes fit into this machine's shared
    memory.
    """
    shared = Path("/dev/shm")
    has_room = not shared.is_dir() or shutil.disk_usage(shared).free >= PEER_SHM_BYTES
    options = {
        "--folder": data,
        "--subjects": scale.num_subjects,
        "--repeats": MIN_REPEATS,
        "--seconds": scale.loader_seconds,
        "--only": "torch,webdataset,dali" if has_room else "dali",
        "--json": data / "loaders.json",
    }
    return Step(
        name="loaders",
        command=[sys.executable, "-m", "bench.loaders", *chain(*options.items())],
        limit_s=scale.limit_s / 2,
        needs=("data",),
        environment=(("BENCH_SAMPLES", str(scale.loader_samples)),),
    )


def train_step(scale: Scale, data: Path, stream: str, codec: str) -> Step:
    """Train one stream on synthetic, cached and real batches; fp32 NCHW once a stream is enough."""
    options = {
        "--stream": stream,
        "--arch": scale.arch,
        "--batch-size": scale.batch_size,
        "--steps": scale.steps,
        "--warmup": 3,
        "--repeats": MIN_REPEATS,
        "--json": data / f"train-{stream}-{codec}.json",
    }
    command = [*CKTRAIN, "bench", data / f"train-{codec}"]
    return Step(
        name=f"train {stream} {codec}",
        command=[
            *command,
            *chain(*options.items()),
            "--baseline" if codec == "jpg" else "--no-baseline",
        ],
        limit_s=scale.limit_s / 3,
        needs=(f"data {codec}",),
    )


def import_error(module: str) -> str:
    """Return why a module cannot be imported; empty if it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        is_absent = isinstance(error, ModuleNotFoundError) and error.name in (
            None,
            module,
            module.partition(".")[0],
        )
        return (
            f"{module} is not installed" if is_absent else f"{module} cannot be imported: {error}"
        )
    return ""


def run_step(step: Step, logs: Path, *, good: Sequence[str], limit_s: float) -> dict[str, Any]:
    """Run a step and return ``name``, ``seconds``, ``ok`` and ``reason``, which is the end of its
    output if it failed.

    Args:
        step: The step.
        logs: Folder of what the steps print.
        good: Names of the steps that went well.
        limit_s: Seconds left for all steps.
    """
    lacking = [name for name in step.needs if name not in good]
    reason = step.missing or (
        f"it needs the step {lacking[0]!r}" if lacking else "" if limit_s > 1 else "time is up"
    )
    if reason:
        return {"name": step.name, "seconds": 0.0, "ok": False, "reason": f"not run: {reason}"}
    log, begin, limit = (
        logs / f"{step.name.replace(' ', '-')}.txt",
        time.perf_counter(),
        min(step.limit_s, limit_s),
    )
    command = ["timeout", "--kill-after=5", f"{limit:.1f}", *map(str, step.command)]
    with log.open("wb") as output:
        environment = os.environ | dict(step.environment)
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    seconds = round(time.perf_counter() - begin, 1)
    if code:
        end = log.read_text("utf-8", errors="replace").strip()[-LOG_END_CHARS:]
        how = f"stopped after {limit:.0f} s" if code in (124, 137) else f"exit status {code}"
        reason = f"{end}\n{how}"
    return {"name": step.name, "seconds": seconds, "ok": not code, "reason": reason}


def count_tests(path: Path) -> dict[str, int] | None:
    """Return the numbers of ``passed``, ``failed`` and ``skipped`` tests of pytest's XML; None if
    it is not there.
    """
    if not path.is_file():
        return None
    suites = list(ElementTree.parse(path).iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    total, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in names
    )
    failed = failures + errors
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None if ``nvidia-smi`` does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def machine_record() -> dict[str, Any]:
    """Return what is known before anything ran: device, driver, machine, versions, revision."""
    on_gpu = torch.cuda.is_available()
    return {
        "format": "ckshard-gpu",
        "version": 1,
        "command": " ".join(["bash bench/gpu.sh", *sys.argv[1:]]),
        "device": "cuda" if on_gpu else "cpu",
        "driver": driver_version() if on_gpu else None,
        "machine": machine_facts(),
        "versions": package_versions() | {"cv2": cv2.__version__, "cuda": torch.version.cuda},
        "revision": git_revision(),
    }


def run_steps(scale: Scale, out: Path, *, on_gpu: bool) -> dict[str, Any]:
    """Run all steps and write ``gpu.json`` and ``gpu.md`` after each, so that they are there
    however the run ends.

    Args:
        scale: How much is measured.
        out: Folder of the results; its folder ``data`` is made and removed again.
        on_gpu: Whether the gpu tests must find a GPU.
    """
    begin, data, logs = time.perf_counter(), out / "data", out / "logs"
    data.mkdir(parents=True)
    logs.mkdir(exist_ok=True)
    record: dict[str, Any] = machine_record() | {"steps": []}
    for step in make_steps(scale, data, on_gpu=on_gpu):
        good = [done["name"] for done in record["steps"] if done["ok"]]
        left_s = scale.limit_s - (time.perf_counter() - begin)
        done = run_step(step, logs, good=good, limit_s=left_s)
        record["steps"].append(done)
        record["seconds"] = round(time.perf_counter() - begin, 1)
        record["tests"] = count_tests(data / "tests.xml")
        record["loaders"] = next(
            (json.loads(p.read_text("utf-8")) for p in data.glob("loaders.json")), None
        )
        record["training"] = [
            json.loads(path.read_text("utf-8")) for path in sorted(data.glob("train-*-*.json"))
        ]
        write_atomically(out / "gpu.json", (json.dumps(record, indent=1) + "\n").encode())
        write_atomically(out / "gpu.md", (gpu_blocks(record)["gpu"] + "\n").encode())
        print(
            f"{step.name}: {done['seconds']:.1f} s, {short_reason(done['reason']) or 'ok'}",
            flush=True,
        )
    shutil.rmtree(data)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("gpu-results"), help="folder of the results"
    )
    parser.add_argument("--cpu", action="store_true", help="run what a CPU can run, in small")
    options = parser.parse_args()
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not options.cpu:
        stop(
            f"torch {torch.__version__} finds no GPU. To run what a CPU can run, in small: bash"
            f" bench/gpu.sh --cpu {options.out}"
        )
    if missing := import_error("nvidia.dali"):
        stop(
            f"{missing}; install nvidia-dali-cuda120, or put its wheels and what they need on"
            " PYTHONPATH"
        )
    if (options.out / "data").exists():
        stop(
            f"{options.out / 'data'} is there, left by a run that was ended: remove it, or choose"
            " another OUT"
        )
    record = run_steps(GPU_SCALE if on_gpu else CPU_SCALE, options.out, on_gpu=on_gpu)
    print(gpu_blocks(record)["gpu"])
    sys.exit(0 if all(step["ok"] for step in record["steps"]) else 1)


def stop(message: str) -> NoReturn:
    """Say why nothing can be run."""
    sys.stderr.write(f"bench/gpu.sh: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
