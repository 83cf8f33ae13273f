"""Every engine against the reference loader, over codecs, streams and epochs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.streams import KINDS
from tests.pipelines.flat_loader import flat_loader
from tests.reference_loader import ReferenceLoader

# Levels that an engine may differ from cv2's. cv2 interpolates with 11-bit weights, DALI in
# float32; each rounds to the nearest level, so they may fall on either side of a half. Both decode
# with libjpeg-turbo on the CPU, so JPEG adds nothing.
TOLERANCE = {"cpu": 0, "dali": 1}


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("codec", ["jpg", "png", "raw"])
@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_engines_give_what_the_reference_gives(
    engine: str,
    codec: str,
    stream: str,
    build_tiny: Callable[..., Path],
    tiny_dataset: Path,
    raw_dataset: Path,
) -> None:
    datasets = {"jpg": tiny_dataset, "raw": raw_dataset}
    folder = datasets[codec] if codec in datasets else build_tiny(codec=codec, shard_bytes=32 << 20)
    reference = ReferenceLoader(folder, stream=stream)
    allowed = TOLERANCE[engine]
    with open_dataset(folder) as dataset:
        assert dataset.keys == reference.keys
        rows = dataset.rows_of(dataset.keys[:20])
        options = {"stream": stream, "rows": rows, "training": True, "stack_length": 5, "seed": 11}
        with flat_loader(
            dataset,
            **options,
            rgb_last_frames=2,
            batch_size=8,
            engine=engine,
            dtype=torch.uint8,
            num_threads=2,
        ) as loader:
            for epoch in range(2):
                for batch in loader:
                    assert batch.images.is_contiguous(memory_format=torch.channels_last)
                    for number, position in enumerate(batch.positions.tolist()):
                        key, levels, label = reference.sample(loader.plan, position, epoch=epoch)
                        assert (batch.keys[number], int(batch.labels[number])) == (key, label)
                        found = batch.images[number].permute(1, 2, 0).numpy().astype(int)
                        assert np.abs(found - levels).max() <= allowed
                        assert np.abs(found - levels).mean() <= 0.15 * allowed


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("engine", ["cpu", "dali"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_floats_are_the_levels_normalised(
    engine: str, stream: str, dtype: torch.dtype, raw_dataset: Path
) -> None:
    with open_dataset(raw_dataset) as dataset:
        options = {
            "stream": stream,
            "rows": dataset.rows_of(dataset.keys[:8]),
            "training": True,
            "batch_size": 8,
            "seed": 2,
        }
        batches = []
        for wanted in (torch.uint8, dtype):
            with flat_loader(dataset, **options, engine=engine, dtype=wanted) as loader:
                batches.append(next(iter(loader)).images.clone())
    levels, found = batches
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    kind = KINDS[stream]
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1) for values in (kind.mean, kind.deviation)
    )
    expected = (levels.float() / 255 - mean) / deviation
    # DALI normalises before it rounds to levels, so half a level on top of the dtype's own rounding
    half_a_level = 0.5 / 255 / 0.224 if engine == "dali" else 0.0
    assert (found.float() - expected).abs().max() <= half_a_level + 4 * torch.finfo(dtype).eps


def test_a_mirrored_window_turns_x_flow_only(raw_dataset: Path) -> None:
    reference = ReferenceLoader(raw_dataset, stream="flow")
    with open_dataset(raw_dataset) as dataset:
        rows = dataset.rows_of(dataset.keys)
        options = {"stream": "flow", "rows": rows, "training": True, "stack_length": 5, "seed": 0}
        with flat_loader(
            dataset, **options, batch_size=len(rows), engine="cpu", dtype=torch.uint8
        ) as loader:
            images, plan = next(iter(loader)).images.numpy(), loader.plan
    mirrored = plan.table(np.arange(len(rows)), epoch=0).mirrored
    assert 0.2 < mirrored.mean() < 0.8
    position = int(np.flatnonzero(mirrored)[0])
    table = plan.table(np.array([position]), epoch=0)
    y, x, height, width = table.boxes[0]
    import cv2

    planes = reference.planes(reference.keys[int(table.rows[0])], int(table.starts[0]))
    for number in (0, 1):
        straight = cv2.resize(
            np.ascontiguousarray(planes[number][y : y + height, x : x + width]), (224, 224)
        )
        turned = 255 - straight if number == 0 else straight
        assert np.array_equal(images[position, number], turned[:, ::-1])


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_a_loop_that_is_left_leaves_nothing_behind(engine: str, tiny_dataset: Path) -> None:
    import gc

    import psutil

    process = psutil.Process()
    with open_dataset(tiny_dataset) as dataset:
        rows = dataset.rows_of(dataset.keys)
        counts = []
        for _ in range(3):
            with flat_loader(
                dataset, stream="flow", rows=rows, training=True, batch_size=8, engine=engine
            ) as loader:
                iterator = iter(loader)
                next(iterator)
                iterator.close()  # type: ignore[attr-defined]
                assert len(list(loader)) == len(loader)
            gc.collect()
            counts.append((threading.active_count(), process.num_fds(), len(process.children())))
    assert counts[1] == counts[2]


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_the_cache_changes_nothing_but_the_decoding(
    engine: str, stream: str, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        options = {
            "stream": stream,
            "rows": dataset.rows_of(dataset.keys),
            "training": True,
            "batch_size": 21,
        }
        epochs = []
        for cache, limit in (("none", 0), ("ram", 1 << 30), ("ram", 1 << 20)):
            with flat_loader(
                dataset, **options, cache=cache, cache_bytes=limit, engine=engine
            ) as loader:
                for epoch in (0, 1):
                    assert loader.epoch == max(epoch - 1, 0)
                    epochs.append(torch.cat([batch.images.clone() for batch in loader]))
    for epoch in (0, 1):
        assert torch.equal(epochs[epoch], epochs[2 + epoch]) and torch.equal(
            epochs[epoch], epochs[4 + epoch]
        )


def test_the_cpu_engine_does_not_import_dali(tiny_dataset: Path) -> None:
    program = f"""
import sys
from pipelines import make_loader, open_dataset
dataset = open_dataset({str(tiny_dataset)!r})
loader = make_loader(dataset, "flow", training=True, batch_size=4)
next(iter(loader)); loader.close()
assert not [module for module in sys.modules if module.startswith("nvidia.dali")]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
