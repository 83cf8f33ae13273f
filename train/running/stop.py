"""SIGTERM, Ctrl-C, a closed terminal and a scheduler's warning become a wish that the loop fulfils
after its step, with a checkpoint.
"""

from __future__ import annotations

import signal
from types import FrameType

from shard_builder.machine import stop_waiting

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
"""SIGHUP: the terminal or ssh session is closed. SIGUSR1: batch schedulers, some time before they
end a job."""


class StopSignal:
    """Remembers the first signal; a second one of Ctrl-C ends at once. A context manager.

    Args:
        ends_waits: Whether the first one ends waiting for a store's answers too. Ranks that wait
            for each other have to end with the same step instead.

    Attributes:
        number: The signal, or None.
    """

    def __init__(self, *, ends_waits: bool = False) -> None:
        self.number: int | None = None
        self._ends_waits = ends_waits
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for name in SIGNALS:
            number = getattr(signal, name, None)  # not every system has all of them
            if number is not None and not self._is_ignored(number):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @staticmethod
    def _is_ignored(number: int) -> bool:
        """Whether nohup or a shell told this process to live on."""
        return number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        is_second = self.number is not None and number == signal.SIGINT
        if is_second or self._ends_waits:
            stop_waiting()
        if is_second:
            raise KeyboardInterrupt
        self.number = number

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the signal, 143 for SIGTERM, 130 for Ctrl-C; 0 for none."""
        return 0 if self.number is None else 128 + self.number
