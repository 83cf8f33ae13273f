"""The windows of coming batches asked for from a store, in a thread, before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pipelines.plan.requests import BatchRequest
from pipelines.remote_members import Fetched, RemoteMembers
from pipelines.row_cache import RowCache
from pipelines.streams import StreamKind
from shard_builder.errors import DatasetError
from shard_builder.machine import own_thread

READ_AHEAD_BYTES = 256 << 20
"""Of windows that are asked for or here, unless one batch alone has more."""


@dataclass(eq=False, slots=True, kw_only=True)
class ReadAhead:
    """Passes requests on, the windows of those that come asked for: batches wait, or are held while
    an engine has them in progress.

    Args:
        requests: In the plan's order.
        members: Of the stream, in a store.
        kind: The stream.
        stack_length: Pairs of a window.
        cache: Blocks on this machine's disk.
        is_kept: Tells whether the planes of a row's items are in memory already.
        num_ahead: Batches to ask for before they are needed, within ``READ_AHEAD_BYTES``.
        num_held: Batches that an engine has in progress: so long their windows are kept.
    """

    requests: Generator[BatchRequest, None, None]
    members: RemoteMembers
    kind: StreamKind
    stack_length: int
    cache: RowCache | None
    is_kept: Callable[[int, Sequence[int]], bool]
    num_ahead: int
    num_held: int
    _waiting: deque[tuple[BatchRequest, list[Fetched]]] = field(default_factory=deque, init=False)
    _held: deque[list[Fetched]] = field(default_factory=deque, init=False)
    _num_bytes: int = field(default=0, init=False)

    def iterate(self) -> Generator[BatchRequest, None, None]:
        """Yield requests. To ask for the windows of a batch takes half a millisecond: a thread does
        it while the one before is used.

        Whoever ends a loop before its end closes this: an error that is kept keeps the loop, and
        what was asked for in it would be read by the next one.
        """
        with own_thread("ckshard-ahead", at_end=self._close) as pool:
            while (request := self._next()) is not None:
                filling = pool.submit(self._fill)
                yield request
                filling.result()

    def _fill(self) -> None:
        """Ask for what comes, as much as is allowed.

        Two batches at a time: at the start the answers to all would come at once, and the batch
        that is needed next would wait for the cores beside those that are not.
        """
        self._let_go()
        for _ in range(2):
            is_room = len(self._waiting) < self.num_ahead and self._num_bytes < READ_AHEAD_BYTES
            if not (is_room and self._ask()):
                return

    def _next(self) -> BatchRequest | None:
        """Return the next request; its windows are held from now on."""
        if not self._waiting:
            self._let_go()
            if not self._ask():
                return None
        request, asked = self._waiting.popleft()
        self._held.append(asked)
        return request

    def _close(self) -> None:
        """Let go of everything."""
        self.requests.close()
        for asked in [*self._held, *(asked for _, asked in self._waiting)]:
            self._drop(asked)

    def _ask(self) -> bool:
        """Ask for the windows of one more batch; return whether there is one."""
        if (request := next(self.requests, None)) is None:
            return False
        rows, starts = request.table.rows.tolist(), request.table.starts.tolist()
        asked = []
        if self.cache is not None:
            self.cache.go_to(request.epoch, int(request.table.positions.max()) + 1)
        for row, start in dict.fromkeys(zip(rows, starts, strict=True)):
            num_stored = int(self.members.num_stored[row])
            items = self.kind.window_items(start, num_stored, self.stack_length)
            if self.is_kept(row, items):
                continue
            with suppress(DatasetError):  # a place that cannot be is met when it is read
                asked.append(self.members.ask(row, items, self.cache))
        self._num_bytes += sum(entry.num_bytes for entry in asked)
        self._waiting.append((request, asked))
        return True

    def _let_go(self) -> None:
        while len(self._held) > self.num_held:
            self._drop(self._held.popleft())

    def _drop(self, asked: list[Fetched]) -> None:
        self._num_bytes -= sum(entry.num_bytes for entry in asked)
        self.members.drop(asked)
