"""``bench/gpu.sh``: what becomes of steps that fail, hang or cannot run, and the word where there
is no GPU."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import bench.gpu
import pipelines.throughput.wait_command
from bench.gpu import CPU_SCALE, GPU_SCALE, Scale, Step, gpu_tests, make_steps, run_step, run_steps
from bench.harness import program_words
from shard_builder.cli import main

ROOT = Path(__file__).parent.parent.parent


def step(name: str, program: str, limit_s: float = 60) -> Step:
    return Step(name, limit_s, shlex.join(["python", "-c", program]))


def test_a_step_that_fails_hangs_or_comes_too_late_is_recorded(tmp_path: Path) -> None:
    good = run_step(step("a step", "print('at', 'work')"), tmp_path, tmp_path, left_s=60)
    assert good["ok"] and good["end"] == "at work"
    assert (tmp_path / "a-step.txt").read_text() == "at work\n"
    failed = run_step(step("a step", "raise SystemExit('it broke')"), tmp_path, tmp_path, left_s=60)
    assert not failed["ok"] and failed["end"] == "it broke\nexit status 1"
    begin = time.perf_counter()
    program = "import time; print('on it', flush=True); time.sleep(60)"
    hanging = run_step(step("a step", program, limit_s=1), tmp_path, tmp_path, left_s=60)
    assert time.perf_counter() - begin < 10 and hanging["end"] == "on it\nstopped after 1 s"
    late = run_step(step("a step", "raise SystemExit(1)"), tmp_path, tmp_path, left_s=0.5)
    assert late == {"name": "a step", "seconds": 0.0, "ok": False, "end": "not run: time is up"}


def test_a_run_writes_what_was_measured_and_printed_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    measure = "open('waits-raw.json', 'w').write('[1]'); print('| a table |')"
    seen = f"import os; assert os.path.getsize({str(out / 'gpu.json')!r})"
    seen += "; print('it broke'); raise SystemExit(3)"
    steps = [step("waits raw", measure), step("tests", seen)]
    monkeypatch.setattr(bench.gpu, "make_steps", lambda scale: steps)
    run_steps(CPU_SCALE, out, on_gpu=False)
    record = json.loads((out / "gpu.json").read_text())
    assert [entry["ok"] for entry in record["steps"]] == [True, False]
    assert record["results"] == {"waits-raw": [1]} and record["versions"]["torch"]
    text = (out / "gpu.md").read_text()
    assert "## waits raw: ok, " in text and "```\n| a table |\n```" in text
    assert "## tests: failed, " in text and "```\nit broke\nexit status 3\n```" in text
    assert {path.name for path in out.iterdir()} == {"gpu.json", "gpu.md", "logs"}


@pytest.mark.parametrize("scale", [GPU_SCALE, CPU_SCALE])
def test_the_steps_cover_both_streams_in_whole_batches(scale: Scale) -> None:
    names = [step.name for step in make_steps(scale)]
    assert {"tests", "loaders", "train flow jpg", "train rgb jpg"} <= set(names)
    assert names.index("data jpg") < names.index("train flow jpg")
    assert names.index("data raw") < names.index("train flow raw")
    assert scale.subjects * 7 % (scale.batch * scale.iter_size) == 0
    assert GPU_SCALE.limit_s < 8 * 60


def test_long_epochs_and_the_border_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        pipelines.throughput.wait_command,
        "run_wait_command",
        lambda path, **words: asked.update(words, path=path),
    )
    steps = {step.name: step for step in make_steps(GPU_SCALE)}
    for codec in ("jpg", "raw"):
        words = program_words(steps[f"waits {codec}"].command)
        monkeypatch.setattr(sys, "argv", ["ckshard", *words[words.index("bench") :]])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code and asked["path"] == Path(f"train-{codec}")
        assert (asked["consumer_ms"], asked["epoch_samples"], asked["batch_size"]) == (5, 80, 10)
        assert asked["json_path"] == Path(f"waits-{codec}.json")


def test_the_gpu_tests_are_found() -> None:
    assert str(ROOT / "tests" / "system" / "test_gpu.py") in gpu_tests()


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
