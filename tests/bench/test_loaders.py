"""make bench: every contender delivers the same windows, and what is missing is said; never how
fast."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import bench.loaders.__main__ as loaders
import bench.loaders.windows as windows_module
from bench.harness import provenance
from bench.loaders.__main__ import OURS, PEERS, Peer, measure_loaders, open_peer
from bench.loaders.report import (
    BEST,
    BEST_JPEG,
    COPYING_NAME,
    ORIGINAL,
    OUR_KERNEL,
    TARGETS,
    loader_blocks,
    plot_loaders,
)
from bench.loaders.windows import STACK_LENGTH, RandomCut, Windows, decode, draw_windows, encode
from pipelines.dataset import open_dataset
from pipelines.engines.planes import open_planes
from pipelines.plan.crops import multi_scale_crops
from pipelines.streams import FLOW

NUM = 64


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    folder = tmp_path_factory.mktemp("windows")
    draw_windows(folder, num_subjects=1)
    return Windows(folder=folder, num_samples=NUM, num_workers=1)


def test_every_sequence_is_one_window(windows: Windows) -> None:
    with open_dataset(windows.folder / "raw") as raw, open_dataset(windows.folder / "jpg") as jpg:
        assert raw.keys == jpg.keys and set(raw.num_pairs) == {STACK_LENGTH}
        reader = open_planes(raw, FLOW, stack_length=STACK_LENGTH)
        drawn = list(windows)
        again = reader.window(2, 0)
        assert len(drawn) == NUM and np.array_equal(drawn[len(raw) + 2], again)
        files = sorted((windows.folder / "tree" / "flow").glob("*/*/*_flow/*.png"))
        assert len(files) == 2 * STACK_LENGTH * len(raw)


def test_what_is_drawn_is_kept(windows: Windows) -> None:
    manifest = windows.folder / "jpg" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    draw_windows(windows.folder, num_subjects=1)
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize(("codec", "allowed"), [("png", 0), ("jpg", 12)])
def test_tall_images_hold_a_window(codec: str, allowed: int, windows: Windows) -> None:
    window = next(iter(windows))
    decoded = decode(encode(window, codec))
    assert decoded.shape == window.shape
    assert np.abs(decoded.astype(int) - window).max() <= allowed


def test_cuts_are_crops_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    box = multi_scale_crops(height=256, width=340, ratios=FLOW.crop_ratios).tolist()[3]
    monkeypatch.setattr(windows_module.random, "choice", lambda crops: box)
    monkeypatch.setattr(windows_module.random, "random", lambda: 0.9)
    window = np.random.default_rng(0).integers(0, 256, (10, 256, 340), np.uint8)
    y, x, height, width = box
    cut = RandomCut()(window)
    assert cut.shape == (224, 224, 10)
    for number in range(10):
        plane = cv2.resize(window[number, y : y + height, x : x + width], (224, 224))
        assert np.array_equal(cut[..., number].numpy(), plane)


MEASURED = ("png_tree", "mapped_array")


@pytest.mark.slow
def test_peers_and_engines_are_measured_and_shown(windows: Windows, tmp_path: Path) -> None:
    words = {"subjects": 1, "samples": NUM, "only": ",".join(MEASURED)}
    measured = measure_loaders(windows.folder, repeats=2, seconds=0.0, **words)
    record = json.loads(json.dumps(provenance() | measured))
    names = Counter(entry["name"] for entry in record["records"])
    assert max(names.values()) == 1 and record["skipped"] == []
    assert set(names) >= {peer.name for peer in PEERS if peer.module in MEASURED}
    assert sum(entry["is_ours"] for entry in record["records"]) >= len(OURS)
    for entry in record["records"]:
        rate = entry["samples_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"] and len(rate["runs"]) == 2
    assert record["machine"]["cores"] and record["versions"]["torch"]
    blocks = loader_blocks(record)
    with_kernel = [name for name in names if name.endswith(OUR_KERNEL)]
    assert blocks["loader-kernel"].count("\n| ") == len(with_kernel)
    assert blocks["loaders"].count("\n| ") == len(names) - len(with_kernel) + 1
    assert f"| cpu, raw / {BEST} | " in blocks["loader-targets"]
    plot_loaders(record, tmp_path / "loaders.png")
    assert (tmp_path / "loaders.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    "peer", [peer for peer in PEERS if peer.module not in MEASURED], ids=lambda peer: peer.name
)
def test_an_epoch_of_a_peer_has_all_samples(peer: Peer, windows: Windows) -> None:
    module = f"bench.loaders.peers.{peer.module}"
    pytest.importorskip(module, reason="a peer that is not installed", exc_type=ImportError)
    with open_peer(peer, windows) as contender:
        assert [contender.run_epoch(epoch) for epoch in range(2)] == [NUM, NUM]


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(loaders, "OURS", OURS[:1])
    words = {"subjects": 1, "samples": 32, "only": "spdl"}
    record = provenance() | measure_loaders(windows.folder, repeats=1, seconds=0.0, **words)
    assert [entry["name"] for entry in record["records"]] == [OURS[0].name, COPYING_NAME]
    assert {entry["name"] for entry in record["skipped"]} == {
        peer.name for peer in PEERS if peer.module == "spdl"
    }
    assert "No module named 'bench.loaders.peers.spdl'" in record["skipped"][0]["reason"]
    assert "| SPDL, raw | | left out: No module named" in loader_blocks(record)["loaders"]


def test_what_is_aimed_at_is_measured() -> None:
    ours, peers = {own.name for own in OURS}, {peer.name for peer in PEERS}
    assert ORIGINAL in peers
    known = ours | peers | {COPYING_NAME, BEST, BEST_JPEG}
    assert all(one in ours and other in known for one, other, _ in TARGETS)
