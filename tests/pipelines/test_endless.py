"""Epoch after epoch without a border: engines read on, only a jump restarts them, every state is
exact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.dataset import Dataset, open_dataset
from pipelines.loader import Loader
from pipelines.plan.plan import Plan
from pipelines.plan.requests import BatchRequest, iter_requests
from tests.pipelines.flat_loader import ENGINES, loader_of

NUM, SIZE = 13, 4
EPOCH = [0, 4, 8, 12]
"""Where the batches of an epoch begin."""


def small(dataset: Dataset, **options: Any) -> Loader:
    """A loader of 13 samples in batches of 4: the last batch is short."""
    return loader_of(dataset, num=NUM, **({"batch_size": SIZE} | options))


class Spy:
    """What an engine was asked: how often to begin, and which requests it has taken."""

    def __init__(self, loader: Loader) -> None:
        self.num_starts = 0
        self.taken: list[tuple[int, int]] = []
        engine = loader._engine
        self._batches, engine.batches = engine.batches, self.batches  # type: ignore[method-assign]

    def batches(self, requests: Iterator[BatchRequest]) -> Any:
        self.num_starts += 1
        return self._batches(self._noted(requests))

    def _noted(self, requests: Iterator[BatchRequest]) -> Iterator[BatchRequest]:
        for request in requests:
            self.taken.append((request.epoch, int(request.table.positions[0])))
            yield request


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_epoch_is_read_before_this_one_ends(
    engine: str, training: bool, depth: int, tiny_dataset: Path
) -> None:
    options = {"engine": engine, "training": training, "prefetch_depth": depth}
    with open_dataset(tiny_dataset) as dataset, small(dataset, **options) as loader:
        spy = Spy(loader)
        for epoch in range(3):
            for _ in loader:
                pass
            # This epoch's batches are handed over; so many of the next are in progress or ready, or
            # a thread is about to take the last of them.
            ahead = [(epoch + 1, begin) for begin in EPOCH[:depth]]
            deadline = time.monotonic() + 60
            while not set(ahead) <= set(spy.taken) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert [taken for taken in spy.taken if taken[0] == epoch + 1][:depth] == ahead
        assert spy.num_starts == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_only_a_jump_restarts_the_engine(engine: str, tiny_dataset: Path) -> None:
    with open_dataset(tiny_dataset) as dataset, small(dataset, engine=engine) as loader:
        spy = Spy(loader)
        list(loader)
        loader.set_epoch(1)  # which comes next anyhow
        batches = iter(loader)
        next(batches)
        loader.load_state_dict(loader.state_dict())  # to where it is
        assert [batch.positions[0] for batch in loader] == EPOCH[1:]
        list(loader)
        assert spy.num_starts == 1
        loader.set_epoch(2)  # back
        list(loader)
        assert spy.num_starts == 2
        for _ in loader:
            break
        list(loader)  # the rest of epoch 3 is not wanted
        assert (spy.num_starts, loader.epoch) == (3, 4)


def global_batches(
    plan: Plan, *, epoch: int, position: int, batch_size: int, world_size: int, num: int
) -> list[tuple[int, list[int]]]:
    """The next batches from there: the epoch, and its valid positions over all ranks."""
    ranks = [
        iter_requests(
            plan,
            epoch=epoch,
            position=position,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    batches = []
    for parts in islice(zip(*ranks, strict=True), num):
        assert len({(part.epoch, part.global_size, len(part)) for part in parts}) == 1
        positions = [p for part in parts for p in part.table.positions[part.valid].tolist()]
        assert len(positions) == parts[0].global_size
        batches.append((parts[0].epoch, positions))
    return batches


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_from_any_position_every_rank_count_goes_on_with_the_same_samples(
    world_size: int, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset, small(dataset) as loader:
        plan = loader.plan
    for position in range(NUM + 1):
        options = {"epoch": 5, "position": position, "batch_size": 12}
        found = global_batches(plan, **options, world_size=world_size, num=4)
        order = [(epoch, p) for epoch, positions in found for p in positions]
        expected = [(5, p) for p in range(position, NUM)]
        expected += [(epoch, p) for epoch in (6, 7, 8, 9) for p in range(NUM)]
        assert order == expected[: len(order)] and len(order) >= 12
        for epoch, positions in found:
            begin = position if epoch == 5 else 0
            assert (positions[0] - begin) % 12 == 0, "a batch begins where one did before"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_a_state_of_any_batch_goes_on_at_another_world_size(
    engine: str, before: int, after: int, tiny_dataset: Path
) -> None:
    with open_dataset(tiny_dataset) as dataset, ExitStack() as stack:

        def ranks(world_size: int) -> list[Loader]:
            loaders = [
                small(dataset, engine=engine, rank=rank, world_size=world_size)
                for rank in range(world_size)
            ]
            return [stack.enter_context(loader) for loader in loaders]

        def steps(loaders: list[Loader]) -> Iterator[tuple[int, list[str]]]:
            for parts in zip(*loaders, strict=True):
                pairs = [pair for part in parts for pair in zip(part.keys, part.valid, strict=True)]
                yield parts[0].epoch, [key for key, is_valid in pairs if is_valid]

        saved, others = ranks(before), ranks(after)
        states, batches = [], []
        for _ in range(2):
            for batch in steps(saved):
                batches.append(batch)
                states.append([loader.state_dict() for loader in saved])
        assert len(batches) == 2 * len(EPOCH)
        for number, (state, *same) in enumerate(states):
            assert all(other == state for other in same)
            for loader in others:
                loader.load_state_dict(state)
            rest = list(steps(others))
            if state["epoch"] == 0:
                rest += list(steps(others))
            assert rest == batches[number + 1 :]


Action = tuple[str, int]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("loop"), st.integers(0, 5)),  # begin a loop, take so many batches
        st.tuples(st.just("go on"), st.integers(1, 5)),  # take more of the loop in progress
        st.tuples(st.just("epoch"), st.integers(0, 2)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("load"), st.just(0)),
    ),
    min_size=1,
    max_size=8,
)


class Known:
    """Key and sum of the pixels at every (epoch, position), each epoch by a loader of its own."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        self.samples: dict[tuple[int, int], tuple[str, int]] = {}
        with open_dataset(folder) as dataset:
            for epoch in range(12):
                with small(dataset, batch_size=1, engine=engine) as loader:
                    loader.set_epoch(epoch)
                    for batch in loader:
                        place = (epoch, int(batch.positions[0]))
                        self.samples[place] = (batch.keys[0], int(batch.images.sum()))


@pytest.fixture(scope="module", params=ENGINES)
def known(request: pytest.FixtureRequest, tiny_dataset: Path) -> Known:
    return Known(request.param, tiny_dataset)


@given(actions=ACTIONS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_done_to_a_loader_its_batches_are_the_plans(
    known: Known, actions: list[Action], tiny_dataset: Path
) -> None:
    """A model of three numbers says what each batch is and when the engine has to restart."""
    with open_dataset(tiny_dataset) as dataset, small(dataset, engine=known.engine) as loader:
        spy, batches = Spy(loader), iter(())
        at, begins_at, read_to, num_starts = (0, 0), (0, 0), None, 0
        saved, saved_at, is_looping = loader.state_dict(), (0, 0), False
        for action, number in actions:
            if action == "save":
                saved, saved_at = loader.state_dict(), at
            elif action in ("epoch", "load"):
                at = begins_at = (number, 0) if action == "epoch" else saved_at
                loader.set_epoch(number) if action == "epoch" else loader.load_state_dict(saved)
                is_looping = False
            else:
                if action == "loop":
                    batches, is_looping = iter(loader), True
                    at, begins_at = begins_at or (at[0] + 1, 0), None
                for _ in range(number):
                    batch = next(batches, None)
                    if not is_looping or at[1] == NUM:
                        assert batch is None
                        is_looping = False
                        break
                    assert batch is not None
                    positions = list(range(at[1], min(at[1] + SIZE, NUM)))
                    assert (batch.epoch, batch.positions.tolist()) == (at[0], positions)
                    found = zip(batch.keys, batch.images.sum(dim=(1, 2, 3)).tolist(), strict=True)
                    assert list(found) == [known.samples[at[0], position] for position in positions]
                    num_starts += read_to != at
                    at = (at[0], positions[-1] + 1)
                    read_to = at if at[1] < NUM else (at[0] + 1, 0)
            state = loader.state_dict()
            assert (state["epoch"], state["position"]) == at
            assert spy.num_starts == num_starts
