"""make bench: every contender delivers the same windows, what is missing is said, and the record
becomes tables; never how fast."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import bench.loaders.windows as windows
from bench.loaders.__main__ import OURS, PEERS, measure_loaders, open_contenders
from bench.loaders.report import loader_blocks, plot_loaders
from bench.loaders.windows import (
    RandomCut,
    WindowFolders,
    decode_tall,
    encode_tall,
    iter_windows,
    make_window_folders,
)
from pipelines.dataset import open_dataset
from pipelines.engines.planes import PlaneReader
from pipelines.plan.crops import multi_scale_crops

NUM = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> WindowFolders:
    return make_window_folders(tmp_path_factory.mktemp("windows"), num_subjects=1)


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short epochs, in this process and in the workers that it starts."""
    monkeypatch.setenv("BENCH_SAMPLES", str(NUM))
    monkeypatch.setenv("BENCH_WORKERS", "1")
    for module in {
        "bench.loaders.windows",
        "bench.loaders.__main__",
        *(module for module, _, _ in PEERS),
    }:
        try:
            loaded = importlib.import_module(module)
        except ImportError:
            continue  # a peer that is not installed
        for name, value in (("EPOCH_SAMPLES", NUM), ("NUM_WORKERS", 1), ("PNG_TREE_SAMPLES", NUM)):
            if hasattr(loaded, name):
                monkeypatch.setattr(loaded, name, value)


def test_every_sequence_is_one_window(folders: WindowFolders, few_samples: None) -> None:
    with open_dataset(folders.raw) as raw, open_dataset(folders.jpg) as jpg:
        assert raw.keys == jpg.keys and set(raw.num_pairs) == {windows.STACK_LENGTH}
        reader = PlaneReader(raw, stream="flow", stack_length=windows.STACK_LENGTH)
        seen = list(iter_windows(folders))
        assert len(seen) == NUM and np.array_equal(
            seen[len(raw) + 2], np.stack(reader.window(2, 0))
        )
        files = sorted((folders.png_tree / "flow").glob("*/*/*_flow/*.png"))
        assert len(files) == windows.NUM_PLANES * len(raw)
    again = make_window_folders(folders.raw.parent, num_subjects=1)
    assert again == folders, "what is there is kept"


@pytest.mark.parametrize(("suffix", "allowed"), [(".png", 0), (".jpg", 12)])
def test_tall_images_hold_a_window(
    suffix: str, allowed: int, folders: WindowFolders, few_samples: None
) -> None:
    window = next(iter_windows(folders))
    found = decode_tall(encode_tall(window, suffix))
    assert found.shape == window.shape and np.abs(found.astype(int) - window).max() <= allowed


def test_cuts_are_crops_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    box = multi_scale_crops(height=256, width=340, stream="flow").tolist()[3]
    monkeypatch.setattr(windows.random, "choice", lambda crops: box)
    monkeypatch.setattr(windows.random, "random", lambda: 0.9)
    window = np.random.default_rng(0).integers(0, 256, (10, 256, 340), np.uint8)
    y, x, height, width = box
    found = RandomCut()(window)
    assert found.shape == (224, 224, 10)
    for number in range(10):
        plane = cv2.resize(window[number, y : y + height, x : x + width], (224, 224))
        assert np.array_equal(found[..., number].numpy(), plane)


@pytest.mark.slow
def test_peers_and_engines_deliver_every_window_once(
    folders: WindowFolders, few_samples: None
) -> None:
    """What is installed here is opened and measured; what is not is left out with a reason."""
    record = measure_loaders(folders, repeats=5, seconds=0.0, only=("torch", "webdataset", "dali"))
    names = Counter(entry["name"] for entry in record["records"])
    assert max(names.values()) == 1 and len([e for e in record["records"] if e["is_ours"]]) >= len(
        OURS
    )
    assert {entry["engine"] for entry in record["records"]} >= {
        "torch",
        "png-tree",
        "webdataset",
        "dali-reader",
        "cpu",
        "dali",
    }
    for entry in record["records"]:
        rate = entry["samples_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"] and len(rate["runs"]) == 5
    assert record["machine"]["cores"] and record["versions"]["torch"] and record["skipped"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("module", "function", "codec"), PEERS)
def test_an_epoch_of_a_peer_has_all_samples(
    module: str, function: str, codec: str, folders: WindowFolders, few_samples: None
) -> None:
    peer = pytest.importorskip(module, reason="a peer that is not installed", exc_type=ImportError)
    if module.removeprefix("bench.peer_") not in ("torch", "webdataset", "dali"):
        with getattr(peer, function)(folders, codec) as contender:
            assert [contender.run_epoch(epoch) for epoch in range(2)] == [NUM, NUM]


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(
    folders: WindowFolders, monkeypatch: pytest.MonkeyPatch, few_samples: None
) -> None:
    def refuse(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("bench.loaders.__main__.importlib.import_module", refuse)
    with ExitStack() as stack:
        contenders, skipped = open_contenders(folders, stack, only=("spdl",))
        assert all(is_ours for _, is_ours in contenders)
    assert [entry["name"] for entry in skipped] == ["spdl, jpg", "spdl, raw"]
    assert "No module named 'bench.loaders.peer_spdl'" in skipped[0]["reason"]


def record_of(speeds: dict[str, tuple[bool, str, str, float]]) -> dict[str, object]:
    return {
        "machine": {"processor": "A processor", "usable_cores": 2},
        "skipped": [{"name": "ffcv, raw", "reason": "No module named 'ffcv'"}],
        "records": [
            {
                "name": name,
                "is_ours": is_ours,
                "engine": engine,
                "codec": codec,
                "batch_size": 32,
                "threads": 2,
                "samples_per_s": {
                    "median": rate,
                    "min": rate - 1,
                    "max": rate + 1,
                    "runs": [rate - 1, rate, rate + 1],
                },
            }
            for name, (is_ours, engine, codec, rate) in speeds.items()
        ],
    }


def test_tables_and_figure_of_a_record(tmp_path: Path) -> None:
    record = record_of(
        {
            "DataLoader, PNG tree (the original)": (False, "png-tree", "png", 50.0),
            "DataLoader, mapped array": (False, "torch", "raw", 1000.0),
            "SPDL, raw": (False, "spdl", "raw", 2000.0),
            "cpu, raw": (True, "cpu", "raw", 3000.0),
            "cpu to the GPU, raw": (True, "cpu", "raw", 5000.0),
        }
    )
    blocks = loader_blocks(record)
    assert "| **cpu, raw** | raw | 3,000 | 2,999 - 3,001 | 1.50 | 60.0 |" in blocks["loaders"]
    assert "| ffcv, raw | | left out: No module named 'ffcv' |" in blocks["loaders"]
    assert "| cpu, raw / DataLoader, mapped array | 3.00 |" in blocks["loader-targets"]
    assert "| 60 | reached |" in blocks["loader-targets"]
    plot_loaders(record, tmp_path / "loaders.png")
    assert (tmp_path / "loaders.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_record_has_five_turns_of_everything() -> None:
    path = Path(__file__).parent.parent.parent / "docs" / "results" / "loaders-cpu.json"
    record = json.loads(path.read_text())
    assert {len(entry["samples_per_s"]["runs"]) for entry in record["records"]} <= set(range(5, 20))
    peers = {entry["engine"] for entry in record["records"] if not entry["is_ours"]}
    assert peers >= {
        "png-tree",
        "torch",
        "webdataset",
        "dali-reader",
        "streaming",
        "litdata",
        "spdl",
    }
