"""The fused cutter against cv2 and exact interpolation, on every kind of crop and processor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engines.normalize import BIT_DTYPES, Normalizer
from pipelines.plan.crops import center_crop, multi_scale_crops
from pipelines.streams import FLOW, KINDS, RGB

hl = pytest.importorskip("halide", reason="no wheel of Halide for this platform")
fused_cutter = pytest.importorskip("pipelines.engines.fused_cutter")
halide_kernel = pytest.importorskip("pipelines.engines.halide_kernel")

Box = tuple[int, int, int, int]

AVX2 = "x86-64-linux-avx-avx2-f16c-fma-sse41"
AVX512 = AVX2 + "-avx512-avx512_skylake"
HOST = hl.get_host_target()


def has(*features: str) -> bool:
    return all(HOST.has_feature(getattr(hl.TargetFeature, name)) for name in features)


TARGETS = [
    pytest.param(
        AVX2,
        marks=pytest.mark.skipif(not has("AVX2", "F16C", "FMA"), reason="this CPU has no AVX2"),
        id="avx2",
    ),
    pytest.param(
        AVX512,
        marks=pytest.mark.skipif(not has("AVX512_Skylake"), reason="this CPU has no AVX-512"),
        id="avx512",
    ),
    pytest.param(
        "x86-64-linux-sse41",
        marks=pytest.mark.skipif(not has("SSE41"), reason="this CPU is not an x86"),
        id="sse41",
    ),
]


def draw_window(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cut(
    window: np.ndarray,
    box: Box,
    mirrored: bool,
    dtype: torch.dtype = torch.uint8,
    *,
    target: str = "",
) -> np.ndarray:
    """A sample of the fused cutter; three channels last are an rgb frame."""
    is_rgb = window.shape[2] == 3
    cutter = fused_cutter.FusedCutter(RGB if is_rgb else FLOW, window.shape, dtype, target=target)
    num_channels = 3 if is_rgb else len(window)
    out = torch.empty((224, 224, num_channels), dtype=dtype)
    cutter.cut(window, box, mirrored, out.view(BIT_DTYPES[dtype]).numpy())
    return out.view(BIT_DTYPES[dtype]).numpy()


def reference(window: np.ndarray, box: Box, mirrored: bool) -> np.ndarray:
    """What cv2 makes of it, plane by plane."""
    y, x, height, width = box
    is_rgb = window.shape[2] == 3
    levels = []
    for number, plane in enumerate([window] if is_rgb else window):
        part = np.ascontiguousarray(plane[y : y + height, x : x + width])
        resized = cv2.resize(part, (224, 224), interpolation=cv2.INTER_LINEAR)
        if mirrored:
            resized = resized[:, ::-1]
            if not is_rgb and number % 2 == 0:
                resized = 255 - resized
        levels.append(resized)
    return np.dstack(levels)


def interpolate_exactly(window: np.ndarray, box: Box) -> np.ndarray:
    """Bilinear interpolation of flow planes in double precision."""
    y, x, height, width = box
    crop = window[:, y : y + height, x : x + width].astype(float)
    for axis, length in ((1, height), (2, width)):
        places = np.clip((np.arange(224) + 0.5) * length / 224 - 0.5, 0, length - 1)
        below = np.floor(places).astype(int)
        above = np.minimum(below + 1, length - 1)
        weight = (places - below).reshape([-1 if n == axis else 1 for n in range(3)])
        crop = crop.take(below, axis) * (1 - weight) + crop.take(above, axis) * weight
    return crop.transpose(1, 2, 0)


def assert_within_one_level(found: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() <= 0.2


@pytest.mark.parametrize("augmentation", ["standard", "original"])
@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize(("height", "width"), [(256, 340), (240, 210), (72, 50)])
def test_every_crop_of_the_tables(stream: str, augmentation: str, height: int, width: int) -> None:
    window = draw_window((height, width, 3) if stream == "rgb" else (2, height, width))
    crops = multi_scale_crops(
        height=height, width=width, ratios=KINDS[stream].crop_ratios, augmentation=augmentation
    )
    boxes = np.unique(np.concatenate([crops, center_crop(height=height, width=width)]), axis=0)
    for number, box in enumerate(boxes.tolist()):
        found = cut(window, tuple(box), number % 2 == 1)
        assert_within_one_level(found, reference(window, tuple(box), number % 2 == 1))


@pytest.mark.parametrize("stack_length", [1, 2, 3, 5, 10])
def test_every_stack_length(stack_length: int) -> None:
    window = draw_window((2 * stack_length, 256, 340))
    for box in ((0, 0, 256, 256), (64, 148, 192, 192), (32, 84, 192, 224)):
        for mirrored in (False, True):
            assert_within_one_level(cut(window, box, mirrored), reference(window, box, mirrored))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_box_in_any_plane(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    crop_height, crop_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    y = data.draw(st.integers(0, height - crop_height))
    x = data.draw(st.integers(0, width - crop_width))
    box, mirrored = (y, x, crop_height, crop_width), data.draw(st.booleans())
    shape = (height, width, 3) if data.draw(st.booleans()) else (4, height, width)
    if shape[2] == 3 and shape[0] == 4:  # planes three pixels wide would be taken for a frame
        shape = (4, height, 4)
        box = (y, 0, crop_height, 4)
    window = draw_window(shape, seed=data.draw(st.integers(0, 9)))
    assert_within_one_level(cut(window, box, mirrored), reference(window, box, mirrored))


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1, 1),
        (255, 339, 1, 1),
        (0, 339, 256, 1),
        (255, 0, 1, 340),
        (100, 338, 2, 2),
        (0, 0, 256, 340),
        (3, 323, 250, 17),
    ],
)
@pytest.mark.parametrize("shape", [(10, 256, 340), (256, 340, 3)])
def test_remainders_at_the_edges(shape: tuple[int, int, int], box: Box) -> None:
    window = draw_window(shape)
    for mirrored in (False, True):
        assert_within_one_level(cut(window, box, mirrored), reference(window, box, mirrored))


def test_levels_are_close_to_exact_interpolation() -> None:
    window = draw_window((2, 256, 340))
    for box in ((0, 0, 256, 256), (31, 11, 192, 224), (5, 7, 61, 303)):
        error = np.abs(cut(window, box, False) - interpolate_exactly(window, box))
        assert error.max() <= 1.02


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_an_even_plane_stays_even(level: int) -> None:
    window = np.full((2, 90, 120), level, np.uint8)
    for box in ((0, 0, 90, 120), (3, 5, 80, 77), (89, 119, 1, 1)):
        assert (cut(window, box, False) == level).all()
        mirrored = cut(window, box, True)
        assert (mirrored[..., 0] == 255 - level).all() and (mirrored[..., 1] == level).all()


def test_what_need_not_be_resized_is_copied() -> None:
    window = draw_window((10, 256, 340))
    found = cut(window, (16, 58, 224, 224), False)
    assert np.array_equal(found, window[:, 16:240, 58:282].transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(10, 256, 340), (20, 64, 48), (2, 64, 48), (256, 340, 3)])
def test_floats_are_the_levels_normalised_to_the_bit(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    window, box = draw_window(shape), (1, 2, 45, 37)
    kind = RGB if shape[2] == 3 else FLOW
    for mirrored in (False, True):
        levels = torch.from_numpy(cut(window, box, mirrored))[None].permute(0, 3, 1, 2)
        normalise = Normalizer(kind, levels.shape[1], dtype=dtype, device=torch.device("cpu"))
        expected = normalise(levels)[0].permute(1, 2, 0).contiguous()
        found = cut(window, box, mirrored, dtype)
        assert np.array_equal(found, expected.view(BIT_DTYPES[dtype]).numpy())


def test_threads_that_share_a_cutter_give_the_same_bits() -> None:
    window = draw_window((10, 256, 340))
    crops = multi_scale_crops(height=256, width=340, ratios=FLOW.crop_ratios)
    boxes = [tuple(box) for box in crops.tolist()]
    cutter = fused_cutter.FusedCutter(FLOW, window.shape, torch.uint8)

    def cut_all(_: int) -> bytes:
        out = np.empty((len(boxes), 224, 224, 10), np.uint8)
        for number, box in enumerate(boxes):
            cutter.cut(window, box, number % 3 == 0, out[number])
        return out.tobytes()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(cut_all, range(8)))
    assert set(results) == {cut_all(0)}


def test_a_read_only_window_is_read_and_not_written() -> None:
    writable = draw_window((10, 256, 340))
    window = np.frombuffer(writable.tobytes(), np.uint8).reshape(writable.shape)
    assert not window.flags.writeable
    box = (9, 33, 200, 250)
    assert np.array_equal(cut(window, box, True), cut(writable, box, True))
    assert np.array_equal(window, writable)


def test_nothing_beside_the_sample_is_written() -> None:
    window = draw_window((10, 256, 340))
    for target in ("", "x86-64-linux-sse41" if has("SSE41") else ""):
        cutter = fused_cutter.FusedCutter(FLOW, window.shape, torch.uint8, target=target)
        batch = np.full((3, 224, 224, 10), 77, np.uint8)
        cutter.cut(window, (0, 0, 256, 256), False, batch[1])
        assert (batch[[0, 2]] == 77).all() and not (batch[1] == 77).all()


@pytest.mark.parametrize(
    "box",
    [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, 0), (248, 0, 9, 9), (0, 332, 9, 9)],
)
def test_a_box_outside_the_planes_never_reaches_the_kernel(box: Box) -> None:
    y, x, height, width = box
    words = f"y {y}, x {x}, height {height}, width {width}.*256 rows and 340 columns"
    with pytest.raises(ValueError, match=words):
        cut(draw_window((2, 256, 340)), box, False)


def test_arrays_that_are_not_as_said_are_refused() -> None:
    cutter = fused_cutter.FusedCutter(FLOW, (2, 64, 48), torch.float16)
    window, box = draw_window((2, 64, 48)), (0, 0, 64, 48)
    out = np.empty((224, 224, 2), np.int16)
    with pytest.raises(ValueError, match=r"uint8 \(2, 64, 47\), expected uint8 \(2, 64, 48\)"):
        cutter.cut(draw_window((2, 64, 47)), box, False, out)
    with pytest.raises(ValueError, match=r"window of int16"):
        cutter.cut(window.astype(np.int16), box, False, out)
    with pytest.raises(ValueError, match=r"float32 .*, expected int16 \(224, 224, 2\)"):
        cutter.cut(window, box, False, out.astype(np.float32))
    with pytest.raises(ValueError, match=r"\(224, 224, 3\), expected int16 \(224, 224, 2\)"):
        cutter.cut(window, box, False, np.empty((224, 224, 3), np.int16))
    with pytest.raises(ValueError, match="expected a C-contiguous array"):
        cutter.cut(window, box, False, np.empty((2, 224, 224), np.int16).transpose(1, 2, 0))
