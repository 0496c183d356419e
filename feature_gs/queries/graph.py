"""Who is beside whom: Gaussians in space, cells of a map; and how a region floods from seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree

from feature_gs.gaussians import GaussianModel

Array = NDArray[np.floating]
Indices = NDArray[np.integer]
Mask = NDArray[np.bool_]

_NEIGHBOURS = 16
_SOLID = 0.05  # opacity from which a Gaussian connects others
_REACH = 2.0  # times the sum of two Gaussians' largest standard deviations


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and undirected edges, and nodes that only follow others.

    Attributes:
        first: One end of each edge. [E]
        second: The other end. [E]
        leader: The node that each node follows; itself where it takes part in edges. [n]
    """

    first: Indices
    second: Indices
    leader: Indices

    def __len__(self) -> int:
        return len(self.leader)

    def flooded(self, heights: Array, seeds: Indices) -> Array:  # [n], [s] -> [n]
        """The level at which a flood that rises from the seeds reaches each node.

        That is the lowest possible highest point of a way from a seed, both ends included. Found along a
        minimum spanning tree, which holds such a way for every node.

        Args:
            heights: Of the nodes, >= 0. [n]
            seeds: Where the flood rises. [s]

        Returns:
            Levels, inf where no way leads; nodes that follow others get their leaders'. [n]
        """
        count = len(self)
        seeds = np.unique(self.leader[seeds])
        # The seeds hang on one more node, the source. Costs are above 0, as a zero would be no edge.
        first = np.concatenate([self.first, np.full(len(seeds), count)])
        second = np.concatenate([self.second, seeds])
        lifted = np.append(np.asarray(heights, dtype=np.float64), 0.0) + 1.0
        costs = np.maximum(lifted[first], lifted[second])
        tree = minimum_spanning_tree(_lowest(first, second, costs, count + 1))
        order, before = breadth_first_order(tree, count, directed=False)
        parents = np.full(count + 1, count)
        parents[order[1:]] = before[order[1:]]
        levels = np.full(count + 1, np.inf)
        levels[order] = np.maximum(lifted[order], lifted[parents[order]])
        reached = np.zeros(count + 1, dtype=bool)
        reached[order] = True
        while True:  # every round looks twice as far up the tree
            levels[reached] = np.maximum(levels, levels[parents])[reached]
            if (parents[reached] == count).all():
                break
            parents = parents[parents]
        return (levels[:count] - 1.0)[self.leader]

    def distances(self, lengths: Array, seeds: Indices) -> Array:  # [E], [s] -> [n]
        """The length of the shortest way from a seed to each node; inf where there is none.

        Args:
            lengths: Of the edges, > 0. [E]
            seeds: Where ways begin. [s]

        Returns:
            Lengths; nodes that follow others get their leaders'. [n]
        """
        count = len(self)
        matrix = _lowest(self.first, self.second, np.asarray(lengths, dtype=np.float64), count)
        found = dijkstra(matrix, directed=False, indices=np.unique(self.leader[seeds]), min_only=True)
        return np.asarray(found)[self.leader]

    def components(self, inside: Mask) -> Indices:  # [n] -> [n]
        """Connected parts of some nodes, numbered from 0; -1 outside. Followers count with their leaders."""
        inside = inside & inside[self.leader]
        kept = inside[self.first] & inside[self.second]
        ones = np.ones(int(kept.sum()), dtype=np.int8)
        matrix = coo_matrix((ones, (self.first[kept], self.second[kept])), shape=(len(self), len(self)))
        labels = connected_components(matrix, directed=False)[1][self.leader]
        labels[~inside] = -1
        names, numbered = np.unique(labels, return_inverse=True)
        return np.asarray(numbered - int(names[0] == -1))

    def widened(self, inside: Mask) -> Mask:  # [n] -> [n]
        """Some nodes with their neighbours, and those that follow one of them."""
        wide = inside.copy()
        wide[self.second[inside[self.first]]] = True
        wide[self.first[inside[self.second]]] = True
        return inside | wide[self.leader]

    def cores(self, inside: Mask) -> tuple[Mask, Mask]:  # [n] -> [n], [n]
        """Nodes inside that have only such neighbours, and nodes outside that have only those outside."""
        own = self.leader == np.arange(len(self))
        differ = inside[self.first] != inside[self.second]
        border = np.zeros(len(self), dtype=bool)
        border[self.first[differ]] = True
        border[self.second[differ]] = True
        return inside & own & ~border, ~inside & own & ~border


def gaussian_graph(model: GaussianModel, seen: Mask) -> Graph:  # [N]
    """Gaussians beside each other: each with its 16 nearest, as far as their extents meet.

    Faint Gaussians, and those that no view shows, do not connect others; they follow the nearest one.

    Args:
        model: N Gaussians.
        seen: Whether a view shows them. [N]

    Returns:
        The graph of N nodes.
    """
    means = model.means.detach().cpu().double().numpy()
    solid = seen & (model.opacities.detach().cpu().numpy() >= _SOLID) & np.isfinite(means).all(1)
    leader = np.arange(len(means))
    chosen = np.flatnonzero(solid)
    if len(chosen) < 2:
        nobody = np.empty(0, dtype=np.int64)
        return Graph(nobody, nobody, leader)
    tree = cKDTree(means[chosen])
    distances, nearest = tree.query(means[chosen], k=min(_NEIGHBOURS + 1, len(chosen)), workers=-1)
    radii = model.scales.detach().cpu().numpy().max(1)[chosen]
    near = distances <= _REACH * (radii[:, None] + radii[nearest])
    near &= nearest != np.arange(len(chosen))[:, None]
    first, place = np.nonzero(near)
    others = np.flatnonzero(~solid & np.isfinite(means).all(1))
    leader[others] = chosen[tree.query(means[others], workers=-1)[1]]
    return Graph(chosen[first], chosen[nearest[first, place]], leader)


def grid_graph(rows: int, columns: int) -> Graph:
    """The cells of a map, each with the eight around it."""
    numbers = np.arange(rows * columns).reshape(rows, columns)
    pairs = [
        (numbers[:, :-1], numbers[:, 1:]),
        (numbers[:-1], numbers[1:]),
        (numbers[:-1, :-1], numbers[1:, 1:]),
        (numbers[:-1, 1:], numbers[1:, :-1]),
    ]
    first, second = (np.concatenate([pair[end].ravel() for pair in pairs]) for end in (0, 1))
    return Graph(first, second, numbers.ravel())


def _lowest(first: Indices, second: Indices, costs: Array, count: int) -> coo_matrix:
    """A symmetric matrix of edges, each pair once, with its cost."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    keep = np.unique(low.astype(np.int64) * count + high, return_index=True)[1]
    return coo_matrix((costs[keep], (low[keep], high[keep])), shape=(count, count)).tocsr()
