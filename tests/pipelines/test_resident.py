"""The engine whose planes stay on the device: against the reference, its limits, what it moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipelines.dataset import open_dataset
from pipelines.engines.plane_cut import cut_planes
from pipelines.streams import KINDS
from shard_builder.errors import InputError
from tests.pipelines.fake_cuda import FakeCuda
from tests.pipelines.flat_loader import NUM, loader_of
from tests.reference_loader import ReferenceLoader

DTYPES = [torch.uint8, torch.float32, torch.float16, torch.bfloat16]
CODECS = ["raw", "png", "jpg"]


@pytest.fixture
def folder_of(
    build_tiny: Callable[..., Path], tiny_dataset: Path, raw_dataset: Path
) -> Callable[[str], Path]:
    known = {"jpg": tiny_dataset, "raw": raw_dataset}
    return lambda codec: known.get(codec) or build_tiny(codec=codec, shard_bytes=32 << 20)


def check_against_reference(folder: Path, *, num: int = NUM, epochs: int = 1, **options: object):
    """Compare every value of some epochs with the reference loader's."""
    stream, dtype = str(options.get("stream", "flow")), options.get("dtype", torch.uint8)
    length = int(options.get("stack_length", 5))  # type: ignore[call-overload]
    reference, kind = ReferenceLoader(folder, stream=stream, stack_length=length), KINDS[stream]
    mean, deviation = (torch.tensor(v).view(-1, 1, 1) for v in (kind.mean, kind.deviation))
    with (
        open_dataset(folder) as dataset,
        loader_of(dataset, num=num, engine="resident", **options) as loader,
    ):
        seen = 0
        for epoch in range(epochs):
            for batch in loader:
                assert batch.images.dtype == dtype
                assert batch.images.is_contiguous(memory_format=torch.channels_last)
                for number, position in enumerate(batch.positions.tolist()):
                    key, levels, label = reference.sample(loader.plan, position, epoch=epoch)
                    assert (batch.keys[number], int(batch.labels[number])) == (key, label)
                    expected = torch.from_numpy(levels).permute(2, 0, 1).float()
                    allowed = torch.ones(len(mean), 1, 1)
                    if dtype != torch.uint8:
                        expected = (expected / 255 - mean) / deviation
                        allowed = allowed / 255 / deviation + 4 * torch.finfo(dtype).eps
                    apart = (batch.images[number].float() - expected).abs()
                    assert (apart <= allowed).all()
                    assert (apart.mean(dim=(1, 2)) <= 0.15 * allowed.amax()).all()
                    seen += 1
        assert seen == epochs * loader.num_samples


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_value_is_within_one_level_of_the_reference(
    codec: str, stream: str, dtype: torch.dtype, folder_of: Callable[[str], Path]
) -> None:
    options = {"stream": stream, "dtype": dtype, "rgb_apex_frames": 3}
    check_against_reference(folder_of(codec), num=10, epochs=2, **options)


@pytest.mark.parametrize("stack_length", [1, 3, 10])
@pytest.mark.parametrize("training", [True, False])
def test_any_stack_length_and_sequences_that_are_too_short_for_it(
    stack_length: int, training: bool, tiny_dataset: Path
) -> None:
    """Of the sequences of 5 to 11 pairs some repeat their last one."""
    options = {"stack_length": stack_length, "training": training}
    check_against_reference(tiny_dataset, num=12, **options)


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_crops_that_the_border_cuts_off(stream: str, raw_dataset: Path) -> None:
    check_against_reference(raw_dataset, stream=stream, augmentation="original", num=20)


@pytest.mark.parametrize("training", [True, False])
def test_planes_smaller_than_the_input_are_enlarged(
    training: bool, build_tiny: Callable[..., Path]
) -> None:
    folder = build_tiny(codec="raw", width=160, height=120)
    check_against_reference(folder, training=training, num=12)


def test_random_boxes_on_noise_are_resized_as_opencv_does() -> None:
    """Noise has the steepest edges: 255 levels from one pixel to the next."""
    draw = np.random.default_rng(3)
    planes = draw.integers(0, 256, (6, 61, 83), np.uint8)
    boxes = [[0, 0, 61, 83], [60, 82, 1, 1], [0, 0, 1, 83], [5, 80, 56, 3]]
    for _ in range(60):
        height, width = int(draw.integers(1, 62)), int(draw.integers(1, 84))
        y, x = draw.integers(0, 62 - height), draw.integers(0, 84 - width)
        boxes.append([int(y), int(x), height, width])
    num = len(boxes)
    channels, mirrored = draw.integers(0, 6, (num, 4)), draw.random(num) < 0.5
    found = cut_planes(
        *(torch.from_numpy(array) for array in (planes, channels, np.array(boxes), mirrored)),
        has_pairs=True,
    ).numpy()
    for sample, (y, x, height, width) in enumerate(boxes):
        for channel, plane in enumerate(channels[sample]):
            cut = np.ascontiguousarray(planes[plane, y : y + height, x : x + width])
            expected = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_LINEAR).astype(float)
            if mirrored[sample]:
                expected = expected[:, ::-1]
                expected = 255 - expected if channel % 2 == 0 else expected
            assert np.abs(found[sample, channel] - expected).max() <= 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("aug", ["standard", "strong"])
def test_on_a_gpu_every_step_of_a_cut_stays_there(
    aug: str, stream: str, dtype: torch.dtype, raw_dataset: Path
) -> None:
    """Tensors without contents say on which device each operation would run; one from the host
    among them, or a number that the host would read, is an error."""
    with (
        open_dataset(raw_dataset) as dataset,
        loader_of(dataset, stream=stream, dtype=dtype, engine="resident") as loader,
    ):
        engine, num_channels = loader._engine, 10 if stream == "flow" else 3
        normalizer = engine._normalizer
        with FakeTensorMode(allow_non_fake_inputs=False) as mode, torch.device("cuda:0"):
            engine._planes = torch.empty(40, 256, 340, dtype=torch.uint8)
            for name in ("_scale", "_shift") if normalizer else ():
                setattr(normalizer, name, mode.from_tensor(getattr(normalizer, name)).cuda())
            numbers = torch.zeros(7, num_channels + 5, dtype=torch.int64)
            jitter = torch.zeros(7, 16) if aug == "strong" else None
            images = engine._cut(numbers, jitter)
            assert (images.device, images.dtype) == (torch.device("cuda:0"), dtype)
            assert images.shape == (7, num_channels, 224, 224)
            assert images.is_contiguous(memory_format=torch.channels_last)
            with pytest.raises(RuntimeError, match="device"):
                engine._cut(numbers.cpu(), None if jitter is None else jitter.cpu())


def test_from_the_second_epoch_on_no_pixel_moves(tiny_dataset: Path, cuda: FakeCuda) -> None:
    cuda.compute.is_idle = True
    with open_dataset(tiny_dataset) as dataset:
        with loader_of(dataset) as loader:
            expected = [(b.keys, int(b.images.sum())) for _ in range(3) for b in loader]
        with loader_of(dataset, engine="resident", device="cuda") as loader:
            found, copied = [], []
            for _ in range(3):
                begin = len(cuda.copied_bytes)
                found += [(batch.keys, int(batch.images.sum())) for batch in loader]
                copied.append(cuda.copied_bytes[begin:])
        num_pairs = int(dataset.num_pairs[:NUM].sum())
    assert [keys for keys, _ in found] == [keys for keys, _ in expected]
    for (_, total), (_, wanted) in zip(found, expected, strict=True):
        assert abs(total - wanted) < 0.001 * wanted
    planes = 2 * 256 * 340
    assert sum(size for size in copied[0] if size >= planes) == num_pairs * planes
    # Of each of 28 samples 10 planes, 4 numbers of its box, mirrored or not, label and validity.
    assert sum(copied[1]) == sum(copied[2]) == NUM * (15 * 8 + 8 + 1)
    assert cuda.num_unpinned == 0


def test_twenty_epochs_take_no_more_memory_than_ten(tiny_dataset: Path) -> None:
    process = psutil.Process()
    with (
        open_dataset(tiny_dataset) as dataset,
        loader_of(dataset, num=12, engine="resident", dtype=torch.float32) as loader,
    ):
        used, addresses = [], set()
        for _ in range(20):
            for batch in loader:
                assert batch.images.numel()
            used.append(process.memory_info().rss)
            addresses.add(loader._engine._planes.data_ptr())
    # A batch kept an epoch would be ten; the allocator's own blocks come and go.
    assert max(used[10:]) - max(used[:10]) < 8 * 6 * 10 * 224 * 224 * 4
    assert len(addresses) == 1


@pytest.mark.parametrize("training", [True, False])
def test_planes_that_do_not_fit_are_refused_with_their_sum(
    training: bool, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dataset(tiny_dataset) as dataset:
        num_planes = 2 * int(dataset.num_pairs[:NUM].sum()) if training else 2 * 5 * NUM
        total = num_planes * 256 * 340
        options = {"engine": "resident", "training": training}
        loader_of(dataset, **options, cache_bytes=total).close()
        words = (
            rf"cache='device': {num_planes} planes of 28 sequences take {num_planes} x 87040 ="
            rf" {total} bytes, but"
        )
        with pytest.raises(InputError, match=f"{words} cache_bytes={total - 1} are allowed"):
            loader_of(dataset, **options, cache_bytes=total - 1)
        free = int(total / 0.4)
        machine = "pipelines.engines.resident.num_available_bytes"
        monkeypatch.setattr(machine, lambda: free + 3)
        loader_of(dataset, **options).close()
        monkeypatch.setattr(machine, lambda: free - 3)
        with pytest.raises(
            InputError, match=rf"{words} \d+ are allowed, 40% of the {free - 3} free"
        ):
            loader_of(dataset, **options)


def test_a_gpus_own_memory_is_asked(tiny_dataset: Path, cuda: FakeCuda) -> None:
    cuda.free_bytes = 10_000_000
    with (
        open_dataset(tiny_dataset) as dataset,
        pytest.raises(InputError, match="40% of the 10000000 free on cuda:0"),
    ):
        loader_of(dataset, engine="resident", device="cuda")


def test_dali_and_planes_on_the_device_exclude_each_other(tiny_dataset: Path) -> None:
    with (
        open_dataset(tiny_dataset) as dataset,
        pytest.raises(InputError, match="engine='dali' with cache='device'"),
    ):
        loader_of(dataset, engine="dali", cache="device")


def test_once_all_planes_are_there_no_thread_is_left(tiny_dataset: Path) -> None:
    with (
        open_dataset(tiny_dataset) as dataset,
        loader_of(dataset, engine="resident", training=False) as loader,
    ):
        list(loader)
        names = [thread.name for thread in threading.enumerate() if thread.is_alive()]
        assert not [name for name in names if name.startswith("ckshard-resident")]
