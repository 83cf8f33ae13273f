"""``bench/gpu.sh``: what becomes of steps that fail, hang or cannot run, and the word where there
is no GPU."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import bench.gpu.run
import pipelines.throughput.wait_command
from bench.gpu.run import (
    CPU_SCALE,
    GPU_SCALE,
    Scale,
    Step,
    gpu_tests,
    make_steps,
    run_step,
    run_steps,
)
from bench.tables import read_record
from pipelines.throughput.consumer import WaitRecord
from pipelines.throughput.turns import spread
from shard_builder.cli import main

ROOT = Path(__file__).parent.parent.parent


WAITS = WaitRecord(
    name="dali on the gpu",
    engine="dali",
    stream="flow",
    codec="raw",
    dtype="float16",
    batch_size=10,
    threads=2,
    consumer_ms=5.0,
    epoch_samples=80,
    long_wait_pct=spread([3.0, 4.0, 5.0]),
    short_wait_pct=spread([5.0, 6.0, 7.0]),
    border_points=spread([1.0, 2.0, 3.0]),
    first_batch_ms=spread([0.25, 0.5, 0.75]),
    machine={},
    versions={},
)


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


def test_a_run_writes_its_record_and_tables_after_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "out" / "data"

    def fake_steps(scale: Scale) -> list[Step]:
        records = {
            "loaders.json": read_record("loaders-cpu"),
            "train-flow-jpg.json": read_record("train-resnet152-cpu"),
            "waits-raw.json": [asdict(WAITS)],
        }
        programs = [
            f"open({str(data / name)!r}, 'w').write({json.dumps(record)!r})"
            for name, record in records.items()
        ]
        seen = f"import os; assert os.path.getsize({str(data.parent / 'gpu.json')!r}); print('a|b')"
        return [step("loaders", "; ".join(programs)), step("tests", f"{seen}; raise SystemExit(3)")]

    monkeypatch.setattr(bench.gpu.run, "make_steps", fake_steps)
    run_steps(CPU_SCALE, tmp_path / "out", on_gpu=False)
    record = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [entry["ok"] for entry in record["steps"]] == [True, False]
    assert record["loaders"] == [read_record("loaders-cpu")] and len(record["training"]) == 1
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "| cpu, raw" in text.replace("*", "") and "resnet152, flow stream" in text
    assert "takes 5 ms a batch of 10 float16" in text and "% of epochs of 80 | points more" in text
    waits = "4.00 (3.00 - 5.00) | 6.00 (5.00 - 7.00) | 2.00 (1.00 - 3.00) | 0.50 (0.25 - 0.75)"
    assert f"| dali on the gpu | raw | {waits} |" in text
    assert "a/b; exit status 3 |" in text and not (tmp_path / "out" / "data").exists()


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
        words = steps[f"waits {codec}"].words()
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
