"""Threads for requests: a program may end while one of them hangs in a call that cannot end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class DaemonPool:
    """An executor whose threads do not keep the interpreter alive, unlike the standard library's.

    Args:
        num_threads: At most; each begins with a call.
        name: Of the threads.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._num_threads, self._name = num_threads, name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: dict[threading.Thread, Future[None]] = {}
        self._lock, self._is_shut = threading.Lock(), False

    def submit(self, function: Callable[..., Result], *args: Any) -> Future[Result]:
        """Call a function in one of the threads.

        Raises:
            RuntimeError: After :meth:`shutdown`.
        """
        future: Future[Result] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("the dataset is closed")
            self._calls.put((future, partial(function, *args)))
            if len(self._threads) < self._num_threads:
                end: Future[None] = Future()
                thread = threading.Thread(
                    target=self._serve, args=(end,), name=self._name, daemon=True
                )
                self._threads[thread] = end
                thread.start()
        return future

    def has(self, thread: threading.Thread) -> bool:
        """Tell whether a thread is one of these."""
        return thread in self._threads

    def shutdown(self, *, unless: Future[None]) -> None:
        """Cancel what has not begun, end the threads, and wait for what they do, ``unless`` that
        future is done, now or meanwhile.
        """
        with self._lock:
            self._is_shut = True
        with suppress(Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread, end in self._threads.items():
            if thread.is_alive():
                wait((end, unless), return_when=FIRST_COMPLETED)

    def _serve(self, end: Future[None]) -> None:
        while call := self._calls.get():
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del call, future, function
        end.set_result(None)
