"""Long work with a bar, several processors, and Ctrl-C."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_TICK = 0.2  # seconds between two looks at how far the work is

T = TypeVar("T")
R = TypeVar("R")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(work: Callable[[T], R], items: Sequence[T], what: str, quiet: bool) -> list[R]:
    """Results of `work` on every photo, in order, on all processors, under a bar."""
    pool = ThreadPoolExecutor(processors())
    try:
        return list(tqdm(pool.map(work, items), what, len(items), unit="photo", ncols=80, disable=quiet))
    finally:
        pool.shutdown(cancel_futures=True)


def watch(
    work: Callable[[], R],
    cancel: Callable[[], None],
    count: Callable[[], int],
    *,
    what: str,
    total: int | None,
    unit: str,
    quiet: bool,
) -> R:
    """Runs `work`, which never returns to Python in between, in a thread, under a bar.

    Args:
        work: What takes long. What it raises is raised here.
        cancel: Makes `work` end soon; called on Ctrl-C, which is raised once it has ended.
        count: How far the work is; asked several times a second.
        what: The bar's name.
        total: Where the count ends; None where nobody knows.
        unit: What is counted.
        quiet: Show no bar.

    Returns:
        What `work` returns.
    """
    results: list[R] = []
    errors: list[BaseException] = []
    ended = (
        threading.Event()
    )  # Thread.join is not to be trusted after Ctrl-C: it may take a live thread for dead

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    with tqdm(None, what, total, unit=unit, ncols=80, disable=quiet) as bar:
        threading.Thread(target=run, daemon=True).start()
        try:
            while not ended.wait(_TICK):
                bar.update(count() - bar.n)
            bar.update(count() - bar.n)
        except KeyboardInterrupt:
            cancel()
            ended.wait()
            raise
    if errors:
        raise errors[0]
    return results[0]
