"""``bench/gpu.sh``: the table of a record, what becomes of steps that fail or cannot run, and the
word where there is no GPU."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import bench.gpu.report
from bench.gpu.report import gpu_blocks
from bench.gpu.run import (
    CPU_SCALE,
    GPU_SCALE,
    Step,
    count_tests,
    import_error,
    make_steps,
    run_step,
)

ROOT = Path(__file__).parent.parent.parent


def loader(name: str, engine: str, median: float) -> dict[str, object]:
    return {
        "name": name,
        "engine": engine,
        "stream": "flow",
        "codec": "jpg",
        "dtype": "uint8",
        "batch_size": 32,
        "threads": 16,
        "samples_per_s": {"median": median, "min": median - 1, "max": median + 1},
    }


def result(name: str, speeds: list[float], *, channels_last: bool = True) -> dict[str, object]:
    case = {"name": name, "precision": "bf16", "channels_last": channels_last}
    return {
        "case": case,
        "samples_per_s": speeds,
        "median_samples_per_s": sorted(speeds)[1],
        "median_data_wait_pct": 0.25,
    }


def small_record() -> dict[str, object]:
    training = {"arch": "resnet152", "stream": "rgb", "codec": "jpg", "batch_size": 56}
    training["results"] = [
        result("synthetic", [90, 100, 110]),
        result("real, dali engine", [80, 95, 99], channels_last=False),
    ]
    return {
        "command": "bash bench/gpu.sh",
        "device": "cuda",
        "driver": "1.2.3",
        "seconds": 400.4,
        "machine": {"gpu": "A GPU", "processor": "a processor", "usable_cores": 16},
        "versions": {"torch": "2.11.0", "cuda": "13.0", "python": "3.12.1"},
        "revision": None,
        "tests": {"passed": 3, "failed": 1, "skipped": 0},
        "loaders": {
            "records": [
                loader("tree", "png-tree", 200),
                loader("dali to the GPU, jpg", "dali", 5000),
            ],
            "skipped": [{"name": "webdataset, jpg", "reason": "No module named 'webdataset'"}],
        },
        "training": [training],
        "steps": [
            {"name": "data", "seconds": 12.3, "ok": True, "reason": ""},
            {
                "name": "tests",
                "seconds": 9.0,
                "ok": False,
                "reason": "FAILED a | b\n1 failed\nexit status 1",
            },
            {
                "name": "train flow raw",
                "seconds": 0.0,
                "ok": False,
                "reason": "not run: time is up",
            },
        ],
    }


def test_a_record_becomes_one_table() -> None:
    blocks = gpu_blocks(small_record())
    assert set(blocks) == {"gpu"}
    for line in (
        (
            "| load flow: dali to the GPU, jpg | uint8, batch 32, 16 threads or processes | 5,000 |"
            " 4,999 - 5,001 | 25.00 |"
        ),
        "| load flow: webdataset, jpg | left out: No module named 'webdataset' | - | - | - |",
        (
            "| train resnet152 rgb, jpg: real, dali engine | bf16, NCHW, batch 56, data wait 0.25 %"
            " | 95.0 | 80.0 - 99.0 | 0.950 |"
        ),
        "| step data | 12 s | - | - | - |",
        (
            "| step tests | failed: 3 passed, 1 failed, 0 skipped; FAILED a / b; 1 failed; exit"
            " status 1 | - | - | - |"
        ),
        "| step train flow raw | not run: time is up | - | - | - |",
    ):
        assert line in blocks["gpu"]
    assert "A GPU (driver 1.2.3), 16 cores of a processor" in blocks["gpu"]
    assert "torch 2.11.0, CUDA 13.0, Python 3.12.1, revision unknown" in blocks["gpu"]


def test_a_record_without_any_result_is_a_table_of_steps() -> None:
    steps = [
        {"name": "tests", "seconds": 0.0, "ok": False, "reason": "not run: pytest is not installed"}
    ]
    empty = {"tests": None, "loaders": None, "training": [], "driver": None, "steps": steps}
    table = [
        line
        for line in gpu_blocks(small_record() | empty)["gpu"].splitlines()
        if line.startswith("|")
    ]
    assert table[2:] == ["| step tests | not run: pytest is not installed | - | - | - |"]


def test_a_step_that_fails_hangs_or_cannot_run_is_recorded(tmp_path: Path) -> None:
    def run(
        program: str, *, limit_s: float = 60, left_s: float = 60, **options: object
    ) -> dict[str, object]:
        step = Step(
            name="a step", command=[sys.executable, "-c", program], limit_s=limit_s, **options
        )  # type: ignore[arg-type]
        return run_step(step, tmp_path, good=["data"], limit_s=left_s)

    good = run(
        "import os; print(os.environ['MARK'])", needs=("data",), environment=(("MARK", "set"),)
    )
    assert good["ok"] and good["reason"] == "" and (tmp_path / "a-step.txt").read_text() == "set\n"
    failed = run("raise SystemExit('it broke')")
    assert not failed["ok"] and failed["reason"] == "it broke\nexit status 1"
    begin = time.perf_counter()
    hanging = run("import time; print('on it', flush=True); time.sleep(60)", limit_s=1)
    assert time.perf_counter() - begin < 10 and hanging["reason"] == "on it\nstopped after 1 s"
    for options, reason in (
        ({"needs": ("data", "data jpg")}, "not run: it needs the step 'data jpg'"),
        ({"missing": "pytest is not installed"}, "not run: pytest is not installed"),
        ({"left_s": 0.5}, "not run: time is up"),
    ):
        skipped = run("raise SystemExit(1)", **options)  # type: ignore[arg-type]
        assert skipped == {"name": "a step", "seconds": 0.0, "ok": False, "reason": reason}


@pytest.mark.parametrize("scale", [GPU_SCALE, CPU_SCALE])
def test_the_steps_cover_both_streams_and_need_steps_before_them(
    scale: object, tmp_path: Path
) -> None:
    names: list[str] = []
    for step in make_steps(scale, tmp_path, on_gpu=scale is GPU_SCALE):  # type: ignore[arg-type]
        assert set(step.needs) <= set(names) and step.limit_s < 1000
        names.append(step.name)
    assert {"tests", "loaders", "train flow jpg", "train rgb jpg"} <= set(names)
    assert GPU_SCALE.limit_s < 8 * 60


def test_counts_are_those_of_pytests_file(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    assert count_tests(path) is None
    path.write_text(
        '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10"/></testsuites>'
    )
    assert count_tests(path) == {"passed": 4, "failed": 3, "skipped": 3}


def test_a_missing_module_is_named() -> None:
    assert import_error("no_such_module_anywhere") == "no_such_module_anywhere is not installed"
    assert import_error("json") == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: this would run for minutes")
def test_without_a_gpu_it_names_the_alternative_and_exits_2(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), "results"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and not done.stdout
    assert "finds no GPU" in done.stderr and "bash bench/gpu.sh --cpu results" in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_examples_hold() -> None:
    outcome = doctest.testmod(bench.gpu.report)
    assert outcome.attempted and not outcome.failed
