"""ckshard bench: what it measures and writes; never how fast it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.engines.cutter import CUTTER
from pipelines.engines.planes import open_planes
from pipelines.plan.crops import multi_scale_crops
from pipelines.streams import FLOW, KINDS
from pipelines.throughput.cases import loader_cases
from pipelines.throughput.command import draw_records, run_bench_command, share_lines
from pipelines.throughput.png_tree import CKPLUS_SIZE, PngTree, write_png_tree
from pipelines.throughput.turns import Contender, measure_in_turns, spread
from shard_builder.errors import InputError
from tests.object_server import serving
from tests.reference_loader import ReferenceLoader

FIELDS = {
    "name",
    "engine",
    "stream",
    "codec",
    "dtype",
    "batch_size",
    "threads",
    "cutter",
    "samples_per_s",
    "machine",
    "versions",
}


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from shard_builder.cli import main; main()",
        "bench",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_turns_are_taken_and_ended() -> None:
    """What reads ahead must not do so in another's turn."""
    events: list[str] = []

    def contender(name: str) -> Contender:
        def run_epoch(epoch: int) -> int:
            events.append(name)
            return 1

        return Contender(
            name=name,
            engine=name,
            codec="raw",
            dtype="uint8",
            run_epoch=run_epoch,
            end_turn=lambda: events.append(f"{name} ended"),
        )

    rates = measure_in_turns([contender("a"), contender("b")], repeats=2, seconds=0)
    assert events == 3 * ["a", "a ended", "b", "b ended"]
    assert {name: len(runs) for name, runs in rates.items()} == {"a": 2, "b": 2}


@pytest.mark.slow
def test_records_table_and_figure_of_everything_this_machine_has_of_an_address(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny_dataset, tmp_path / "objects/faces")
    words = {"streams": "rgb", "batch-size": 8, "threads": 1, "device": "cpu", "seconds": 0.01}
    words |= {"json": tmp_path / "bench.json", "plot": tmp_path / "bench.png"}
    with serving(tmp_path / "objects") as server:
        done = run_bench(
            f"{server.url}/faces", *chain.from_iterable((f"--{n}", v) for n, v in words.items())
        )
        assert server.ranges
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "bench.json").read_text())
    engines = [record["engine"] for record in records]
    assert engines == ["png-tree", "cpu", "cpu", "dali", "decode-only", "copy-only"]
    for record in records:
        assert set(record) == FIELDS
        rate = record["samples_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert (record["stream"], record["batch_size"], record["threads"]) == ("rgb", 8, 1)
        assert record["machine"]["cores"] >= 1 and record["versions"]["torch"]
    assert "png tree" in done.stdout and "x png tree" in done.stdout
    assert "copying the crops alone" in done.stdout
    assert {record["cutter"] for record in records} == {"", CUTTER}
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def rates(engine: str, *runs: float) -> SimpleNamespace:
    codec, cutter = "raw", "halide"
    return SimpleNamespace(
        name=engine,
        engine=engine,
        stream="flow",
        codec=codec,
        cutter=cutter,
        samples_per_s=spread(runs),
    )


def test_a_share_of_copying_is_said_only_where_the_ranges_are_apart() -> None:
    copying = rates("copy-only", 100.0, 90.0, 120.0)
    (apart,) = share_lines([rates("cpu", 50.0, 60.0, 45.0), copying])  # type: ignore[list-item]
    assert "makes 50 % (38 - 67 %) of what copying the crops alone makes" in apart
    (noisy,) = share_lines([rates("cpu", 50.0, 95.0, 45.0), copying])  # type: ignore[list-item]
    assert "too noisy to tell" in noisy and "--repeats" in noisy


def test_bars_of_very_different_lengths_are_all_to_be_seen() -> None:
    records = [rates("png-tree", 60.0, 70.0, 80.0), rates("copy-only", 9000.0, 9900.0)]
    (axes,) = draw_records(records).axes  # type: ignore[arg-type]
    assert axes.get_xscale() == "log" and axes.get_xlim()[0] < 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repeats": 4}, "repeats=4, expected an integer from 5"),
        ({"threads": -1}, "threads=-1"),
        ({"dtype": "int7"}, "dtype='int7', expected one of uint8"),
        ({"device": "cuda:99"}, "device='cuda:99'"),
        ({"json_path": Path(__file__) / "bench.json"}, "bench.json: cannot be written"),
        ({"plot_path": Path("bench.xyz")}, "bench.xyz: expected the name of a figure"),
        ({"streams": "depth"}, "stream='depth', expected one of rgb, flow"),
    ],
)
def test_what_does_not_fit_is_named(
    options: dict[str, object], words: str, tiny_dataset: Path
) -> None:
    chosen: dict[str, object] = {
        "streams": "",
        "batch_size": 8,
        "threads": 1,
        "dtype": "uint8",
        "device": "cpu",
    }
    chosen |= {"repeats": 5, "seconds": 0.01, "json_path": None, "plot_path": None}
    with pytest.raises(InputError, match=words):
        run_bench_command(tiny_dataset, **(chosen | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_the_png_tree_holds_the_first_window_at_the_size_of_ckplus(
    stream: str, raw_dataset: Path, tmp_path: Path
) -> None:
    import cv2

    reference = ReferenceLoader(raw_dataset, stream=stream)
    with open_dataset(raw_dataset) as dataset:
        reader = open_planes(dataset, KINDS[stream], stack_length=5)
        samples = write_png_tree(reader, tmp_path, num_samples=2)
    assert [len(paths) for paths in samples] == [10 if stream == "flow" else 1] * 2
    for paths, key in zip(samples, reference.keys, strict=False):
        for path, plane in zip(paths, reference.planes(key, 0), strict=True):
            kind = cv2.IMREAD_COLOR_RGB if stream == "rgb" else cv2.IMREAD_GRAYSCALE
            assert np.array_equal(cv2.imread(str(path), kind), cv2.resize(plane, CKPLUS_SIZE))


def test_the_png_tree_crops_like_the_engines(
    raw_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    with open_dataset(raw_dataset) as dataset:
        samples = write_png_tree(
            open_planes(dataset, FLOW, stack_length=5), tmp_path, num_samples=1
        )
    tree = PngTree(samples, FLOW, size=(340, 256), length=3)
    assert len(tree) == 3
    box = multi_scale_crops(height=256, width=340, ratios=FLOW.crop_ratios).tolist()[5]
    monkeypatch.setattr("pipelines.throughput.png_tree.random.choice", lambda crops: box)
    monkeypatch.setattr("pipelines.throughput.png_tree.random.random", lambda: 0.1)
    y, x, height, width = box
    found = tree[2]
    assert found.shape == (10, 224, 224) and found.dtype == torch.uint8
    for number, path in enumerate(samples[0]):
        plane = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (340, 256))[
            y : y + height, x : x + width
        ]
        mirrored = cv2.resize(plane, (224, 224))[:, ::-1]
        assert np.array_equal(
            found[number].numpy(), 255 - mirrored if number % 2 == 0 else mirrored
        )


def test_a_gpu_adds_its_own_loaders() -> None:
    assert [case.name for case in loader_cases("raw", "cuda:0")] == [
        "cpu",
        "dali on the cpu",
        "cpu, to the gpu",
        "dali on the gpu",
        "planes on the gpu",
    ]
    assert loader_cases("jpg", "cpu")[1].cache == "ram"
