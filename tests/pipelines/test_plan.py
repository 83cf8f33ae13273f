"""The plan: a permutation by arithmetic, the same from any slice, uniform, pinned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan.crops import center_crop, multi_scale_crops
from pipelines.plan.permutation import (
    derive_key,
    draw_below,
    index_classes,
    permute,
    permute_balanced,
)
from pipelines.plan.plan import PLAN_VERSION, Plan
from pipelines.plan.sampling import Sampling, make_plan
from pipelines.streams import FLOW, KINDS

SIZE = {"height": 256, "width": 340}
GOLDEN = (
    [12, 21, 3, 33, 18, 15],
    [2, 3, 8, 8, 6, 2],
    [
        [32, 42, 224, 256],
        [0, 42, 256, 256],
        [32, 0, 224, 224],
        [0, 0, 192, 224],
        [0, 42, 224, 256],
        [32, 58, 192, 224],
    ],
    [0, 0, 0, 1, 1, 1],
)
SEEDS = st.integers(0, 2**63 - 1)


def make(num: int, *, seed: int = 0, training: bool = True, num_starts: int = 7) -> Plan:
    return Plan(
        rows=np.arange(num, dtype=np.int64) * 3,
        num_starts=np.full(num, num_starts, np.int64),
        first_starts=np.full(num, 2, np.int64),
        crops=multi_scale_crops(**SIZE, ratios=FLOW.crop_ratios)
        if training
        else center_crop(**SIZE),
        seed=seed,
        is_training=training,
    )


@given(num=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=60)
def test_permute_is_a_permutation(num: int, key: int) -> None:
    assert sorted(permute(np.arange(num), num=num, key=key).tolist()) == list(range(num))


@given(num=st.integers(1, 400), seed=SEEDS, epoch=st.integers(0, 1000), data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_slice_of_an_epoch_can_be_computed_alone(
    num: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    plan = make(num, seed=seed)
    whole = plan.table(np.arange(num), epoch=epoch)
    assert sorted(whole.rows.tolist()) == plan.rows.tolist()
    some = np.array(data.draw(st.lists(st.integers(0, num - 1), min_size=1, max_size=20)), np.int64)
    part = plan.table(some, epoch=epoch)
    for name in ("rows", "starts", "boxes", "mirrored"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[some]), name


@given(
    labels=st.lists(st.sampled_from([0, 2, 3, 9]), min_size=1, max_size=300),
    key=st.integers(0, 2**64 - 1),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_balanced_classes_come_equally_often_and_so_their_members(
    labels: list[int], key: int, data: st.DataObject
) -> None:
    kinds, num = np.array(labels, np.int64), len(labels)
    classes = index_classes(kinds)
    whole = permute_balanced(np.arange(num), classes, key=key)
    counts = np.bincount(whole, minlength=num)
    by_class = [counts[kinds == label] for label in np.unique(kinds)]
    assert counts.sum() == num and np.ptp([c.sum() for c in by_class]) <= 1
    assert all(np.ptp(of_members) <= 1 for of_members in by_class)
    some = np.array(data.draw(st.lists(st.integers(0, num - 1), min_size=1, max_size=20)), np.int64)
    assert np.array_equal(permute_balanced(some, classes, key=key), whole[some])


def test_balanced_epochs_choose_uniformly_what_does_not_come_out_even() -> None:
    """3 and 8 sequences in 11 positions: who has the sixth, and which five or six of the eight."""
    labels = np.array([1] * 8 + [4] * 3)
    plan = replace(make(11, seed=3), classes=index_classes(labels))
    rows = [plan.table(np.arange(11), epoch=epoch).rows // 3 for epoch in range(3000)]
    assert len({tuple(order.tolist()) for order in rows}) == 3000
    large = [int((labels[order] == 1).sum()) for order in rows]
    assert set(large) == {5, 6}
    members = np.bincount(np.concatenate(rows), minlength=11)
    places = np.zeros((11, 2))
    for order in rows:
        places[np.arange(11), (labels[order] == 1).astype(int)] += 1
    for counts, freedom in (
        (np.bincount(large)[5:], 1),
        (members[:8], 7),
        (members[8:], 2),
        (places, 11),
    ):
        assert chi_square(np.asarray(counts, float)) < freedom + 5.5 * np.sqrt(2 * freedom)


def test_a_large_balanced_plan_is_computed_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(500) ** 2 % 7
    plan = replace(make(500), classes=index_classes(labels))
    whole = plan.table(np.arange(500), epoch=2).rows
    monkeypatch.setattr("pipelines.plan.plan.SMALL_PLAN", 0)
    slices = [plan.table(np.arange(i, i + 20), epoch=2).rows for i in range(0, 500, 20)]
    assert np.array_equal(np.concatenate(slices), whole)


def test_validation_is_never_balanced() -> None:
    labels, rows = np.array([0, 0, 0, 1]), np.arange(4)
    for training in (True, False):
        plan = make_plan(
            FLOW,
            rows=rows,
            num_usable=np.full(4, 9),
            labels=labels,
            training=training,
            sampling=Sampling(class_frequencies="balanced"),
            **SIZE,
        )
        seen = np.bincount(labels[plan.table(rows, epoch=0).rows])
        assert seen.tolist() == ([2, 2] if training else [3, 1])


def test_epochs_and_seeds_differ() -> None:
    rows = {
        (seed, epoch): tuple(make(50, seed=seed).table(np.arange(50), epoch=epoch).rows.tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(set(rows.values())) == 25


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def test_order_windows_crops_and_flips_are_uniform() -> None:
    """Chi-square at a tail of 1e-6 (normal approximation: mean k - 1, deviation sqrt(2 (k - 1)),
    5.5 deviations)."""
    num, epochs = 20, 3000
    plan = make(num, seed=5)
    tables = [plan.table(np.arange(num), epoch=epoch) for epoch in range(epochs)]
    places = np.zeros((num, num))
    for table in tables:
        places[np.arange(num), table.rows // 3] += 1
    starts = np.bincount(np.concatenate([t.starts for t in tables]) - 2, minlength=7)
    lookup = {tuple(box): index for index, box in enumerate(plan.crops.tolist())}
    boxes: dict[int, int] = {}
    for table in tables:
        for box in table.boxes.tolist():
            boxes[lookup[tuple(box)]] = boxes.get(lookup[tuple(box)], 0) + 1
    flips = np.bincount(np.concatenate([t.mirrored for t in tables]).astype(int), minlength=2)
    multiplicity = np.bincount([lookup[tuple(box)] for box in plan.crops.tolist()])
    distinct = np.array(
        [boxes.get(i, 0) / multiplicity[i] for i in range(len(multiplicity)) if multiplicity[i]]
    )
    for counts, freedom in (
        (places, (num - 1) ** 2),
        (starts, 6),
        (flips, 1),
        (distinct, len(distinct) - 1),
    ):
        assert chi_square(np.asarray(counts, float)) < freedom + 5.5 * np.sqrt(2 * freedom)


def test_lanes_are_independent() -> None:
    positions = np.arange(4000)
    draws = [draw_below(positions, 1000, key=derive_key(1, 2, lane)) for lane in range(4)]
    correlations = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(4000)


def test_validation_takes_stored_order_centre_window_and_centre_crop() -> None:
    table = make(9, training=False).table(np.arange(9), epoch=4)
    assert table.rows.tolist() == (np.arange(9) * 3).tolist()
    assert set(table.starts.tolist()) == {2 + 3}
    assert table.boxes.tolist() == [[16, 58, 224, 224]] * 9
    assert not table.mirrored.any()


def test_the_plan_of_version_1_is_pinned() -> None:
    """If this fails, old runs would resume with another order: raise PLAN_VERSION and pin the new
    values."""
    assert PLAN_VERSION == 1
    table = make(12, seed=2026).table(np.arange(6), epoch=3)
    golden = (
        table.rows.tolist(),
        table.starts.tolist(),
        table.boxes.tolist(),
        table.mirrored.astype(int).tolist(),
    )
    assert golden == GOLDEN


@pytest.mark.parametrize(("stream", "sizes", "cut"), [("rgb", 10, 26), ("flow", 7, 26)])
def test_the_crop_tables_are_the_papers_and_the_seeds(stream: str, sizes: int, cut: int) -> None:
    standard = multi_scale_crops(**SIZE, ratios=KINDS[stream].crop_ratios)
    assert standard.shape == (13 * sizes, 4)
    ends = standard[:, :2] + standard[:, 2:]
    assert (standard[:, :2] >= 0).all() and (ends <= [256, 340]).all()
    assert len({tuple(box[2:]) for box in standard.tolist()}) == sizes
    exact = multi_scale_crops(**SIZE, ratios=KINDS[stream].crop_ratios, augmentation="original")
    intended = np.array([box[2:] for box in standard.tolist()])
    assert (exact[:, 2:] < intended).any(axis=1).sum() == cut


def seed_crop_box(pair: tuple[int, int], place: int) -> list[int]:
    """The original's choice number (crop sizes, place): offsets as if every crop were 224x224, then
    a slice of the image."""
    step_y, step_x = (256 - 224) // 4, (340 - 224) // 4
    offsets = [
        *(
            (0, 0),
            (4 * step_x, 0),
            (0, 4 * step_y),
            (4 * step_x, 4 * step_y),
            (2 * step_x, 2 * step_y),
        ),
        *((0, 2 * step_y), (4 * step_x, 2 * step_y), (2 * step_x, 4 * step_y), (2 * step_x, 0)),
        *((step_x, step_y), (3 * step_x, step_y), (step_x, 3 * step_y), (3 * step_x, 3 * step_y)),
    ]
    x, y = offsets[place]
    rows, columns = np.arange(256)[y : y + pair[0]], np.arange(340)[x : x + pair[1]]
    return [y, x, len(rows), len(columns)]


@pytest.mark.parametrize(
    ("stream", "ratios"), [("rgb", (1, 0.875, 0.75, 0.66)), ("flow", (1, 0.875, 0.75))]
)
def test_seed_exact_lists_the_boxes_that_the_original_cuts(
    stream: str, ratios: tuple[float, ...]
) -> None:
    sizes = [int(256 * ratio) for ratio in ratios]
    pairs = [(a, b) for i, a in enumerate(sizes) for j, b in enumerate(sizes) if abs(i - j) <= 1]
    expected = sorted(seed_crop_box(pair, place) for pair in pairs for place in range(13))
    exact = multi_scale_crops(**SIZE, ratios=KINDS[stream].crop_ratios, augmentation="original")
    assert sorted(exact.tolist()) == expected
