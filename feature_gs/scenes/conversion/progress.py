"""Work on many photos, on all processors, under a bar."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

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
