"""Threads for requests: a program may end while one of them hangs in a call that cannot end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
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
        self._threads: list[threading.Thread] = []
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
                self._threads.append(
                    threading.Thread(target=self._serve, name=self._name, daemon=True)
                )
                self._threads[-1].start()
        return future

    def has(self, thread: threading.Thread) -> bool:
        """Tell whether a thread is one of these."""
        return thread in self._threads

    def shutdown(self, *, wait: bool) -> None:
        """Cancel what has not begun, and end the threads; ``wait`` for what has."""
        with self._lock:
            self._is_shut = True
        with suppress(Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
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
