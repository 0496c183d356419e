"""Ctrl-C and `kill` end a training run between two steps, so that it can be saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal and saved.

    Args:
        signum: The signal's number.
        iteration: The last finished step.
    """

    def __init__(self, signum: int, iteration: int) -> None:
        super().__init__(f"stopped by signal {signum} after iteration {iteration}")
        self.signum = signum
        self.iteration = iteration


class StopRequest:
    """While active, the first SIGINT or SIGTERM only sets `signum`; a second one acts as usual.

    Outside the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
