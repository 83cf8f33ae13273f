"""A GPU made of CPU tensors: streams run what is queued on them as late as is allowed, so what does
not wait as it must sees other values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

GPU = torch.device("cuda", 0)


class FakeStream:
    """Work in its order; it runs when somebody waits for it."""

    cuda_stream = 0  # the handle of a GPU's default stream

    def __init__(self, device: object = None) -> None:
        self._queue: list[Callable[[], object]] = []
        self.num_done = 0

    def enqueue(self, work: Callable[[], object]) -> None:
        self._queue.append(work)

    def run_to(self, position: int) -> None:
        while self.num_done < position:
            work = self._queue[self.num_done]
            self.num_done += 1
            work()

    def wait_event(self, event: FakeEvent) -> None:
        self.enqueue(event.synchronize)

    def synchronize(self) -> None:
        self.run_to(len(self._queue))


class FakeEvent:
    """A place in a stream's queue, with the fake clock's time when the stream got there."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._time_s = 0.0

    def record(self, stream: FakeStream) -> None:
        stream.enqueue(self._note_time)
        self._stream, self._position = stream, len(stream._queue)

    def synchronize(self) -> None:
        self._stream.run_to(self._position)

    def elapsed_time(self, end: FakeEvent) -> float:
        return 1000 * (end._time_s - self._time_s)

    def _note_time(self) -> None:
        self._time_s = FakeCuda.clock_s


class FakeCuda:
    """What a test asks and says about the fake GPU.

    Attributes:
        compute: The stream that is current unless another is made so.
        copied_bytes: Of each copy from host to device, in order.
        num_unpinned: Copies that came from memory that is not pinned.
        recorded: Streams that ``record_stream`` was called with.
    """

    clock_s = 0.0

    def __init__(self) -> None:
        self.compute = self.current = FakeStream()
        self.copied_bytes: list[int] = []
        self.num_unpinned = 0
        self.recorded: list[FakeStream] = []
        self._pinned: list[torch.Tensor] = []

    def take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the fake in torch's place."""
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "current_stream": lambda device=None: self.current,
            "Stream": FakeStream,
            "Event": FakeEvent,
            "stream": self._use,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "empty", self._empty_as(torch.empty))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor.clone()))
        monkeypatch.setattr(torch.Tensor, "to", self._to_as(torch.Tensor.to))
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: self.recorded.append(stream)
        )

    @contextmanager
    def _use(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.append(tensor)  # kept, so that no other tensor gets its address
        return tensor

    def _empty_as(self, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def empty(*args: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
            if options.get("device") == GPU:
                options.pop("device")
            tensor = real(*args, **options)
            return self._pin(tensor) if pin_memory else tensor

        return empty

    def _to_as(self, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def to(tensor: torch.Tensor, *args: Any, non_blocking: bool = False, **options: Any) -> Any:
            if not args or args[0] != GPU:
                return real(tensor, *args, **options)
            storages = {pinned.untyped_storage().data_ptr() for pinned in self._pinned}
            self.num_unpinned += tensor.untyped_storage().data_ptr() not in storages
            self.copied_bytes.append(tensor.nbytes)
            copy = torch.zeros_like(tensor)
            self.current.enqueue(lambda: copy.copy_(tensor))
            if not non_blocking:
                self.current.synchronize()
            return copy

        return to
