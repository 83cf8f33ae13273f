"""SIGTERM and Ctrl-C become a wish that the loop fulfils after its step, with a checkpoint."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Remembers the first signal; a second one of Ctrl-C ends at once. A context manager.

    Attributes:
        number: The signal, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the signal: 143 for SIGTERM, 130 for Ctrl-C, 0 for none."""
        return 0 if self.number is None else 128 + self.number
