"""``make_loader``: a split part of a dataset as batches, by the plan, through an engine; resumable
at any step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from pipelines.batch import Batch, BatchRequest
from pipelines.dataset import Dataset
from pipelines.engines.cpu import CpuEngine, default_num_threads
from pipelines.engines.damage import DamagePolicy
from pipelines.engines.planes import PlaneReader
from pipelines.loader_options import LoaderOptions, find_device
from pipelines.plan.permutation import Int64
from pipelines.plan.plan import PLAN_VERSION, Plan
from pipelines.plan.samples import make_plan
from shard_builder.errors import DamagedMemberError, InputError

DEFAULT_CACHE_BYTES = 4 << 30
PLANNED_BATCHES = 16


class Engine(Protocol):
    """What carries out requests."""

    def batches(self, requests: Iterator[BatchRequest]) -> Iterator[Batch]:
        """Yield one batch for each request, in order."""

    def close(self) -> None:
        """Stop threads, free buffers."""


class Loader:
    """Batches of one split part, epoch after epoch; made by :func:`make_loader`. Also a context
    manager.

    Iterating yields the rest of the current epoch from the current position on, and leaves the
    position at the epoch's end; call :meth:`set_epoch` before each epoch. The state names the next
    position to hand over, so it is exact however far the engine has read ahead, and it loads at any
    world size. There is one iteration at a time: a new one, a jump and the end of the loader end
    it.

    Attributes:
        plan: The plan, the same for every engine, rank and world size.
        num_samples: Samples of an epoch.
        num_short: Sequences with fewer pairs than the stack; they repeat their last pair.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        damage: DamagePolicy,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        num_short: int,
    ) -> None:
        self.num_samples, self.num_short = len(plan), num_short
        self.plan, self._engine, self._damage = plan, engine, damage
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._epoch, self._position = 0, 0
        self._is_closed = False
        self._iteration: Callable[[], Generator[Batch, None, None] | None] = lambda: None

    def __len__(self) -> int:
        return -(-self.num_samples // self._batch_size)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def errors(self) -> list[DamagedMemberError]:
        """Damaged members skipped in this epoch so far."""
        return list(self._damage.errors)

    def close(self) -> None:
        """Stop the engine; further iteration is an error."""
        if not self._is_closed:
            self._is_closed = True
            self._stop_iteration()
            self._engine.close()

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._stop_iteration()
        self._epoch, self._position = epoch, 0
        self._damage.start_epoch()

    def state_dict(self) -> dict[str, int]:
        """Return the plan's coordinates of the next sample to hand over: plain integers."""
        return {
            "plan_version": PLAN_VERSION,
            "seed": self.plan.seed,
            "epoch": self._epoch,
            "position": self._position,
            "num_samples": self.num_samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, at this or another world size.

        Raises:
            InputError: If the state belongs to another plan version, seed or number of samples.
        """
        own = self.state_dict()
        for name in ("plan_version", "seed", "num_samples"):
            if state.get(name) != own[name]:
                raise InputError(
                    f"loader state has {name} {state.get(name)}, expected {own[name]}\n"
                    "  It was saved by a run with another dataset, split or seed."
                )
        if not 0 <= state["position"] <= self.num_samples:
            raise InputError(
                f"loader state has position {state['position']}, expected 0 to {self.num_samples}"
            )
        self._stop_iteration()
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._damage.start_epoch()

    def __iter__(self) -> Iterator[Batch]:
        if self._is_closed:
            raise RuntimeError("the loader is closed")
        self._stop_iteration()
        batches = self._batches()
        self._iteration = weakref.ref(batches)
        return batches

    def _stop_iteration(self) -> None:
        """End the iteration that is under way: two of them would share the engine's buffers."""
        running = self._iteration()
        if running is not None:
            running.close()

    def _batches(self) -> Generator[Batch, None, None]:
        position = self._position
        requests = rank_requests(
            self.plan,
            self._epoch,
            position,
            self._batch_size,
            rank=self._rank,
            world_size=self._world_size,
        )
        for batch in self._engine.batches(requests):
            position += batch.global_size
            self._position = position
            yield batch


def rank_requests(
    plan: Plan, epoch: int, position: int, batch_size: int, *, rank: int, world_size: int
) -> Iterator[BatchRequest]:
    """Yield a rank's contiguous part of each global batch from a position on; short parts repeat
    the batch's first position.

    The plan of several batches is computed at once, for NumPy costs as much for a batch as for
    sixteen.
    """
    for first in range(position, len(plan), batch_size * PLANNED_BATCHES):
        last = min(first + batch_size * PLANNED_BATCHES, len(plan))
        parts = []
        for begin in range(first, last, batch_size):
            stop = min(begin + batch_size, last)
            share = -(-(stop - begin) // world_size)
            positions = np.arange(begin + rank * share, begin + (rank + 1) * share, dtype=np.int64)
            valid = positions < stop
            parts.append((np.where(valid, positions, begin), valid, stop - begin))
        table = plan.table(np.concatenate([positions for positions, _, _ in parts]), epoch=epoch)
        begin = 0
        for positions, valid, global_size in parts:
            yield BatchRequest(
                table=table.part(begin, begin + len(positions)),
                valid=valid,
                epoch=epoch,
                global_size=global_size,
            )
            begin += len(positions)


def make_loader(
    dataset: Dataset,
    *,
    stream: str,
    rows: Int64,
    training: bool,
    batch_size: int,
    stack_length: int = 5,
    seed: int = 0,
    engine: str = "auto",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    rank: int = 0,
    world_size: int = 1,
    num_threads: int | None = None,
    prefetch_depth: int = 2,
    aug: str = "standard",
    rgb_last_frames: int = 1,
    cache: str = "none",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    on_error: str = "raise",
) -> Loader:
    """Make a loader of one split part.

    Args:
        dataset: An open dataset; it must stay open as long as the loader.
        stream: ``rgb`` or ``flow``.
        rows: Index rows of the part, ``int64`` (n,).
        training: Shuffle and augment, every sample once an epoch; else stored order, centre window
            and crop.
        batch_size: Samples of a GLOBAL batch, a multiple of ``world_size``; each rank gets its
            contiguous part of it.
        stack_length: Flow pairs in a sample, 2L channels.
        seed: Seed of order and augmentation.
        engine: ``auto``, ``dali`` or ``cpu``; ``auto`` takes DALI where a GPU and DALI are.
        device: Where batches go.
        dtype: ``uint8`` levels, or a float type: normalised.
        rank: This process's rank.
        world_size: Number of ranks.
        num_threads: Decoding threads; None takes all cores of this process.
        prefetch_depth: Batches in progress ahead of the one handed over.
        aug: ``standard``, or ``original`` for the original's own crop table.
        rgb_last_frames: The peak frame is one of the last so many in training.
        cache: ``ram`` keeps decoded planes; ``dali`` then takes them from there instead of
            decoding.
        cache_bytes: Limit of that cache.
        on_error: ``raise``, or ``skip``: a damaged sample is replaced by its neighbour in the plan
            and counted in ``errors``.

    Raises:
        InputError: If an option, the part or the dataset does not fit; the message quotes it.
    """
    options = LoaderOptions(
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        engine=engine,
        device=find_device(device),
        dtype=dtype,
        prefetch_depth=prefetch_depth,
        cache=cache,
        on_error=on_error,
    )
    if training and 0 < len(rows) < batch_size:
        raise InputError(
            f"--batch-size {batch_size}, but the training part has {len(rows)} sequences; expected"
            " that many or fewer"
        )
    plan = make_plan(
        dataset,
        stream=stream,
        rows=rows,
        training=training,
        stack_length=stack_length,
        seed=seed,
        aug=aug,
        rgb_last_frames=rgb_last_frames,
    )
    damage = DamagePolicy(on_error, len(plan))
    reader = PlaneReader(
        dataset,
        stream=stream,
        stack_length=stack_length,
        cache_bytes=cache_bytes if cache == "ram" else 0,
    )
    made: Engine = _engine_class(options)(
        reader,
        plan,
        dtype=dtype,
        device=options.device,
        batch_size=batch_size // world_size,
        num_threads=num_threads or default_num_threads(),
        prefetch_depth=prefetch_depth,
        damage=damage,
    )
    num_short = 0 if stream == "rgb" else int((dataset.num_pairs[plan.rows] < stack_length).sum())
    return Loader(
        plan,
        made,
        damage,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        num_short=num_short,
    )


def _engine_class(options: LoaderOptions) -> Callable[..., Engine]:
    if options.uses_dali:
        from pipelines.engines.dali import DaliEngine

        return DaliEngine
    return CpuEngine
