"""From host to device without waiting: pinned memory, and for pixels a stream of their own."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a small host tensor on a device; the host does not wait for the copy.

    torch keeps the pinned copy until the device has read it, so the tensor may be written again.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class Upload:
    """A copy to a GPU in progress, beside what is computed there.

    Args:
        pinned: What is copied; it must stay as it is until :meth:`wait` returns.
        device: Where to.
        stream: A stream on which nothing is computed.
    """

    def __init__(
        self, pinned: torch.Tensor, device: torch.device, stream: torch.cuda.Stream
    ) -> None:
        with torch.cuda.stream(stream):
            self._copy: torch.Tensor | None = pinned.to(device, non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record(stream)

    def take(self) -> torch.Tensor:
        """Return the copy; what is queued on the current stream from now on runs after it."""
        copy, self._copy = self._copy, None
        assert copy is not None
        current = torch.cuda.current_stream(copy.device)
        current.wait_event(self._done)
        # Its memory belongs to the copying stream, which must not use it again before this one has.
        copy.record_stream(current)
        return copy

    def wait(self) -> None:
        """Return when the host memory may be written again."""
        self._done.synchronize()
