"""The windows of coming batches asked for from a store, in a thread, before they are needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pipelines.members import StreamMembers
from pipelines.plan.requests import BatchRequest
from pipelines.remote_members import Fetched, RemoteMembers
from pipelines.row_cache import RowCache
from pipelines.streams import StreamKind
from shard_builder.errors import DatasetError

READ_AHEAD_BYTES = 256 << 20
"""Of windows that are asked for or here, unless one batch alone has more."""


def read_ahead(
    requests: Generator[BatchRequest, None, None],
    members: StreamMembers,
    kind: StreamKind,
    *,
    stack_length: int,
    cache: RowCache | None,
    is_kept: Callable[[int, Sequence[int]], bool],
    num_ahead: int,
    num_held: int,
) -> Generator[BatchRequest, None, None]:
    """Pass requests on, the windows of those that come asked for from the store.

    Whoever ends a loop before its end closes this: an error that is kept keeps the loop, and what
    was asked for in it would be read by the next one.

    Args:
        requests: In the plan's order.
        members: Of the stream; local ones need nothing to be asked for.
        kind: The stream.
        stack_length: Pairs of a window.
        cache: Blocks on this machine's disk.
        is_kept: Tells whether the planes of a row's items are in memory already.
        num_ahead: Batches to ask for before they are needed, within ``READ_AHEAD_BYTES``.
        num_held: Batches that an engine has in progress: so long their windows are kept.
    """
    if not isinstance(members, RemoteMembers):
        return requests
    ahead = _Ahead(
        requests,
        members,
        kind,
        stack_length=stack_length,
        cache=cache,
        is_kept=is_kept,
        num_ahead=num_ahead,
        num_held=num_held,
    )
    return _filled_in_a_thread(ahead)


class _Ahead:
    """Batches that are asked for and wait, and those that an engine has in progress; for the
    arguments see :func:`read_ahead`.
    """

    def __init__(
        self,
        requests: Generator[BatchRequest, None, None],
        members: RemoteMembers,
        kind: StreamKind,
        *,
        stack_length: int,
        cache: RowCache | None,
        is_kept: Callable[[int, Sequence[int]], bool],
        num_ahead: int,
        num_held: int,
    ) -> None:
        self._requests, self._members, self._kind = requests, members, kind
        self._stack_length, self._cache, self._is_kept = stack_length, cache, is_kept
        self._num_ahead, self._num_held = num_ahead, num_held
        self._waiting: deque[tuple[BatchRequest, list[Fetched]]] = deque()
        self._held: deque[list[Fetched]] = deque()
        self._num_bytes = 0

    def fill(self) -> None:
        """Ask for what comes, as much as is allowed."""
        self._let_go()
        while len(self._waiting) < self._num_ahead and self._num_bytes < READ_AHEAD_BYTES:
            if not self._ask():
                return

    def take(self) -> BatchRequest | None:
        """Return the next request; its windows are held from now on."""
        if not self._waiting:
            self._let_go()
            if not self._ask():
                return None
        request, asked = self._waiting.popleft()
        self._held.append(asked)
        return request

    def close(self) -> None:
        """Let go of everything."""
        self._requests.close()
        for asked in [*self._held, *(asked for _, asked in self._waiting)]:
            self._drop(asked)

    def _ask(self) -> bool:
        """Ask for the windows of one more batch; return whether there is one."""
        if (request := next(self._requests, None)) is None:
            return False
        rows, starts = request.table.rows.tolist(), request.table.starts.tolist()
        asked = []
        if self._cache is not None:
            self._cache.go_to(request.epoch, int(request.table.positions.max()) + 1)
        for row, start in dict.fromkeys(zip(rows, starts, strict=True)):
            num_stored = int(self._members.num_stored[row])
            items = self._kind.window_items(start, num_stored, self._stack_length)
            if self._is_kept(row, items):
                continue
            with suppress(DatasetError):  # a place that cannot be is met when it is read
                asked.append(self._members.ask(row, items, self._cache))
        self._num_bytes += sum(entry.num_bytes for entry in asked)
        self._waiting.append((request, asked))
        return True

    def _let_go(self) -> None:
        while len(self._held) > self._num_held:
            self._drop(self._held.popleft())

    def _drop(self, asked: list[Fetched]) -> None:
        self._num_bytes -= sum(entry.num_bytes for entry in asked)
        self._members.drop(asked)


def _filled_in_a_thread(ahead: _Ahead) -> Generator[BatchRequest, None, None]:
    """Yield requests. To ask for the windows of a batch takes half a millisecond: a thread does it
    while the one before is used.
    """
    process, pool = os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="ckshard-ahead")
    try:
        while (request := ahead.take()) is not None:
            filling = pool.submit(ahead.fill)
            yield request
            filling.result()
    finally:
        if os.getpid() == process:  # in a forked copy there is no such thread
            pool.shutdown(wait=True)
            ahead.close()
