"""``bench/gpu.sh``: run what wants a GPU step by step, each with a time limit, and keep what each
printed and measured.

A step that fails, hangs or cannot run is recorded with the reason and does not stop the others.
Only what the steps themselves need is imported, so that the command runs on a machine without this
project's other dependencies.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

import cv2
import torch

from bench.harness import Record, cores_of, program_words, provenance
from pipelines.reading import has_dali
from pipelines.throughput.cases import MIN_REPEATS
from shard_builder.files import write_atomically, write_json

ROOT = Path(__file__).parent.parent
PEER_SHM_BYTES = 2 << 30
"""What worker processes may fill of shared memory before their batches are taken; a container often
has 64 MB."""
MAX_LOG_CHARS = 8000


class Scale(NamedTuple):
    """How much is measured; seven sequences a subject fill whole steps of training."""

    subjects: int
    arch: str
    batch: int
    iter_size: int
    steps: int
    loader_samples: int
    limit_s: float


GPU_SCALE = Scale(24, "resnet152", 56, iter_size=3, steps=7, loader_samples=1024, limit_s=460)
CPU_SCALE = Scale(2, "resnet18", 7, iter_size=2, steps=1, loader_samples=128, limit_s=1800)


class Step(NamedTuple):
    """A command, run in the folder of the data: its name, most seconds, and words."""

    name: str
    limit_s: float
    command: str


def make_steps(scale: Scale) -> list[Step]:
    """List the steps, the most telling first: time may run out.

    Training is on synthetic, cached and real batches, fp32 NCHW once a stream; waits are those of a
    simulated device, in a long epoch and at the border of CK+'s. What a step measures it writes
    into a JSON file of its own.
    """
    subjects = f"--subjects {scale.subjects}"
    build = "ckshard build release train-{0} --codec {0} --yes"
    train = "cktrain bench train-{1} --stream {0} --json train-{0}-{1}.json --{2}"
    train += f" --arch {scale.arch} --batch-size {scale.batch} --iter-size {scale.iter_size}"
    train += f" --steps {scale.steps} --warmup 1 --repeats {MIN_REPEATS}"
    waits = "ckshard bench train-{0} --json waits-{0}.json --seconds 0.5 --streams flow"
    waits += " --dtype float16 --consumer-ms 5 --epoch-samples 80 --batch-size 10"
    loaders = f"python -m bench.loaders --folder . {subjects} --samples {scale.loader_samples}"
    loaders += f" --json loaders.json --seconds 0.5 --only {','.join(peers())}"
    third_s, half_s = scale.limit_s / 3, scale.limit_s / 2
    return [
        Step("data", third_s, f"ckshard synth release {subjects} --max-frames 6"),
        Step("data jpg", third_s, build.format("jpg")),
        Step("tests", 150, f"python -m pytest {shlex.join(gpu_tests())}"),
        Step("train flow jpg", third_s, train.format("flow", "jpg", "baseline")),
        Step("waits jpg", 90, waits.format("jpg")),
        Step("train rgb jpg", third_s, train.format("rgb", "jpg", "baseline")),
        Step("loaders", half_s, loaders),
        Step("data raw", third_s, build.format("raw")),
        Step("train flow raw", third_s, train.format("flow", "raw", "no-baseline")),
        Step("waits raw", 90, waits.format("raw")),
    ]


def peers() -> list[str]:
    """Return the peers whose worker processes fit into this machine's shared memory."""
    shared = Path("/dev/shm")
    has_room = not shared.is_dir() or shutil.disk_usage(shared).free >= PEER_SHM_BYTES
    return ["dali_reader", *(["png_tree", "mapped_array", "webdataset"] if has_room else [])]


def gpu_tests() -> list[str]:
    """Return what runs the gpu tests; their files only, because others import what may be missing.

    Warnings do not fail them: other versions than the pinned ones have others, and without
    pytest-timeout pytest warns of its option.
    """
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [str(path) for path in tests if "mark.gpu" in path.read_text("utf-8")]
    options = ["-m", "gpu", "-W", "default", "--tb=short", "-p", "no:cacheprovider"]
    return ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *options, *files]


def run_step(step: Step, data: Path, logs: Path, *, left_s: float) -> Record:
    """Run a step and return ``name``, ``seconds``, ``ok`` and ``end``: what it printed last, and if
    it failed how it ended; its output goes into ``logs``. ``left_s`` is left for all steps.
    """
    if left_s < 1:
        return {"name": step.name, "seconds": 0.0, "ok": False, "end": "not run: time is up"}
    log, limit = logs / f"{step.name.replace(' ', '-')}.txt", min(step.limit_s, left_s)
    command = ["timeout", "--kill-after=5", f"{limit:.1f}", *program_words(step.command)]
    begin = time.perf_counter()
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=data, stdout=output, stderr=output, check=False)
    seconds, code = round(time.perf_counter() - begin, 1), done.returncode
    end = log.read_text("utf-8", errors="replace").strip()[-MAX_LOG_CHARS:]
    if code:
        way = f"stopped after {limit:.0f} s" if code in (124, 137) else f"exit status {code}"
        end += f"\n{way}"
    return {"name": step.name, "seconds": seconds, "ok": not code, "end": end}


def run_steps(scale: Scale, out: Path, *, on_gpu: bool) -> Record:
    """Run all steps and write ``gpu.json`` and ``gpu.md`` after each, so that they are there
    however the run ends.

    Args:
        scale: How much is measured.
        out: Folder of the results.
        on_gpu: Whether the gpu tests must find a GPU.

    Returns:
        Where it comes from, ``steps``, and ``results``: the steps' records by the names of their
        files.
    """
    begin, logs = time.perf_counter(), out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    os.environ["REQUIRE_GPU"] = "1" if on_gpu else "0"
    record = provenance() | {"format": "ckshard-gpu", "version": 4, "steps": []}
    record["command"] = " ".join(["bash bench/gpu.sh", *sys.argv[1:]])
    record["versions"] |= {"cv2": cv2.__version__, "cuda": torch.version.cuda}
    query = "nvidia-smi --query-gpu=driver_version --format=csv,noheader"
    record["driver"] = subprocess.getoutput(query) if on_gpu else None
    with tempfile.TemporaryDirectory(prefix="data-", dir=out) as data:
        for step in make_steps(scale):
            left_s = scale.limit_s - (time.perf_counter() - begin)
            done = run_step(step, Path(data), logs, left_s=left_s)
            record["steps"].append(done)
            files = sorted(Path(data).glob("*.json"))
            record["results"] = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
            write_json(out / "gpu.json", record)
            write_atomically(out / "gpu.md", gpu_page(record).encode())
            print(f"{step.name}: {done['seconds']:.1f} s, {'ok' if done['ok'] else 'failed'}")
    return record


def gpu_page(record: Record) -> str:
    """Write the Markdown of a record: what it was run on, and what each step printed."""
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items() if value)
    page = (
        f"`{record['command']}` on {record['machine']['gpu'] or 'the CPU alone'}, driver"
        f" {record['driver']}, {cores_of(record)}; {versions}; revision {record['revision']}\n"
    )
    for step in record["steps"]:
        result = "ok" if step["ok"] else "failed"
        page += f"\n## {step['name']}: {result}, {step['seconds']:.0f} s\n```\n{step['end']}\n```\n"
    return page


def main() -> None:
    doc = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="bench/gpu.sh", description=doc)
    parser.add_argument("out", nargs="?", type=Path, default=Path("gpu-results"))
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
    if not has_dali():
        stop("DALI is missing: install nvidia-dali-cuda120, or put its wheels on PYTHONPATH")
    record = run_steps(GPU_SCALE if on_gpu else CPU_SCALE, options.out, on_gpu=on_gpu)
    sys.exit(0 if all(step["ok"] for step in record["steps"]) else 1)


def stop(message: str) -> NoReturn:
    """Say why nothing can be run."""
    sys.stderr.write(f"bench/gpu.sh: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
