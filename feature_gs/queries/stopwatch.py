"""Where the time of a query goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds by stage and view, each the median of several rounds."""

    def __init__(self) -> None:
        self._current: dict[str, float] = {}
        self._rounds: list[dict[str, float]] = []
        self._views: list[dict[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of its body for a stage of the current round."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._current[name] = self._current.get(name, 0.0) + time.perf_counter() - started

    def end_round(self) -> None:
        """Ends a round of the current view."""
        self._rounds.append(self._current)
        self._current = {}

    def end_view(self, *, warm_up: bool) -> None:
        """Ends a view of one round or more, of which the first may be a warm-up that does not count."""
        rounds = self._rounds[1:] if warm_up and len(self._rounds) > 1 else self._rounds
        names = dict.fromkeys(name for one in rounds for name in one)
        self._views.append({name: median(one.get(name, 0.0) for one in rounds) for name in names})
        self._rounds = []

    def stages(self) -> dict[str, tuple[float, float]]:
        """For each stage the median of a view, and the sum over all views. Seconds."""
        names = dict.fromkeys(name for view in self._views for name in view)
        return {
            name: (
                median(view.get(name, 0.0) for view in self._views),
                sum(view.get(name, 0.0) for view in self._views),
            )
            for name in names
        }
