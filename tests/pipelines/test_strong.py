"""``strong``: every engine against the reference loader; flow turned with the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.engines.crop_resize import JitterCutter
from pipelines.plan.jitter import Jitter, draw_jitter
from pipelines.plan.plan import Plan
from pipelines.plan.requests import Draw
from pipelines.streams import FLOW, KINDS, RGB
from shard_builder.format.levels import dequantize_flow, quantize_flow
from tests.pipelines.flat_loader import ENGINES, loader_of
from tests.reference_loader import ReferenceLoader

# Levels. The engines compute in float32 and round once, the reference in float64: they may fall on
# either side of a half.
TOLERANCE = 1
STRONG = {"augmentation": "strong", "batch_size": 4, "num": 12}


@pytest.mark.parametrize(
    ("codec", "stream"),
    [("jpg", "flow"), ("jpg", "rgb"), ("raw", "flow"), ("raw", "rgb"), ("lz4", "flow")],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_give_what_the_reference_gives(
    engine: str, codec: str, stream: str, tiny_dataset: Path, raw_dataset: Path, lz4_dataset: Path
) -> None:
    folder = {"jpg": tiny_dataset, "raw": raw_dataset, "lz4": lz4_dataset}[codec]
    check(folder, stream, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_planes_smaller_than_the_crop(
    engine: str, stream: str, build_tiny: Callable[..., Path]
) -> None:
    """What lies outside the plane is its border."""
    check(build_tiny(codec="raw", width=49, height=40), stream, engine=engine, stack_length=2)


def check(folder: Path, stream: str, *, stack_length: int = 5, **options: object) -> None:
    reference = ReferenceLoader(folder, stream=stream, stack_length=stack_length)
    options = STRONG | {"stream": stream, "stack_length": stack_length} | options
    kind = KINDS[stream]
    mean, deviation = (torch.tensor(values) for values in (kind.mean, kind.deviation))
    with (
        open_dataset(folder) as dataset,
        loader_of(dataset, **options) as loader,
        loader_of(dataset, dtype=torch.float32, **options) as float_loader,
    ):
        seen = 0
        for batch, floats in zip(loader, float_loader, strict=True):
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert floats.images.is_contiguous(memory_format=torch.channels_last)
            expected = (batch.images.permute(0, 2, 3, 1).float() / 255 - mean) / deviation
            assert (floats.images.permute(0, 2, 3, 1) - expected).abs().max() <= 1e-5
            for number, position in enumerate(batch.positions.tolist()):
                key, levels, label = reference.sample(loader.plan, position, epoch=0)
                assert (batch.keys[number], int(batch.labels[number])) == (key, label)
                found = batch.images[number].permute(1, 2, 0).numpy().astype(int)
                apart = np.abs(found - levels)
                assert apart.max() <= TOLERANCE and apart.mean() <= 0.01, (position, apart.max())
                seen += 1
        assert seen == loader.num_samples


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("angle", "scale"), [(10.0, 1.1), (-10.0, 0.9), (6.0, 1.0)])
def test_flow_turned_with_the_picture_is_the_motion_in_the_turned_pictures(
    angle: float, scale: float, mirrored: bool
) -> None:
    """Two frames of a texture that moves by known vectors, and their flow, are turned by one draw:
    what Farneback finds between the turned frames are the turned vectors."""
    noise = np.random.default_rng(0).normal(size=(256, 340)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, None, 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    motion = np.array([4.0, -1.5])
    move = np.array([[1, 0, motion[0]], [0, 1, motion[1]]])
    frames = texture, cv2.warpAffine(texture, move, (340, 256), borderMode=cv2.BORDER_REFLECT)
    flow = np.broadcast_to(motion, (256, 340, 2))
    draw = Draw(0, 0, (16, 58, 224, 224), mirrored, Jitter(angle, scale, 1, 1, (0, 0, 0, 0)))
    turned = np.empty((2, 224, 224, 3), np.uint8)
    for frame, out in zip(frames, turned, strict=True):
        JitterCutter(RGB, torch.uint8).cut(cv2.merge([frame.astype(np.uint8)] * 3), draw, out)
    levels = np.empty((224, 224, 2), np.uint8)
    planes = quantize_flow(flow, bound_px=10).transpose(2, 0, 1)
    JitterCutter(FLOW, torch.uint8).cut(np.ascontiguousarray(planes), draw, levels)
    vectors = dequantize_flow(levels, bound_px=10)
    found = cv2.calcOpticalFlowFarneback(
        *turned[..., 0], None, 0.5, 3, 21, 5, 7, 1.5, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
    )
    inner = (slice(40, -40), slice(40, -40))
    assert np.abs(np.median((found - vectors)[inner], axis=(0, 1))).max() < 0.15
    assert np.abs(vectors[inner] - motion).max() > 0.4  # vectors that stay would be seen


def test_what_a_plan_of_strong_holds_is_pinned() -> None:
    """If this fails, old runs would resume with other pictures: raise PLAN_VERSION."""
    table = draw_jitter(np.arange(4), seed=2026, epoch=3, has_pairs=False)
    assert [tuple(row) for row in table.rows()] == GOLDEN


GOLDEN = [
    (-8.98, 0.9062, 1.148, 0.9668, (4, 41, 117, 125)),
    (-9.54, 1.0784, 1.062, 0.8876, (91, 33, 85, 121)),
    (-4.28, 0.9234, 1.1372, 0.9896, (105, 61, 61, 158)),
    (7.4, 0.914, 0.9252, 0.9416, (53, 47, 99, 82)),
]


def plan_of(*, strong: bool) -> Plan:
    num = 3000
    return Plan(
        rows=np.arange(num),
        num_starts=np.full(num, 3),
        first_starts=np.zeros(num, np.int64),
        crops=np.array([[0, 0, 200, 200], [4, 5, 200, 210]], np.int32),
        seed=7,
        is_training=True,
        jitters=RGB if strong else None,
    )


def test_strong_adds_columns_and_leaves_the_others() -> None:
    positions = np.arange(3000)
    strong, standard = (plan_of(strong=s).table(positions, epoch=2) for s in (True, False))
    for name in ("rows", "starts", "boxes", "mirrored"):
        assert np.array_equal(getattr(strong, name), getattr(standard, name))
    assert standard.jitter is None and strong.jitter is not None
    jitter = strong.jitter
    for values, low, high in (
        (jitter.angles, -10, 10),
        (jitter.scales, 0.9, 1.1),
        (jitter.brightness, 0.8, 1.2),
        (jitter.contrast, 0.8, 1.2),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        # The mean of n uniform draws: 5.5 deviations
        assert abs(values.mean() - (low + high) / 2) < 5.5 * (high - low) / np.sqrt(12 * 3000)
    corners, sizes = jitter.erased[:, :2], jitter.erased[:, 2:]
    is_erased = sizes[:, 0] > 0
    assert abs(is_erased.mean() - 0.5) < 5.5 * 0.5 / np.sqrt(3000)
    assert not jitter.erased[~is_erased].any()
    assert (corners >= 0).all() and (corners + sizes <= 224).all()
    areas = sizes[is_erased].prod(axis=1) / 224**2
    assert 0.018 < areas.min() < 0.03 and 0.31 < areas.max() < 0.34
    # Corners are uniform over the room that is left
    shares = corners[is_erased] / np.maximum(224 - sizes[is_erased], 1)
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 0.04
    columns = np.stack(
        [jitter.angles, jitter.scales, jitter.brightness, jitter.contrast, is_erased]
    )
    assert np.abs(np.corrcoef([*columns, strong.mirrored]) - np.eye(6)).max() < 5.5 / np.sqrt(3000)


def test_any_row_of_a_plan_of_strong_can_be_computed_alone() -> None:
    plan = plan_of(strong=True)
    whole = plan.table(np.arange(3000), epoch=4).jitter
    some = np.array([2999, 5, 1700])
    part = plan.table(some, epoch=4).jitter
    assert whole is not None and part is not None
    for field in dataclasses.fields(whole):
        assert np.array_equal(getattr(part, field.name), getattr(whole, field.name)[some])
    other = plan.table(np.arange(3000), epoch=5).jitter
    assert other is not None and (other.angles != whole.angles).mean() > 0.9


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_light_is_of_rgb_and_validation_is_as_ever(stream: str, raw_dataset: Path) -> None:
    with open_dataset(raw_dataset) as dataset:
        with loader_of(dataset, stream=stream, **STRONG) as loader:
            jitter = loader.plan.table(np.arange(12), epoch=0).jitter
        assert jitter is not None
        assert (jitter.brightness == 1).all() == (jitter.contrast == 1).all() == (stream == "flow")
        batches = []
        for augmentation in ("strong", "standard"):
            options = STRONG | {"stream": stream, "training": False, "augmentation": augmentation}
            with loader_of(dataset, **options) as loader:
                batches.append(next(iter(loader)).images.clone())
    assert torch.equal(*batches)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_and_a_resumed_loader_get_the_same_bits(engine: str, raw_dataset: Path) -> None:
    with open_dataset(raw_dataset) as dataset:
        options = STRONG | {"engine": engine}
        with loader_of(dataset, **options) as loader:
            whole, states = [], []
            for batch in loader:
                whole.append(batch.images.clone())
                states.append(loader.state_dict())
        with loader_of(dataset, **options) as loader:
            loader.load_state_dict(states[0])
            rest = [batch.images.clone() for batch in loader]
        assert len(rest) == 2 and all(map(torch.equal, rest, whole[1:]))
        parts = []
        for rank in range(2):
            with loader_of(dataset, **options, rank=rank, world_size=2) as loader:
                parts.append([batch.images.clone() for batch in loader])
        assert all(map(torch.equal, map(torch.cat, zip(*parts, strict=True)), whole))
