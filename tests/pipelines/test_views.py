"""The views of a test: five windows in time, five crops, each also mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.dataset import open_dataset
from pipelines.reading import Reading
from pipelines.streams import RGB
from pipelines.views import five_crops, make_view_loader, window_starts
from shard_builder.errors import InputError
from tests.reference_loader import ReferenceLoader


def test_five_crops_are_the_corners_and_the_true_centre() -> None:
    assert five_crops(256, 340) == [
        (0, 0, 224, 224),
        (0, 116, 224, 224),
        (32, 0, 224, 224),
        (32, 116, 224, 224),
        (16, 58, 224, 224),
    ]


def test_a_plane_smaller_than_the_crop_is_taken_whole() -> None:
    assert set(five_crops(120, 160)) == {(0, 0, 120, 160)}


@pytest.mark.parametrize(
    ("num_pairs", "ten", "original"),
    [
        (30, [0, 6, 12, 19, 25], [0, 5, 10, 15, 20]),  # the original never sees the last five pairs
        (9, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (8, [0, 1, 2, 2, 3], [0, 0, 0, 0, 0]),
        (5, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
        (3, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_windows_in_time(num_pairs: int, ten: list[int], original: list[int]) -> None:
    assert window_starts(num_pairs, 5, views="ten") == ten
    assert window_starts(num_pairs, 5, views="original") == original


def expected_views(reference: ReferenceLoader, key: str, starts: list[int]) -> np.ndarray:
    views = []
    for start in starts:
        planes = reference.planes(key, start)
        for y, x, height, width in five_crops(256, 340):
            cut = [plane[y : y + height, x : x + width] for plane in planes]
            views.append(np.dstack(cut))
            turned = [
                255 - c if reference.stream == "flow" and n % 2 == 0 else c
                for n, c in enumerate(cut)
            ]
            views.append(np.dstack([c[:, ::-1] for c in turned]))
    return np.stack(views).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_views_are_what_the_reference_cuts(stream: str, raw_dataset: Path) -> None:
    reference = ReferenceLoader(raw_dataset, stream=stream)
    with open_dataset(raw_dataset) as dataset:
        rows = np.array([5, 0, 9])
        with make_view_loader(
            dataset, stream, rows=rows, batch_size=2, reading=Reading(dtype=torch.uint8)
        ) as loader:
            assert len(loader) == 2
            batches = [
                (batch.images.numpy().copy(), batch.labels.tolist(), batch.keys) for batch in loader
            ]
        pairs = dataset.num_pairs
        frames = dataset.num_frames
        assert sum((keys for _, _, keys in batches), ()) == tuple(dataset.keys[row] for row in rows)
        assert [label for _, labels, _ in batches for label in labels] == dataset.labels[
            rows
        ].tolist()
    images = np.concatenate([images for images, _, _ in batches])
    for number, row in enumerate(rows.tolist()):
        starts = (
            window_starts(int(pairs[row]), 5, views="ten")
            if stream == "flow"
            else [int(frames[row]) - 1]
        )
        assert np.array_equal(
            images[number], expected_views(reference, reference.keys[row], starts)
        )


def test_float_views_are_normalised(raw_dataset: Path) -> None:
    with open_dataset(raw_dataset) as dataset:
        batches = []
        for dtype in (torch.uint8, torch.float32):
            with make_view_loader(
                dataset, "rgb", rows=np.array([2]), reading=Reading(dtype=dtype)
            ) as loader:
                batches.append(next(iter(loader)).images)
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (RGB.mean, RGB.deviation))
    assert torch.allclose(batches[1], (batches[0].float() / 255 - mean) / deviation, atol=1e-5)


def test_what_does_not_fit_is_named(raw_dataset: Path, build_tiny: object) -> None:
    with open_dataset(raw_dataset) as dataset:
        with pytest.raises(InputError, match="views='many', expected one of ten, original"):
            make_view_loader(dataset, stream="flow", rows=np.array([0]), views="many")
        with pytest.raises(InputError, match="no sequence to test"):
            make_view_loader(dataset, stream="flow", rows=np.array([], np.int64))


def test_the_originals_rgb_view_needs_all_frames(build_tiny: object) -> None:
    folder = build_tiny(codec="jpg", frames="last", streams=("rgb",))  # type: ignore[operator]
    with (
        open_dataset(folder) as dataset,
        pytest.raises(InputError, match=r"keeps only frames at the apex(.|\n)*views='ten'"),
    ):
        make_view_loader(dataset, stream="rgb", rows=np.array([0]), views="original")
