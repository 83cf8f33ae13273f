"""Building: the same bytes however it is done, nothing half-written, and bad input ends with one
clear line."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.dataset import open_dataset
from shard_builder.building.build import build_dataset, cut_tasks
from shard_builder.building.options import BuildOptions
from shard_builder.files import digest_file
from shard_builder.sources.ckplus import scan_ckplus
from shard_builder.sources.sequence import FaceSequence, Source
from tests.ckplus_release import write_sequence, write_small_release

CKSHARD = str(Path(sys.executable).with_name("ckshard"))
SMALL = {"flow_method": "dis", "width": 64, "height": 48, "shard_bytes": 20_000}


def build(
    release: Path, dataset: Path, *, workers: int = 1, overwrite: bool = False, **options: object
) -> Path:
    chosen = BuildOptions(**(SMALL | options))  # type: ignore[arg-type]
    source = scan_ckplus(release, on_error=chosen.on_error)
    build_dataset(source, release, dataset, chosen, workers=workers, overwrite=overwrite)
    return dataset


def digests(dataset: Path) -> dict[str, str]:
    return {path.name: digest_file(path).sha256 for path in dataset.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_release(tmp_path_factory.mktemp("small") / "CK+", num_subjects=5)


@pytest.mark.parametrize("codec", ["jpg", "png", "raw"])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    codec: str, release: Path, tmp_path: Path
) -> None:
    one = digests(build(release, tmp_path / "one", codec=codec))
    three = digests(build(release, tmp_path / "three", codec=codec, workers=3))
    assert one == three
    assert len([name for name in one if name.endswith(".tar")]) > 2
    assert (
        not list((tmp_path / "three").glob("*.tmp"))
        and not (tmp_path / "three" / ".build").exists()
    )


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
    release: Path, tmp_path: Path
) -> None:
    orders = []
    for seed in (0, 1):
        with open_dataset(build(release, tmp_path / str(seed), seed=seed)) as dataset:
            orders.append(dataset.keys)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize(("frames", "expected"), [("all", 6), ("last", 1), ("last3", 3)])
def test_frames_keeps_what_it_says(
    frames: str, expected: int, release: Path, tmp_path: Path
) -> None:
    with open_dataset(build(release, tmp_path / "dataset", frames=frames)) as dataset:
        assert set(dataset.num_stored("rgb").tolist()) == {expected}
        peak = dataset.read_member("rgb", 0, -1)
    with open_dataset(build(release, tmp_path / "all", frames="all")) as dataset:
        assert bytes(dataset.read_member("rgb", 0, -1)) == bytes(peak)


def test_killed_anywhere_and_started_again_it_ends_in_the_same_bytes(
    release: Path, tmp_path: Path
) -> None:
    expected = digests(build(release, tmp_path / "whole"))
    dataset = tmp_path / "killed"
    command = [
        CKSHARD,
        "build",
        str(release),
        str(dataset),
        "--flow-method",
        "dis",
        "--size",
        "64x48",
    ]
    command += ["--shard-bytes", "20000", "--workers", "2"]
    kills = 0
    for delay in (0.3, 0.6, 0.9, 1.2, 1.5):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(delay)
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
    workers: int, release: Path, tmp_path: Path
) -> None:
    expected = digests(build(release, tmp_path / "whole", codec="raw"))
    dataset = tmp_path / "full"
    command = [
        CKSHARD,
        "build",
        str(release),
        str(dataset),
        "--flow-method",
        "dis",
        "--size",
        "64x48",
        "--codec",
        "raw",
    ]
    command += ["--shard-bytes", "20000", "--workers", str(workers)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, preexec_fn=limited_files
    )
    assert done.returncode == 1, done.stderr
    assert (
        done.stderr.startswith("ckshard: error: ")
        and "Traceback" not in done.stderr
        and str(dataset) in done.stderr
    )
    assert not (dataset / "manifest.json").exists()
    for path in [*dataset.glob("*.tar"), *dataset.glob("*.idx")]:
        assert digest_file(path).sha256 == expected[path.name], "what has a final name is whole"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert digests(dataset) == expected


def test_a_worker_that_dies_ends_the_build_with_a_message(
    tiny_release: Path, tmp_path: Path
) -> None:
    command = [
        CKSHARD,
        "build",
        str(tiny_release),
        str(tmp_path / "dataset"),
        "--workers",
        "2",
        "--shard-bytes",
        "500000",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "dataset").glob("*.tar")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    workers = [
        c
        for c in psutil.Process(process.pid).children()
        if any("spawn_main" in word for word in c.cmdline())
    ]
    workers[0].kill()
    _, errors = process.communicate(timeout=60)
    assert (
        process.returncode == 1 and "a worker process died" in errors and "Traceback" not in errors
    )
    assert not (tmp_path / "dataset" / "manifest.json").exists()


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CKSHARD, *map(str, words)], capture_output=True, text=True, timeout=120)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("ckshard: error: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_missing_source_is_one_clear_line(tmp_path: Path) -> None:
    assert_refused(
        run("build", tmp_path / "nowhere", tmp_path / "dataset"), "nowhere", "no such folder"
    )
    assert not (tmp_path / "dataset").exists()


def test_a_source_without_sequences_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(
        run("build", tmp_path / "empty", tmp_path / "dataset"), "empty", "S005_001_00000001.png"
    )
    assert not (tmp_path / "dataset").exists()


def test_a_dataset_that_is_there_is_refused_and_kept(release: Path, tmp_path: Path) -> None:
    dataset = build(release, tmp_path / "dataset")
    before = digests(dataset)
    assert_refused(run("build", release, dataset), "--overwrite")
    assert digests(dataset) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    for words in ([], ["--overwrite"]):
        assert_refused(run("build", release, foreign, *words), "foreign")
        assert (foreign / "thesis.tex").read_text() == "years of work"
    done = run(
        "build",
        release,
        dataset,
        "--overwrite",
        "--flow-method",
        "dis",
        "--size",
        "64x48",
        "--codec",
        "png",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((dataset / "manifest.json").read_text())["streams"]["flow"]["codec"] == "png"


def test_a_label_outside_the_classes_is_one_clear_line(tmp_path: Path) -> None:
    write_small_release(tmp_path / "CK+")
    write_sequence(tmp_path / "CK+", "S007_001", emotion="   8.0000000e+00\n")
    assert_refused(
        run("build", tmp_path / "CK+", tmp_path / "dataset"),
        "S007_001_00000006_emotion.txt",
        "0..7",
    )
    assert not (tmp_path / "dataset").exists()


def test_an_unreadable_image_is_one_clear_line_and_leaves_no_dataset(tmp_path: Path) -> None:
    write_small_release(tmp_path / "CK+")
    images, _ = write_sequence(tmp_path / "CK+", "S007_001", emotion="7")
    broken = images / "S007_001_00000004.png"
    broken.write_bytes(broken.read_bytes()[:200])  # the header is whole, the pixels are not
    done = run(
        "build", tmp_path / "CK+", tmp_path / "dataset", "--size", "64x48", "--flow-method", "dis"
    )
    assert_refused(done, "S007_001_00000004.png", "--on-error skip")
    assert not (tmp_path / "dataset" / "manifest.json").exists()
    skipped = run(
        *(
            "build",
            tmp_path / "CK+",
            tmp_path / "dataset",
            "--size",
            "64x48",
            "--flow-method",
            "dis",
            "--on-error",
            "skip",
        )
    )
    assert skipped.returncode == 0, skipped.stderr
    assert "1 sequences skipped" in skipped.stdout
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["num_sequences"] == 6 and manifest["source"]["num_skipped"] == 1
    assert "S007_001" in (tmp_path / "dataset" / "skipped.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--codec", "webp"], "--codec webp, expected one of"),
        (["--quality", "0"], "--quality 0"),
        (["--size", "340"], "--size 340, expected WIDTHxHEIGHT"),
        (["--size", "340x250"], "--size (height) 250, expected a multiple of 8"),
        (["--streams", "rgb,depth"], "--streams rgb,depth, expected rgb, flow or both"),
        (["--bound-px", "0"], "--bound-px 0"),
        (["--workers", "-1"], "--workers -1"),
        (["--flow-method", "tvl1"], "--flow-method tvl1"),
        (["--frames", "first"], "--frames first"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    words: list[str], expected: str, release: Path, tmp_path: Path
) -> None:
    assert_refused(run("build", release, tmp_path / "dataset", *words), expected)
    assert not (tmp_path / "dataset").exists()


def test_help_answers_at_once() -> None:
    for program in ("ckshard", "cktrain"):
        done = subprocess.run(
            [str(Path(CKSHARD).with_name(program)), "--help"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 0 and "Commands" in done.stdout
