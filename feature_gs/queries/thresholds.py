"""Thresholds that numbers choose themselves: Otsu's, and the level at which a growing region stands still."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_BINS = 512
_DISTINCT = 0.78  # share of the variance between two groups; of evenly spread numbers it is 0.75
_FEWEST = 20  # numbers that are still split
_LEVELS = 512
_GROWTH = 0.3  # of the logarithm of a region's size: within it, the region stands still
_BURST = 0.05  # how far the level rises while a region bursts
_EVEN = 0.5  # what an interval is worth that ends in no burst, beside the burst's logarithm
_SMALLEST = 8  # nodes of a region
_LARGEST = 0.9  # of all nodes


@dataclass(frozen=True)
class Split:
    """Numbers in two groups.

    Attributes:
        threshold: Between them; the lower group is below it.
        low: Mean of the lower group.
        high: Mean of the upper group.
        separation: Share of the variance that is between the groups, in [0, 1].
    """

    threshold: float
    low: float
    high: float
    separation: float


def otsu(values: Array) -> Split:  # [n]
    """The threshold that leaves the least variance within the two groups (Otsu 1979).

    Args:
        values: Finite numbers; a histogram of 512 bins is looked at. [n]

    Returns:
        The split. Where all numbers are equal, that number is threshold and both means, separation 0.

    Raises:
        ValueError: There is no number.
    """
    if len(values) == 0:
        raise ValueError("there is nothing to split")
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return Split(low, low, low, 0.0)
    counts, edges = np.histogram(values, _BINS, (low, high))
    sums = np.histogram(values, _BINS, (low, high), weights=values.astype(np.float64))[0]
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(sums)[:-1]
    above, sum_above = len(values) - below, sums.sum() - sum_below  # the outer bins are never empty
    gaps = sum_above / above - sum_below / below
    between = below * above * gaps**2 / len(values) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # empty bins between leave it as it is
    chosen = best[len(best) // 2]
    variance = float(values.astype(np.float64).var())
    return Split(
        float(edges[chosen + 1]),
        float(sum_below[chosen] / below[chosen]),
        float(sum_above[chosen] / above[chosen]),
        min(1.0, float(between[chosen]) / variance) if variance > 0 else 0.0,
    )


def nearest_group(distances: Array) -> Split:  # [n]
    """Otsu's threshold, repeated within the lower group while that falls clearly into two groups.

    A single threshold halves what is common and misses an object that is one in a hundred.

    Args:
        distances: From what is looked for. [n]

    Returns:
        The split between the nearest distinct group and the group beside it.

    Raises:
        ValueError: There is no number.
    """
    found = otsu(distances)
    while True:
        nearer = distances[distances < found.threshold]
        if len(nearer) < _FEWEST:
            return found
        split = otsu(nearer)
        if split.separation < _DISTINCT:
            return found
        found = split


def standstill(reached: Array, start: float, heights: Array) -> float:  # [n], [n]
    """The level at which a growing region stands still before it bursts.

    As with maximally stable extremal regions (Matas et al. 2002): a region that floods an object from within
    grows until the object is full, stands still, and bursts into what is around. An interval of levels in
    which its size grows by at most a third counts by its length times the logarithm of how many times larger
    the region is right after it. At the end of all levels it would become everything. Regions of fewer than 8
    nodes or more than nine tenths are left out.

    Args:
        reached: Level at which each node joins the region, inf: never. [n]
        start: Level from which to look, such that the seeds have joined.
        heights: Of the nodes; the level rises as far as nine tenths of them are high. [n]

    Returns:
        The middle of the interval that counts most; nodes that joined below it belong to the region.
    """
    joined = np.sort(reached[np.isfinite(reached)])
    end = float(np.quantile(heights, _LARGEST)) if len(heights) else start
    most = int(_LARGEST * len(reached))
    if most < len(joined):
        end = min(end, float(joined[most]))
    if not end > start:
        return start
    levels = np.linspace(start, end, _LEVELS)
    sizes = np.searchsorted(joined, levels, side="right")
    growth = np.log(np.maximum(sizes, 1))
    stops = np.searchsorted(growth, growth + _GROWTH, side="right") - 1
    after = np.searchsorted(joined, levels[stops] + _BURST, side="right")
    after[stops == _LEVELS - 1] = len(reached)
    bursts = np.log(np.maximum(after, 1)) - growth[stops]
    worth = (stops - np.arange(_LEVELS)) * (_EVEN + bursts) * (1 - sizes / len(reached))
    worth[sizes < min(_SMALLEST, len(joined))] = -1
    first = int(worth.argmax())
    return float((levels[first] + levels[stops[first]]) / 2)
