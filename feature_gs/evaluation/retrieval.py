"""How well features find an object again: N3F's retrieval measure.

In one frame an object is marked; the mean of its unit features is the query. Every cell of every other frame
is scored by its nearness to the query, and the ranking is judged against the labels by average precision.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def average_precision(scores: NDArray[np.floating], positives: NDArray[np.bool_]) -> float:  # [n], [n]
    """Area under the precision-recall steps, sum of (R_i - R_(i-1)) P_i over falling thresholds.

    Equal scores share one threshold, so their order does not matter.

    Args:
        scores: Higher means more likely positive. [n]
        positives: What is truly positive. [n]

    Returns:
        0 to 1.

    Raises:
        ValueError: Nothing is positive: then there is no precision to average.
    """
    if not positives.any():
        raise ValueError("average precision needs at least one positive")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # the last of each run of equal scores
    found = np.cumsum(positives[order])[last]
    precision = found / (np.flatnonzero(last) + 1)
    recall = found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def retrieval_map(
    maps: Sequence[Tensor],
    labels: Sequence[Tensor],
    queries: Iterable[int] | None = None,
    objects: Iterable[int] | None = None,
) -> float:
    """Mean average precision of finding every object again, from each query frame in every other frame.

    The distance is that of unit vectors, sqrt(2 - 2 cos), and cells are ranked by its negative, which is the
    order of the cosines; a cell without a feature (all zeros) has cosine 0. Frames that do not show an object
    are left out for it. Averaged over the other frames, then over the query frames, then over the objects.

    Args:
        maps: One map per frame. [h, w, C]
        labels: Object ids of the maps' cells; cells below 0 are neither queried nor ranked. [h, w]
        queries: Indices of the frames to query from; None: all.
        objects: Ids of the objects to look for; None: every id that occurs.

    Returns:
        0 to 1.

    Raises:
        ValueError: Shapes do not fit, or no object is seen in a query frame and another one.
    """
    if [features.shape[:2] for features in maps] != [ids.shape for ids in labels]:
        raise ValueError("each map [h, w, C] needs labels [h, w]")
    frames = [_unit_cells(*frame) for frame in zip(maps, labels, strict=True)]
    wanted = sorted(set().union(*(ids.unique().tolist() for _, ids in frames)))
    chosen = range(len(frames)) if queries is None else list(queries)
    per_object = []
    for label in wanted if objects is None else objects:
        per_query = [_one_query(frames, label, query) for query in chosen]
        seen = [value for value in per_query if value is not None]
        if seen:
            per_object.append(sum(seen) / len(seen))
    if not per_object:
        raise ValueError("no object is seen both in a query frame and in another frame")
    return sum(per_object) / len(per_object)


def _unit_cells(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features [n, C] and ids [n] of the cells that count."""
    counts = labels.cpu() >= 0
    return F.normalize(features.detach().cpu().float()[counts], dim=1), labels.cpu()[counts]


def _one_query(frames: Sequence[tuple[Tensor, Tensor]], label: int, query: int) -> float | None:
    """Mean over the other frames; None where this one or all the others do not show the object."""
    features, ids = frames[query]
    if not (ids == label).any():
        return None
    direction = F.normalize(features[ids == label].mean(dim=0), dim=0)
    precisions = [
        average_precision(torch.mv(cells, direction).numpy(), (others == label).numpy())
        for index, (cells, others) in enumerate(frames)
        if index != query and (others == label).any()
    ]
    return sum(precisions) / len(precisions) if precisions else None
