"""Building gives the same bytes however it is done, and nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset, cut_tasks
from shard_builder.building.options import BuildOptions
from shard_builder.cli import app
from shard_builder.errors import InputError
from shard_builder.files import digest_file
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.sequence import FaceSequence, Source
from tests.programs import CKSHARD, digests

SMALL = {"flow_method": "dis", "width": 64, "height": 48, "shard_bytes": 20_000}
FLAGS = ("--flow-method", "dis", "--size", "64x48", "--shard-bytes", "20000")


def build(
    release: Path, dataset: Path, *, workers: int = 1, overwrite: bool = False, **options: object
) -> Path:
    chosen = BuildOptions(**(SMALL | options))  # type: ignore[arg-type]
    source = scan_ckplus(release, on_error=chosen.on_error)
    build_dataset(source, release, dataset, chosen, workers=workers, overwrite=overwrite)
    return dataset


@pytest.mark.parametrize("codec", ["jpg", "png", "raw"])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    codec: str, small_release: Path, tmp_path: Path
) -> None:
    one = digests(build(small_release, tmp_path / "one", codec=codec))
    three = digests(build(small_release, tmp_path / "three", codec=codec, workers=3))
    assert one == three
    assert len([name for name in one if name.endswith(".tar")]) > 2
    assert not list((tmp_path / "three").glob("*.tmp"))
    assert not (tmp_path / "three" / ".build").exists()


def test_the_same_command_again_says_finished_already(small_release: Path, tmp_path: Path) -> None:
    release, dataset = tmp_path / "CK+", tmp_path / "dataset"
    shutil.copytree(small_release, release)
    words = ["build", str(release), str(dataset), *FLAGS, "--workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    before = digests(dataset)
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0 and again.stdout.endswith(f"{dataset}: finished already\n")
    assert digests(dataset) == before
    for changed in (["--bound-px", "5"], ["--codec", "png"], ["--seed", "1"]):
        other = CliRunner().invoke(app, [*words, *changed])
        assert isinstance(other.exception, InputError)
        assert "holds a dataset" in str(other.exception) and "options" in str(other.exception)
    time.sleep(0.02)
    next(release.rglob("*.png")).touch()
    assert isinstance(CliRunner().invoke(app, words).exception, InputError)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0


@pytest.mark.parametrize(
    ("num", "frames", "least", "most"),
    [
        (327, 18, 25, 35),  # CK+: 8 MiB each
        (20_000, 18, 250, 260),  # 256 of what there is
        (1_000, 18_000, 600, 1_000),  # 1 GiB each
    ],
)
def test_shards_are_as_many_as_builds_and_maps_can_take(
    num: int, frames: int, least: int, most: int
) -> None:
    sequences = tuple(
        FaceSequence(
            key=f"S{n:07d}",
            subject="S",
            session="0",
            emotion="anger",
            code=1,
            source="frame.png",
            frames=(Path("frame.png"),) * frames,
        )
        for n in range(num)
    )
    source = Source(kind="ckplus", sequences=sequences, classes=((1, "anger"),))
    tasks = cut_tasks(source, Path(), Path(), BuildOptions())
    assert least <= len(tasks) <= most
    assert sum(len(task.sequences) for task in tasks) == num


def test_another_seed_gives_another_order_of_the_same_samples(
    small_release: Path, tmp_path: Path
) -> None:
    orders = []
    for seed in (0, 1):
        with open_dataset(build(small_release, tmp_path / str(seed), seed=seed)) as dataset:
            orders.append(dataset.keys)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize(("frames", "expected"), [("all", 6), ("last", 1), ("last3", 3)])
def test_frames_keeps_what_it_says(
    frames: str, expected: int, small_release: Path, tmp_path: Path
) -> None:
    with open_dataset(build(small_release, tmp_path / "dataset", frames=frames)) as dataset:
        assert set(dataset.num_stored("rgb").tolist()) == {expected}
        peak = dataset.read_member("rgb", 0, -1)
    with open_dataset(build(small_release, tmp_path / "all", frames="all")) as dataset:
        assert bytes(dataset.read_member("rgb", 0, -1)) == bytes(peak)


def test_killed_anywhere_and_started_again_it_ends_in_the_same_bytes(
    small_release: Path, tmp_path: Path
) -> None:
    expected = digests(build(small_release, tmp_path / "whole"))
    dataset = tmp_path / "killed"
    command = [CKSHARD, "build", str(small_release), str(dataset), *FLAGS, "--workers", "2"]
    kills = 0
    for num_tars in (0, 1, 3):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and not (
            dataset.is_dir() and len(list(dataset.glob("*.tar"))) >= num_tars
        ):
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if (dataset / "manifest.json").exists():
            present = digests(dataset)
            assert expected.items() <= present.items(), "a manifest stands for a whole dataset"
        for path in dataset.glob("*.tar"):
            assert digest_file(path).sha256 == expected[path.name], "what has a final name is whole"
        if process.returncode == 0:
            break
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 or "--overwrite" in done.stderr
    assert kills > 0
    assert digests(dataset) == expected


def limited_files() -> None:
    """Let no file grow over 30 kB, as a disk that is full would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_build_with_a_message_and_the_rerun_gives_the_same_bytes(
    workers: int, small_release: Path, tmp_path: Path
) -> None:
    expected = digests(build(small_release, tmp_path / "whole", codec="raw"))
    dataset = tmp_path / "full"
    command = [CKSHARD, "build", str(small_release), str(dataset), *FLAGS, "--codec", "raw"]
    command += ["--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited_files)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("ckshard: error: ") and "Traceback" not in done.stderr
    assert str(dataset) in done.stderr
    assert not (dataset / "manifest.json").exists()
    for path in [*dataset.glob("*.tar"), *dataset.glob("*.idx")]:
        assert digest_file(path).sha256 == expected[path.name], "what has a final name is whole"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests(dataset) == expected


def test_a_worker_that_dies_ends_the_build_with_a_message(
    tiny_release: Path, tmp_path: Path
) -> None:
    command = [CKSHARD, "build", str(tiny_release), str(tmp_path / "dataset")]
    command += ["--workers", "2", "--shard-bytes", "500000"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "dataset").glob("*.tar")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = [
        c
        for c in psutil.Process(process.pid).children()
        if any("spawn_main" in word for word in c.cmdline())
    ]
    workers[0].kill()
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "a worker process died" in errors and "Traceback" not in errors
    assert not (tmp_path / "dataset" / "manifest.json").exists()
