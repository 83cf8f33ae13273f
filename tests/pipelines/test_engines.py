"""Every engine against the reference loader, over codecs, streams and epochs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.engines.cutter import CUTTER
from pipelines.loader import make_loader
from pipelines.reading import Reading
from pipelines.streams import KINDS
from tests.pipelines.flat_loader import ENGINES, flat_loader
from tests.reference_loader import ReferenceLoader

# Levels that an engine may differ from cv2's. cv2 interpolates with weights of 11 bits, the cpu
# engine's kernel of 8 (rows) and 16 (columns), DALI and torch in float32; each rounds to the
# nearest level, so they may fall on either side of a half. All decode with libjpeg-turbo on the
# CPU, so JPEG adds nothing. Where cv2 cuts, the cpu engine gives its very levels.
TOLERANCE = {"cpu": 0 if CUTTER == "cv2" else 1, "dali": 1, "resident": 1}


@pytest.mark.parametrize(
    ("codec", "stream"), [*product(("jpg", "png", "raw"), ("flow", "rgb")), ("lz4", "flow")]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_give_what_the_reference_gives(
    engine: str,
    codec: str,
    stream: str,
    build_tiny: Callable[..., Path],
    tiny_dataset: Path,
    raw_dataset: Path,
    lz4_dataset: Path,
) -> None:
    datasets = {"jpg": tiny_dataset, "raw": raw_dataset, "lz4": lz4_dataset}
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
            rgb_apex_frames=2,
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
@pytest.mark.parametrize("engine", ENGINES)
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
    farthest = 0
    for position in np.flatnonzero(mirrored).tolist():
        table = plan.table(np.array([position]), epoch=0)
        y, x, height, width = table.boxes[0]
        planes = reference.planes(reference.keys[int(table.rows[0])], int(table.starts[0]))
        for number in (0, 1):
            crop = np.ascontiguousarray(planes[number][y : y + height, x : x + width])
            straight = cv2.resize(crop, (224, 224))[:, ::-1].astype(int)
            turned = 255 - straight if number == 0 else straight
            assert np.abs(images[position, number] - turned).max() <= TOLERANCE["cpu"]
            farthest = max(farthest, int(np.abs(straight - turned).max()))
    assert farthest > 20  # what is not turned would be seen


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("augmentation", ["standard", "original"])
@pytest.mark.parametrize(
    ("stream", "stack_length", "size"),
    [
        ("flow", 1, (340, 256)),
        ("flow", 3, (210, 168)),
        ("flow", 5, (49, 40)),
        ("flow", 10, (241, 232)),
        ("rgb", 5, (225, 224)),
        ("rgb", 5, (49, 40)),
    ],
)
def test_the_cpu_engine_on_every_geometry(
    stream: str,
    stack_length: int,
    size: tuple[int, int],
    augmentation: str,
    dtype: torch.dtype,
    build_tiny: Callable[..., Path],
) -> None:
    """Planes smaller than the crop, widths that fill no vector, crops cut at the edges."""
    folder = build_tiny(codec="raw", width=size[0], height=size[1])
    reference = ReferenceLoader(folder, stream=stream, stack_length=stack_length)
    kind = KINDS[stream]
    mean, deviation = torch.tensor(kind.mean), torch.tensor(kind.deviation)
    with (
        open_dataset(folder) as dataset,
        flat_loader(
            dataset,
            stream,
            rows=np.arange(16),
            training=True,
            batch_size=16,
            stack_length=stack_length,
            augmentation=augmentation,
            engine="cpu",
            dtype=dtype,
        ) as loader,
    ):
        batch = next(iter(loader))
        for number, position in enumerate(batch.positions.tolist()):
            _, levels, _ = reference.sample(loader.plan, position, epoch=0)
            expected = torch.from_numpy(levels).float()
            found, allowed = batch.images[number].permute(1, 2, 0).float(), 1.0
            if dtype != torch.uint8:
                expected = (expected / 255 - mean) / deviation
                allowed = float(1 / 255 / deviation.min()) + 1e-5 + 3 * torch.finfo(dtype).eps
            assert (found - expected).abs().max() <= allowed


@pytest.mark.parametrize("engine", ENGINES)
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


@pytest.mark.parametrize("stack_length", [1, 5, 11])
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("engine", ENGINES)
def test_lz4_gives_the_bits_of_raw(
    engine: str, cache: str, stack_length: int, lz4_dataset: Path, raw_dataset: Path
) -> None:
    """Also where the last pair is repeated: most sequences are shorter than 11 pairs."""
    batches = []
    for folder in (raw_dataset, lz4_dataset):
        with open_dataset(folder) as dataset:
            rows = dataset.rows_of(sorted(dataset.keys))
            options = {"rows": rows, "training": True, "batch_size": 21}
            options |= {} if engine == "resident" else {"cache": cache}
            with flat_loader(
                dataset, **options, engine=engine, dtype=torch.uint8, stack_length=stack_length
            ) as loader:
                batches.append([batch.images.clone() for _ in range(2) for batch in loader])
    assert all(map(torch.equal, *batches)) and len(batches[0]) == 4


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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cv2_cuts_where_halide_is_missing(raw_dataset: Path) -> None:
    program = (
        "import sys\nsys.modules['halide'] = None\nimport torch\nfrom pipelines import"
        " open_dataset, make_loader, Reading\nfrom pipelines.engines.cutter import CUTTER\n"
        f"with open_dataset({str(raw_dataset)!r}) as dataset:\n"
        "    for dtype in (torch.uint8, torch.float16):\n"
        "        reading = Reading(engine='cpu', dtype=dtype)\n"
        "        with make_loader(dataset, 'flow', training=True, batch_size=4, reading=reading) as"
        " loader:\n"
        "            print(CUTTER, next(iter(loader)).images.double().sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in found] == ["cv2", "cv2"]
    sums = []
    with open_dataset(raw_dataset) as dataset:
        for dtype in (torch.uint8, torch.float16):
            reading = Reading(engine="cpu", dtype=dtype)
            with make_loader(
                dataset, "flow", training=True, batch_size=4, reading=reading
            ) as loader:
                sums.append(next(iter(loader)).images.double().sum().item())
    # A level up or down evens out over two million of them.
    assert float(found[0][1]) == pytest.approx(sums[0], rel=1e-3)
    assert float(found[1][1]) == pytest.approx(sums[1], abs=1e-2 * 4 * 224 * 224 * 10)
