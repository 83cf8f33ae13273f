"""``bench/gpu.sh``: run what wants a GPU step by step, each with a time limit, and write one record
and its tables.

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
from pathlib import Path
from typing import Any, NoReturn

import cv2
import torch

from bench.gpu.report import gpu_blocks
from bench.gpu.steps import CPU_SCALE, GPU_SCALE, Scale, Step, make_steps
from bench.records import Record, provenance
from shard_builder.files import write_atomically

MAX_LOG_CHARS = 3000


def run_step(step: Step, logs: Path, *, left_s: float) -> Record:
    """Run a step and return ``name``, ``seconds``, ``ok`` and ``end``: what it printed last, and if
    it failed how it ended; its output goes into ``logs``. ``left_s`` is left for all steps.
    """
    if left_s < 1:
        return {"name": step.name, "seconds": 0.0, "ok": False, "end": "not run: time is up"}
    log, limit = logs / f"{step.name.replace(' ', '-')}.txt", min(step.limit_s, left_s)
    command = ["timeout", "--kill-after=5", f"{limit:.1f}", *step.words]
    begin = time.perf_counter()
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    seconds, code = round(time.perf_counter() - begin, 1), done.returncode
    end = log.read_text("utf-8", errors="replace").strip()[-MAX_LOG_CHARS:]
    if code in (124, 137):
        end += f"\nstopped after {limit:.0f} s"
    elif code:
        end += f"\nexit status {code}"
    return {"name": step.name, "seconds": seconds, "ok": not code, "end": end}


def read_all(folder: Path, pattern: str) -> list[Any]:
    """Read the records that steps have written."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob(pattern))]


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None if ``nvidia-smi`` does not tell."""
    command = "nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1"
    return subprocess.getoutput(f"({command}) 2> /dev/null").strip() or None


def run_steps(scale: Scale, out: Path, *, on_gpu: bool) -> Record:
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
    os.environ["REQUIRE_GPU"] = "1" if on_gpu else "0"
    record = provenance() | {"format": "ckshard-gpu", "version": 3, "steps": []}
    record["command"] = " ".join(["bash bench/gpu.sh", *sys.argv[1:]])
    record["driver"] = driver_version() if on_gpu else None
    record["versions"] |= {"cv2": cv2.__version__, "cuda": torch.version.cuda}
    for step in make_steps(scale, data):
        done = run_step(step, logs, left_s=scale.limit_s - (time.perf_counter() - begin))
        record["steps"].append(done)
        record["seconds"] = round(time.perf_counter() - begin, 1)
        record["loaders"] = read_all(data, "loaders.json")
        record["training"] = read_all(data, "train-*-*.json")
        record["waits"] = read_all(data, "waits-*.json")
        write_atomically(out / "gpu.json", (json.dumps(record, indent=1) + "\n").encode())
        write_atomically(out / "gpu.md", (gpu_blocks(record)["gpu"] + "\n").encode())
        print(f"{step.name}: {done['seconds']:.1f} s, {'ok' if done['ok'] else 'failed'}")
    shutil.rmtree(data)
    return record


def main() -> None:
    doc = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="bench/gpu.sh", description=doc)
    parser.add_argument("out", nargs="?", type=Path, default=Path("gpu-results"))
    parser.add_argument("--cpu", action="store_true", help="run what a CPU can run, in small")
    options = parser.parse_args()
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    on_gpu, data = torch.cuda.is_available(), options.out / "data"
    if not on_gpu and not options.cpu:
        stop(
            f"torch {torch.__version__} finds no GPU. To run what a CPU can run, in small: bash"
            f" bench/gpu.sh --cpu {options.out}"
        )
    try:
        importlib.import_module("nvidia.dali")
    except ImportError as error:
        stop(f"{error}; install nvidia-dali-cuda120, or put its wheels on PYTHONPATH")
    if data.exists():
        stop(f"{data} is there, left by a run that was ended: remove it, or choose another OUT")
    record = run_steps(GPU_SCALE if on_gpu else CPU_SCALE, options.out, on_gpu=on_gpu)
    print(gpu_blocks(record)["gpu"])
    sys.exit(0 if all(step["ok"] for step in record["steps"]) else 1)


def stop(message: str) -> NoReturn:
    """Say why nothing can be run."""
    sys.stderr.write(f"bench/gpu.sh: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
