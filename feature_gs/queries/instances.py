"""Everything at once: Gaussians that look alike and hang together, thing by thing, without a prompt.

As SAM asks itself at the points of a grid, the scene is asked at Gaussians: at the one that agrees best with
its neighbours among those that belong to nothing yet. All things found then compete for every Gaussian.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from feature_gs.queries.graph import Graph
from feature_gs.queries.growing import Nodes
from feature_gs.queries.similarity import cosines, distance_of, mean_direction
from feature_gs.queries.thresholds import standstill

Indices = NDArray[np.integer]
Mask = NDArray[np.bool_]

_QUESTIONS = 256
_SMALLEST = 20  # nodes of a thing
_OWN = 0.5  # share of a region that must be new
_SLIVER = 0.01  # of all nodes: a smaller rest of a region that is not new is asked no more
_SAMPLES = 4096  # nodes of a thing that teach what it looks like
_RIDGE = 1e-2  # of the mean variance of a channel


def find_instances(nodes: Nodes, watch: Callable[[Sequence[int]], Iterable[int]] = iter) -> Tensor:
    """The things of a scene and how much each node belongs to them.

    Args:
        nodes: Gaussians or cells.
        watch: Called with the numbers of the questions, e.g. to show a progress bar.

    Returns:
        Shares of K things, those of most nodes first; each in [0, 1]. [n, K] float32
    """
    regions = _regions(nodes, watch)
    if not regions:
        return torch.zeros(len(nodes.graph), 0)
    shares = _compete(nodes, regions)
    order = (shares > 0.5).sum(dim=0).argsort(descending=True, stable=True)
    return shares[:, order]


def _regions(nodes: Nodes, watch: Callable[[Sequence[int]], Iterable[int]]) -> list[Mask]:
    """What is found by asking at one node after the other; they overlap little. [n] each"""
    count = len(nodes.graph)
    first, second = nodes.graph.first, nodes.graph.second
    disagreement = _disagreement(nodes)
    unknown, taken = np.isfinite(disagreement), np.zeros(count, dtype=bool)
    regions: list[Mask] = []
    for _ in watch(range(_QUESTIONS)):
        if unknown.sum() < _SMALLEST:
            break
        seed = int(np.where(unknown, disagreement, np.inf).argmin())
        beside = np.append(np.concatenate([second[first == seed], first[second == seed]]), seed)
        unknown[beside] = False
        region = _region_of(nodes, seed, beside)
        new = region & ~taken
        if new.sum() >= max(_SMALLEST, _OWN * region.sum()):
            regions.append(region)
            taken |= region
            unknown &= ~region
        elif new.sum() < _SLIVER * count:
            unknown &= ~new
    return regions


def _region_of(nodes: Nodes, seed: int, beside: Indices) -> Mask:
    """What floods from a node through nodes that look like it and its neighbours."""
    weights = torch.zeros(len(nodes.graph))
    weights[torch.from_numpy(beside)] = 1
    direction = mean_direction(nodes.features, weights.to(nodes.features.device), nodes.decoder)
    cosine = cosines(nodes.features, direction[None], nodes.decoder)[:, 0]
    heights = distance_of(cosine).cpu().double().numpy()
    levels = nodes.graph.flooded(heights, np.array([seed]))
    return np.asarray(levels <= standstill(levels, float(heights[seed]), heights))


def _disagreement(nodes: Nodes) -> NDArray[np.float64]:
    """Mean squared distance of each node's feature from its neighbours'; inf where there is none. [n]"""
    first, second = nodes.graph.first, nodes.graph.second
    totals = np.zeros(len(nodes.graph))
    for some in np.array_split(np.arange(len(first)), max(1, len(first) * nodes.features.shape[1] >> 24)):
        ends = [torch.from_numpy(end[some]).to(nodes.features.device) for end in (first, second)]
        apart = nodes.features[ends[0]] - nodes.features[ends[1]]
        squares = apart.float().square().sum(dim=1).cpu().double().numpy()
        for end in (first, second):
            totals += np.bincount(end[some], squares, minlength=len(totals))
    counts = np.bincount(np.concatenate([first, second]), minlength=len(totals))
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)


def _compete(nodes: Nodes, regions: Sequence[Mask]) -> Tensor:
    """Ridge regression onto the things, taught by their cores; each node goes to the likeliest it touches."""
    rows = []
    for region in regions:
        core = nodes.graph.cores(region)[0]
        chosen = np.flatnonzero(core if core.sum() >= _SMALLEST // 2 else region)
        places = torch.from_numpy(chosen[:: -(-len(chosen) // _SAMPLES)]).to(nodes.features.device)
        rows.append(nodes.features[places].float())
    means = torch.stack([row.mean(dim=0) for row in rows])
    middle = means.mean(dim=0)
    covariance = middle.new_zeros(len(middle), len(middle))
    for row in rows:
        apart = row - middle
        covariance.addmm_(apart.t(), apart, alpha=1 / (len(row) * len(rows)))
    covariance.diagonal().add_(_RIDGE * covariance.diagonal().mean().clamp_min(1e-20))
    directions = torch.linalg.solve(covariance.double(), (means - middle).t().double()).to(middle.dtype)
    likeness = (nodes.features.float() - middle) @ directions / len(rows) + 1 / len(rows)
    likeness = likeness.cpu()
    touched = likeness * _touching(nodes.graph, regions)
    best = touched.amax(dim=1, keepdim=True)
    shares = torch.where((touched == best) & (best > 0), 1.0, 0.0)
    # What hangs together with nothing belongs to the nearest thing, if it looks like it.
    alone = (shares.sum(dim=1) == 0).numpy()
    if alone.any() and not alone.all():
        nearest = cKDTree(nodes.places[~alone]).query(nodes.places[alone], workers=-1)[1]
        beside = shares[~torch.from_numpy(alone)][torch.from_numpy(nearest)]
        shares[torch.from_numpy(alone)] = beside * (likeness[torch.from_numpy(alone)] > 0.5)
    return shares


def _touching(graph: Graph, regions: Sequence[Mask]) -> Tensor:
    """Whether a node is in a region or right beside it. [n, K] float32"""
    return torch.stack([torch.from_numpy(graph.widened(region)) for region in regions], dim=1).float()
