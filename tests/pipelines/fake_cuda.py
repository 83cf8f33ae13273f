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
    """Work in its order; it runs when somebody waits for it, or at once if the stream is idle."""

    cuda_stream = 0  # the handle of a GPU's default stream
    is_idle = False

    def __init__(self, device: object = None) -> None:
        self._queue: list[Callable[[], object]] = []
        self.num_done = 0

    def enqueue(self, work: Callable[[], object]) -> None:
        self._queue.append(work)
        if self.is_idle:
            self.synchronize()

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
        free_bytes: What the GPU says it has.
        num_unpinned: Copies that came from memory that is not pinned.
        recorded: Streams that ``record_stream`` was called with.
    """

    clock_s = 0.0

    def __init__(self) -> None:
        self.compute = self.current = FakeStream()
        self.copied_bytes: list[int] = []
        self.num_unpinned = 0
        self.free_bytes = 1 << 30
        self.recorded: list[FakeStream] = []
        self._pinned: list[torch.Tensor] = []
        self._on_gpu: list[torch.Tensor] = []

    def take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the fake in torch's place."""
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "mem_get_info": lambda device: (self.free_bytes, 2 * self.free_bytes),
            "current_stream": lambda device=None: self.current,
            "Stream": FakeStream,
            "Event": FakeEvent,
            "stream": self._use,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch, "empty", self._empty_as(torch.empty))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor.clone()))
        monkeypatch.setattr(torch.Tensor, "to", self._to_as(torch.Tensor.to))
        monkeypatch.setattr(torch.Tensor, "copy_", self._copy_as(torch.Tensor.copy_))
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

    def _is_among(self, tensors: list[torch.Tensor], tensor: torch.Tensor) -> bool:
        address = tensor.untyped_storage().data_ptr()
        return any(other.untyped_storage().data_ptr() == address for other in tensors)

    def _note_copy(self, tensor: torch.Tensor) -> None:
        self.num_unpinned += not self._is_among(self._pinned, tensor)
        self.copied_bytes.append(tensor.nbytes)

    def _empty_as(self, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def empty(*args: Any, pin_memory: bool = False, device: Any = None, **options: Any) -> Any:
            is_on_gpu = device is not None and torch.device(device).type == "cuda"
            tensor = real(*args, **options, device=None if is_on_gpu else device)
            if is_on_gpu:
                self._on_gpu.append(tensor)
            return self._pin(tensor) if pin_memory else tensor

        return empty

    def _to_as(self, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def to(tensor: torch.Tensor, *args: Any, non_blocking: bool = False, **options: Any) -> Any:
            if not args or args[0] != GPU:
                return real(tensor, *args, **options)
            copy = torch.zeros_like(tensor)
            self._on_gpu.append(copy)
            return copy.copy_(tensor, non_blocking=non_blocking)

        return to

    def _copy_as(self, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def copy_(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
            is_upload = self._is_among(self._on_gpu, target)
            if not is_upload or self._is_among(self._on_gpu, source):
                return real(target, source)
            self._note_copy(source)
            self.current.enqueue(lambda: real(target, source))
            if not non_blocking:
                self.current.synchronize()
            return target

        return copy_
