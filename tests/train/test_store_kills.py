"""SIGKILL at several moments of a push, a pull and a cached run: the next start goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import open_dataset
from shard_builder import verify_dataset
from shard_builder.cloud.transfer import pull_dataset, push_dataset
from shard_builder.errors import DatasetError
from tests.object_server import serving
from tests.programs import digests
from tests.train.store_programs import WORDS, kill_at_request
from tests.train.tiny_net import ENVIRONMENT, Cktrain
from train.running.run_folder import read_metrics


def whole_files(dataset: Path, copy: Path) -> list[Path]:
    """The files of a dataset that a copy holds whole by now."""
    pairs = [(path, copy / path.name) for path in dataset.iterdir()]
    return [own for path, own in pairs if own.exists() and own.read_bytes() == path.read_bytes()]


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_a_transfer_killed_again_and_again_ends_whole(
    direction: str, small_dataset: Path, tmp_path: Path
) -> None:
    there, back = tmp_path / "objects/bucket/faces", tmp_path / "back"
    with serving(tmp_path / "objects") as server:
        address = f"{server.url}/bucket/faces"
        if direction == "pull":
            shutil.copytree(small_dataset, there)
        ends = (small_dataset, address) if direction == "push" else (address, back)
        target = there if direction == "push" else back
        whole = digests(small_dataset).items()
        for number, is_ready in (
            (1, lambda: True),
            (9, lambda: whole_files(small_dataset, target)),
        ):
            kill_at_request(number, [direction, *ends], server, tmp_path, is_ready)
            with pytest.raises(DatasetError, match=r"no such|manifest\.json"):
                open_dataset(address if direction == "push" else back)
        num_whole = len(digests(target).items() & whole)
        copy = push_dataset if direction == "push" else pull_dataset
        num_copied = copy(*ends)  # type: ignore[operator]
    assert num_whole and num_copied == len(whole) - num_whole
    assert digests(target).items() == whole and not verify_dataset(target).faults


@pytest.mark.slow
def test_a_killed_cached_run_is_the_run_that_was_not(
    cktrain: Cktrain, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the request of the manifest, of the index, and of a window."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cktrain("flow", small_dataset, "--out", tmp_path / "local", *WORDS)[0] == 0
    shutil.copytree(small_dataset, tmp_path / "objects/bucket/faces")
    run, blocks = tmp_path / "run", tmp_path / "blocks"
    with serving(tmp_path / "objects") as server:
        address = f"{server.url}/bucket/faces"
        words = ["flow", address, "--out", run, "--shard-cache", blocks]
        for number in (1, 2):
            kill_at_request(number, ["inspect", address], server, tmp_path)

        def kept_blocks() -> list[Path]:
            return [path for path in blocks.glob("[!.]*") if path.suffix != ".tmp"]

        kill_at_request(9, [*words, *WORDS], server, tmp_path, is_ready=kept_blocks)
        kept = kept_blocks()
        server.ranges.clear()
        code, text, error = cktrain(*words, *WORDS, "--resume")
        assert code == 0, text + error
        assert kept and len(server.ranges) == 21 - len(kept)
    found, expected = (
        [row["loss"] for row in read_metrics(folder)] for folder in (run, tmp_path / "local")
    )
    assert found and found == pytest.approx(expected, rel=1e-4)


WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pipelines import block_cache
moment, folder = sys.argv[1], Path(sys.argv[2])
cache = block_cache.BlockCache(folder, 30)
cache.write("1", np.full(10, 1, np.uint8), lambda name: 1)
create, note, replace = (
    block_cache.create_temporary, block_cache.BlockCache._note, Path.replace
)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def half(*words):
    path, file = create(*words)
    file.write(b"222")
    file.flush()
    die()

def noted(*words):
    note(*words)
    die()

def replaced(*words):
    replace(*words)
    die()

if moment == "half":
    block_cache.create_temporary = half
elif moment == "noted":
    block_cache.BlockCache._note = staticmethod(noted)
else:
    Path.replace = replaced
cache.write("2", np.full(10, 2, np.uint8), lambda name: 2)
"""


@pytest.mark.parametrize("moment", ["half", "noted", "replaced"])
def test_a_kill_in_the_write_of_a_block_leaves_it_whole_or_none(
    moment: str, tmp_path: Path
) -> None:
    import numpy as np

    from pipelines.block_cache import BlockCache

    command = [sys.executable, "-c", WRITER, moment, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    cache = BlockCache(tmp_path, 30)
    blocks = {name: cache.read(name, 10) for name in "12"}
    assert blocks["1"] is not None and blocks["1"].tolist() == [1] * 10
    assert (blocks["2"] is not None) == (moment == "replaced")
    assert blocks["2"] is None or blocks["2"].tolist() == [2] * 10
    for name in "23":
        cache.write(name, np.full(10, int(name), np.uint8), lambda name: int(name))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "1", "2", "3"}
    assert int((tmp_path / ".lock").read_text()) == 30
