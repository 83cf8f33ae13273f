"""Forks, pickles, threads, and tars that change under an open loader."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines import DatasetError, make_view_loader, open_dataset
from tests.pipelines.flat_loader import loader_of

FORKED = """
import multiprocessing, sys
from pipelines import Reading, make_loader, make_view_loader, open_dataset
dataset = open_dataset(sys.argv[1])
if sys.argv[2] == "views":
    loader = make_view_loader(dataset, "flow")
else:
    loader = make_loader(dataset, "flow", training=True, batch_size=4,
                         reading=Reading(engine=sys.argv[2]))
batches = iter(loader)
next(batches)


def use_in_child():
    try:
        next(iter(loader))
    except RuntimeError as error:
        print(error, flush=True)
        loader.close()


child = multiprocessing.get_context("fork").Process(target=use_in_child)
child.start()
child.join()
assert child.exitcode == 0, child.exitcode
next(batches)
loader.close()
"""


@pytest.mark.parametrize("kind", ["cpu", "dali", "views"])
def test_a_forked_loader_says_so_and_lets_its_process_end(kind: str, tiny_dataset: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tiny_dataset), kind],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "the loader was made in process" in done.stdout
    assert "Make a loader in each process" in done.stdout


def first_key(dataset: object) -> str:
    with dataset as opened, loader_of(opened, training=False) as loader:  # type: ignore[attr-defined]
        return next(iter(loader)).keys[0]


def test_a_dataset_goes_to_a_spawned_process(tiny_dataset: Path) -> None:
    pool = multiprocessing.get_context("spawn").Pool(1)
    with open_dataset(tiny_dataset) as dataset, pool:
        assert pool.apply(first_key, (dataset,)) == dataset.keys[0]


def test_a_pickled_dataset_that_was_replaced_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "dataset")
    with open_dataset(tmp_path / "dataset") as dataset:
        data = pickle.dumps(dataset)
    manifest = tmp_path / "dataset" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(DatasetError, match="replaced since it was pickled"):
        pickle.loads(data)  # noqa: S301  # our own bytes


def test_a_loader_is_not_pickled(tiny_dataset: Path) -> None:
    refusal = pytest.raises(TypeError, match="Send the dataset, and make a loader there")
    with open_dataset(tiny_dataset) as dataset, loader_of(dataset) as loader, refusal:
        pickle.dumps(loader)


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_another_thread_may_close_a_loader(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset:
        before = set(threading.enumerate())
        loader = loader_of(dataset, engine=engine, batch_size=1)
        is_running, errors = threading.Event(), []

        def consume() -> None:
            try:
                while True:
                    for _ in loader:
                        is_running.set()
            except RuntimeError as error:
                errors.append(str(error))

        consumer = threading.Thread(target=consume)
        consumer.start()
        assert is_running.wait(60)
        loader.close()
        consumer.join(60)
        assert errors == ["the loader is closed"]
        for thread in set(threading.enumerate()) - before:  # what is still ending ends
            thread.join(60)
        assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_a_tar_that_became_shorter_is_found_before_an_epoch(
    stream: str, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.members.SECONDS_BETWEEN_CHECKS", 0.0)
    shutil.copytree(tiny_dataset, tmp_path / "dataset")
    tar = tmp_path / "dataset" / f"{stream}-000000.tar"
    with open_dataset(tmp_path / "dataset") as dataset, loader_of(dataset, stream=stream) as loader:
        assert len(list(loader)) == len(loader)
        os.truncate(tar, tar.stat().st_size - 10240)
        with pytest.raises(DatasetError, match=rf"{tar.name}: \d+ bytes, expected \d+ as in"):
            list(loader)
        with make_view_loader(dataset, stream) as views, pytest.raises(DatasetError, match="bytes"):
            next(iter(views))
        with pytest.raises(DatasetError, match=tar.name):
            dataset.check_sizes()


SHORTENED = """
import os, sys
from pathlib import Path
import typer
from pipelines import Reading, make_loader, open_dataset
from shard_builder.console import run_app

app = typer.Typer()

@app.command()
def main(path: Path) -> None:
    reading = Reading(num_threads=1)  # another thread's fault would cut the message
    with open_dataset(path) as dataset:
        with make_loader(
            dataset, "flow", training=False, batch_size=4, reading=reading
        ) as loader:
            batches = iter(loader)
            next(batches)
            print("open", flush=True)
            for tar in path.glob("flow-*.tar"):
                os.truncate(tar, 0)
            for _ in batches:
                pass

run_app(app, prog_name="reader")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' maps end otherwise")
def test_a_tar_cut_short_in_the_middle_of_an_epoch_ends_a_command_with_the_place(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    """What is mapped and gone cannot be caught; faulthandler says where it was."""
    shutil.copytree(tiny_dataset, tmp_path / "dataset")
    done = subprocess.run(
        [sys.executable, "-c", SHORTENED, tmp_path / "dataset"], capture_output=True, text=True
    )
    assert done.stdout == "open\n" and done.returncode == -signal.SIGBUS, done.stderr
    assert "Fatal Python error: Bus error" in done.stderr
    assert "members.py" in done.stderr or "planes.py" in done.stderr, done.stderr
