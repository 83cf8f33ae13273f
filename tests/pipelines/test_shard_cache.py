"""The cache of blocks on disk: no request in the second epoch, no wrong byte, its bound kept."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from pipelines import Dataset, Reading, Sampling, make_loader, open_dataset
from pipelines.block_cache import BlockCache
from shard_builder.errors import InputError
from tests.object_server import ObjectServer
from tests.pipelines.remote_batches import assert_equal, batches_of, own_cache, put, server

__all__ = ["own_cache", "server"]


def blocks_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name != ".lock"}


def test_a_block_holds_all_that_the_plan_may_ask_of_a_sequence_of_frames(
    tiny_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    own = {"shard_cache": tmp_path / "blocks"}
    with open_dataset(tiny_dataset) as local:
        expected, num_blocks = batches_of(local, "rgb", epochs=3), len(local) // 2
    with open_dataset(put(server, tiny_dataset)) as remote:
        batches_of(remote, "rgb", **own)
    assert len(blocks_of(tmp_path / "blocks")) == num_blocks
    server.ranges.clear()
    with open_dataset(f"{server.url}/bucket/faces") as remote:
        assert_equal(batches_of(remote, "rgb", epochs=3, **own), expected)
    assert not server.ranges


def test_a_block_that_is_on_its_way_is_not_fetched_again(
    small_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    """Of an epoch of 21 the windows of two are asked for at once."""
    server.delay_s = 0.05
    words = {"rows": np.arange(21), "batch_size": 3, "epochs": 3}
    with open_dataset(small_dataset) as local, open_dataset(put(server, small_dataset)) as remote:
        found = batches_of(remote, **words, read_ahead=14, shard_cache=tmp_path / "blocks")
        assert_equal(found, batches_of(local, **words))
    assert len(server.ranges) == 21


def test_wrong_bytes_on_the_disk_are_fetched_again(
    lz4_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    folder = tmp_path / "blocks"
    address = put(server, lz4_dataset)
    with open_dataset(lz4_dataset) as local:
        expected = batches_of(local)
    with open_dataset(address) as remote:
        batches_of(remote, shard_cache=folder)
    blocks = sorted(folder.glob("[!.]*"))
    blocks[0].write_bytes(blocks[0].read_bytes()[:-1])
    blocks[1].write_bytes(b"")
    data = bytearray(blocks[2].read_bytes())
    data[7] ^= 1
    blocks[2].write_bytes(data)
    blocks[3].unlink()
    blocks[3].symlink_to(blocks[4])
    os.truncate(blocks[5], 1 << 40)
    blocks[6].unlink()
    os.mkfifo(blocks[6])
    (folder / f"some.{'a' * 24}.tmp").write_bytes(b"left by a kill")
    for num_wrong in (6, 0):
        server.ranges.clear()
        with open_dataset(address) as remote:
            assert_equal(batches_of(remote, shard_cache=folder), expected)
        assert len(set(server.ranges)) == num_wrong
        assert not list(folder.glob("*.tmp")) and not blocks[3].is_symlink()


def test_farthest_next_use_is_dropped_and_the_bound_is_kept(tmp_path: Path) -> None:
    order = [0, 1, 2, 3, 4]  # again and again
    cache, now, hits = BlockCache(tmp_path / "blocks", 30), 0, 0

    def next_use(name: str) -> float:
        return (int(name) - now - 1) % 5

    for step in range(50):
        now = order[step % 5]
        if cache.read(str(now), 10) is None:
            cache.write(str(now), np.full(10, now, np.uint8), next_use)
        else:
            hits += 1
        assert sum(blocks_of(tmp_path / "blocks").values()) <= 30
    # Least recently used would never hit; Belady's optimum keeps 2 of the 4 others at least.
    assert hits >= 22
    cache.write("7", np.zeros(31, np.uint8), lambda name: 0)
    cache.write("8", np.zeros(10, np.uint8), lambda name: math.inf)
    assert not {"7", "8"} & set(blocks_of(tmp_path / "blocks"))


@pytest.mark.parametrize("noted", [b"\0" * 20, b"-1", b"", b"1e9"])
def test_a_sum_of_sizes_that_is_no_number_is_counted_again(noted: bytes, tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "blocks", 30)
    cache.write("1", np.zeros(20, np.uint8), lambda name: 0)
    (tmp_path / "blocks" / ".lock").write_bytes(noted)
    cache.write("2", np.zeros(20, np.uint8), lambda name: 0)
    assert blocks_of(tmp_path / "blocks") == {"1": 20}


def test_a_file_larger_than_the_cache_drives_no_block_out(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 30)
    cache.write("1", np.zeros(10, np.uint8), lambda name: 9)
    (tmp_path / "2").touch()
    os.truncate(tmp_path / "2", 1 << 40)
    cache = BlockCache(tmp_path, 30)
    cache.write("3", np.zeros(10, np.uint8), lambda name: 0)
    assert blocks_of(tmp_path) == {"1": 10, "3": 10}


def test_a_small_cache_keeps_its_bound_and_the_batches(
    tiny_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    folder, limit = tmp_path / "blocks", 200_000
    with open_dataset(tiny_dataset) as local, open_dataset(put(server, tiny_dataset)) as remote:
        own = {"shard_cache": folder, "shard_cache_bytes": limit}
        assert_equal(batches_of(remote, epochs=3, **own), batches_of(local, epochs=3))
    assert 0 < sum(blocks_of(folder).values()) <= limit


def read_rank(address: str, folder: str, rank: int) -> None:
    """The first rank reads until it is killed."""
    with open_dataset(address) as dataset, rank_loader(dataset, Path(folder), rank) as loader:
        for _ in range(3) if rank else count():
            for _ in loader:
                pass


def rank_loader(dataset: Dataset, folder: Path | None, rank: int):  # type: ignore[no-untyped-def]
    return make_loader(
        dataset,
        "flow",
        training=True,
        batch_size=6,
        sampling=Sampling(stack_length=3),
        reading=Reading(engine="cpu", num_threads=1, shard_cache=folder),
        rank=rank,
        world_size=2,
    )


def test_two_ranks_share_a_cache_and_a_killed_one_leaves_no_wrong_byte(
    tiny_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    address, folder = put(server, tiny_dataset), tmp_path / "blocks"
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=read_rank, args=(address, str(folder), rank)) for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    while len(list(folder.glob("[!.]*"))) < 5:
        assert ranks[0].is_alive()
        time.sleep(0.001)
    os.kill(ranks[0].pid or 0, signal.SIGKILL)
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [-signal.SIGKILL, 0]
    with open_dataset(tiny_dataset) as local, open_dataset(address) as remote:
        for rank in (0, 1):
            with rank_loader(remote, folder, rank) as one, rank_loader(local, None, rank) as other:
                for batch, own in zip(one, other, strict=True):
                    assert np.array_equal(batch.images.numpy(), own.images.numpy())
    blocks = blocks_of(folder)
    assert len(blocks) == 42
    assert int((folder / ".lock").read_text()) == sum(blocks.values())


def test_a_folder_needs_no_cache(tiny_dataset: Path, tmp_path: Path) -> None:
    with open_dataset(tiny_dataset) as local, pytest.raises(InputError, match="is a folder"):
        batches_of(local, shard_cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(
    tiny_dataset: Path, server: ObjectServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with (
        open_dataset(put(server, tiny_dataset)) as remote,
        pytest.raises(InputError, match="cannot be written"),
    ):
        batches_of(remote, shard_cache=tmp_path / "file")
