"""One dataset's objects in a store: requests with retries, lengths checked, all of them counted."""

from __future__ import annotations

import importlib.util
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_any
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from shard_builder.cloud.faults import RequestFault, fault_of
from shard_builder.cloud.pool import DaemonPool
from shard_builder.errors import DatasetError, InputError, RangeError, StoreError
from shard_builder.machine import stop_at_interrupt

NUM_REQUESTS = 64
"""In flight at once; at 20 ms each, that is 3,000 a second."""
MOST_TRIES = 9
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5, 30
NUM_LATENCIES = 4096
Result = TypeVar("Result")
_used_in: list[int] = []
"""The process that has begun requests; after a fork the client's threads are not in the copy."""


class Store:
    """The objects below an address.

    Args:
        address: As :func:`shard_builder.cloud.address.address_of` writes it.
        timeout_s: Of one request.

    Attributes:
        address: As given.
        total_wait_s: Seconds that threads have waited for ranges.
        last_figures: What :meth:`take_figures` returned last.

    Raises:
        InputError: If obstore is not installed, or does not take the address.
    """

    def __init__(self, address: str, *, timeout_s: int = REQUEST_TIMEOUT_S) -> None:
        if importlib.util.find_spec("obstore") is None:
            raise InputError(
                f"{address}: reading from a store needs obstore\n"
                "  Install it: pip install 'ckshard[cloud]'"
            )
        self.address = address
        self._check_process()
        self._store: Any = _open(address, timeout_s)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pool = DaemonPool(NUM_REQUESTS, "ckshard-store")
        self._stopped: Future[None] = Future()
        self._num_requests = self._num_bytes = self._num_retries = 0
        self._latencies: deque[float] = deque(maxlen=NUM_LATENCIES)
        self._since, self._wait_s = time.monotonic(), 0.0
        self.total_wait_s = 0.0
        self.last_figures: dict[str, float] = {}
        stop_at_interrupt(self)

    def close(self) -> None:
        """End: what waits is cancelled, what is in flight ends with its request, unless
        :meth:`stop` says that nobody waits for that.
        """
        self._closed.set()
        if _used_in == [os.getpid()]:
            self._pool.shutdown(unless=self._stopped)

    def stop(self) -> None:
        """Let everyone who waits for an answer, now or later, get an error at once."""
        self._closed.set()
        if self._stopped.set_running_or_notify_cancel():
            self._stopped.set_result(None)

    def submit(self, function: Callable[..., Result], *args: Any) -> Future[Result]:
        """Call a function that makes requests, in a thread of this store."""
        self._check_process()
        return self._pool.submit(function, *args)

    def get_range(self, name: str, begin: int, end: int) -> Any:
        """Return the bytes of an object from ``begin`` to before ``end``, as a read-only buffer.

        Raises:
            StoreError: If the request fails again and again, or may not be made.
            DatasetError: If there is no such object.
        """
        import obstore

        def ask() -> Any:
            return obstore.get_range(self._store, name, start=begin, end=end)

        return self._ask(ask, f"{name}, bytes {begin} to {end}", num_bytes=end - begin)

    def get(self, name: str, *, most_bytes: int) -> bytes:
        """Return a whole small object.

        Raises:
            StoreError: If the request fails again and again, or may not be made.
            DatasetError: If there is no such object, or it is larger than ``most_bytes``.
        """
        import obstore

        def ask() -> bytes:
            answer = obstore.get(self._store, name)
            if answer.meta["size"] > most_bytes:
                raise DatasetError(
                    f"{self.address}/{name}: {answer.meta['size']} bytes, expected at most"
                    f" {most_bytes}"
                )
            return bytes(answer.bytes())

        data: bytes = self._ask(ask, name)
        return data

    def head(self, name: str) -> tuple[int, str | None] | None:
        """Return size and ETag of an object; None if there is none.

        Raises:
            StoreError: If the request fails again and again, or may not be made.
        """
        import obstore

        def ask() -> Any:
            try:
                meta = obstore.head(self._store, name)
            except FileNotFoundError:
                return b""
            return (int(meta["size"]), meta["e_tag"])

        return self._ask(ask, name) or None

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all.

        Raises:
            StoreError: If the request fails again and again, or may not be made.
        """
        import obstore

        def ask() -> bytes:
            obstore.put(self._store, name, data, use_multipart=False)
            return data

        self._ask(ask, name)

    def wait_for(self, data: Future[Result]) -> Result:
        """Return what was asked for; the time that it is waited for is noted."""
        if data.done():
            return data.result()
        begin = time.monotonic()
        result = self._answer_of(data)
        with self._lock:
            self._wait_s += time.monotonic() - begin
            self.total_wait_s += time.monotonic() - begin
        return result

    def _answer_of(self, data: Future[Result]) -> Result:
        """Wait for a thread of this store; a call of the client itself cannot be interrupted."""
        either: tuple[Future[Any], Future[Any]] = (data, self._stopped)
        wait_for_any(either, return_when=FIRST_COMPLETED)
        if not data.done():
            raise StoreError(f"{self.address}: interrupted while it was waited for")
        return data.result()

    def note_retry(self) -> None:
        """Count a range that was asked for again because its bytes were wrong."""
        with self._lock:
            self._num_retries += 1

    def take_figures(self) -> dict[str, float]:
        """Return requests, MB/s, latencies, retries, and the seconds that all threads waited for a
        range, since the last call.
        """
        with self._lock:
            now, latencies = time.monotonic(), sorted(self._latencies)
            seconds = max(now - self._since, 1e-9)

            def quantile(part: float) -> float:
                place = min(int(part * len(latencies)), len(latencies) - 1)
                return round(1000 * latencies[place], 3) if latencies else 0.0

            figures = {
                "store_requests": self._num_requests,
                "store_mb_per_s": round(self._num_bytes / seconds / 1e6, 3),
                "store_p50_ms": quantile(0.5),
                "store_p99_ms": quantile(0.99),
                "store_retries": self._num_retries,
                "store_wait_s": round(self._wait_s, 3),
            }
            self._num_requests = self._num_bytes = self._num_retries = 0
            self._latencies.clear()
            self._since, self._wait_s = now, 0.0
            self.last_figures = figures
        return figures

    def _ask(self, ask: Callable[[], Any], what: str, *, num_bytes: int | None = None) -> Any:
        """Make a request, again where that may help.

        Raises:
            StoreError: If it fails again and again, or may not be made.
            DatasetError: If there is no such object.
        """
        self._check_process()
        if not _used_in:
            _used_in.append(os.getpid())
        if not self._pool.has(threading.current_thread()):
            asked = self.submit(partial(self._ask, ask, what, num_bytes=num_bytes))
            return self._answer_of(asked)
        for number in range(1, MOST_TRIES + 1):
            begin = time.monotonic()
            try:
                data = ask()
                if num_bytes is None or len(data) == num_bytes:
                    self._note(len(data), time.monotonic() - begin)
                    return data
                what_came = f"it answered {len(data)} of {num_bytes} bytes"
                fault = RequestFault(what_came, helps=True, kind=RangeError)
            except DatasetError:
                raise
            except Exception as error:  # noqa: BLE001 - obstore's kinds have no common base
                fault = fault_of(error)
            if not fault.helps or number == MOST_TRIES or self._closed.is_set():
                break
            self.note_retry()
            pause = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
            self._closed.wait(pause * (0.5 + random.random()))
        tries = f" ({number} tries)" if number > 1 else ""
        raise fault.kind(f"{self.address}/{what}: {fault.what}{tries}") from None

    def _note(self, num_bytes: int, seconds: float) -> None:
        with self._lock:
            self._num_requests += 1
            self._num_bytes += num_bytes
            self._latencies.append(seconds)

    def _check_process(self) -> None:
        if _used_in and _used_in != [os.getpid()]:
            raise InputError(
                f"{self.address}: this process was forked from one that reads from a store, in"
                " which requests never end\n  Start it by spawn, or open the dataset after the"
                " fork only."
            )


def _open(address: str, timeout_s: int) -> Any:
    """Open a store by its client's own conventions; the retries are ours, so that they count."""
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {"connect_timeout": f"{CONNECT_TIMEOUT_S}s", "timeout": f"{timeout_s}s"},
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=60)},
    }
    # Options that are given take the place of the environment's: this one has to be passed on.
    allowed = (os.environ.get(f"{name}_ALLOW_HTTP", "") for name in ("AWS", "AZURE", "GOOGLE"))
    if address.startswith("http:") or any(value.lower() in ("1", "true") for value in allowed):
        options["client_options"]["allow_http"] = True
    if address.startswith("s3:") and "AWS_PROFILE" in os.environ:
        options["credential_provider"] = _profile(address)
    try:
        return from_url(address, **options)
    except Exception as error:  # noqa: BLE001 - obstore's kinds have no common base
        # Its text may quote values of the environment.
        raise InputError(
            f"{address}: no store can be opened there ({type(error).__name__})\n"
            "  Look at the address and at the environment's AWS_, GOOGLE_ or AZURE_ variables."
        ) from None


def _profile(address: str) -> Any:
    """Return what gives the credentials of the profile that AWS_PROFILE names."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except ImportError:
        raise InputError(
            f"{address}: AWS_PROFILE is set, which needs boto3\n"
            "  Install it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from None
