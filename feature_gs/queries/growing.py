"""From a few places to the whole thing: regions that grow through features that are alike.

The same is done with the Gaussians of a scene and with the cells of one map. A region floods from the seeds
through neighbours that resemble them; where it stands still, the thing is full. What lies well inside and
well outside then teaches a linear discriminant, which decides at the border: a Gaussian or cell whose feature
is a mixture of thing and surroundings counts for the share of the thing in it, so borders are not shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_gs.features.decoders import Decoder
from feature_gs.queries.graph import Graph
from feature_gs.queries.similarity import common_direction, cosines, distance_of
from feature_gs.queries.thresholds import standstill

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

_SEEDS = 3  # nodes under a point from which a region grows
_SAMPLES = 8192  # of each side that teach the discriminant
_FEWEST = 8  # of each side
_RIDGE = 1e-2  # of the mean variance of a channel
_ROUNDS = 4  # of a box: look, parts, and again
_HIDDEN = 0.05  # of the visible area that a visible node usually has; with less it is hidden
_HELD = 0.8  # share of a part that is in its box
_LEAST = 0.03  # share of a box that a thing fills
_BESIDE = 0.2  # share of the largest part that another one needs
_PRIOR = 4.0  # weight of the features beside a mask's votes, pixels
_ALIKE = 0.3  # difference of squared distances up to which a node resembles both of two floods' seeds
_STRANGE = 20.0  # how much longer a way is where that difference is 1
_TOUCHING = 1e-9  # length of the way between nodes at one place


@dataclass(frozen=True, eq=False)
class Nodes:
    """What has features and neighbours: Gaussians, or the cells of a map.

    Attributes:
        features: As they are carried. [n, c] float32
        decoder: To the teacher's space, node by node; None: the features are there already.
        graph: Who is beside whom.
        places: Positions, for ties between equal features. [n, d] float64
    """

    features: Tensor
    decoder: Decoder | None
    graph: Graph
    places: Array


def grow_from_points(nodes: Nodes, positives: Sequence[Tensor], negatives: Sequence[Tensor] = ()) -> Tensor:
    """The thing that is at some points and not at others.

    Args:
        nodes: Gaussians or cells.
        positives: For each point how much of each node is there, >= 0. [n] each
        negatives: The same for points that do not belong to it. [n] each

    Returns:
        How much each node belongs to the thing, in [0, 1]. [n] float32

    Raises:
        UserError: The decoder is conv3x3, which does not decode single Gaussians.
    """
    wanted = _Flood.of(nodes, positives)
    forbidden = np.zeros(len(wanted.levels), dtype=bool)
    if negatives:
        forbidden = wanted.lost_to(_Flood.of(nodes, negatives), nodes.graph, nodes.places)
        forbidden[wanted.seeds] = False
    level = standstill(wanted.levels[~forbidden], wanted.start, wanted.heights[~forbidden])
    inside = ~forbidden & (wanted.levels <= level)
    scores = _discriminate(nodes, *nodes.graph.cores(inside), inside)
    near = nodes.graph.widened(nodes.graph.widened(inside))  # as far as features of the border are mixtures
    scores[forbidden | ~near] = 0
    scores[wanted.seeds] = 1
    return _connected(nodes.graph, scores, wanted.seeds)


def grow_from_mask(nodes: Nodes, inside: Tensor, outside: Tensor) -> Tensor:  # [n], [n]
    """The thing that a mask of one view shows; nodes that the view does not show join by look.

    Args:
        nodes: Gaussians or cells.
        inside: How much of each node the view shows inside the mask, pixels, >= 0. [n]
        outside: How much of it outside. [n]

    Returns:
        How much each node belongs to the thing, in [0, 1]. [n] float32
    """
    within, around = (part.cpu().double().numpy() for part in (inside, outside))
    thing, rest = within > around, (within <= around) & (around > 0)
    like = _discriminate(nodes, thing, rest, thing, within + around)
    scores = (within + _PRIOR * like) / (within + around + _PRIOR)
    return _connected(nodes.graph, scores, _main_parts(nodes.graph, thing, within))


def grow_from_box(
    nodes: Nodes,
    inside: Tensor,  # [n]
    around: Tensor,  # [n]
    beyond: Tensor,  # [n]
) -> Tensor:
    """The thing that a box of one view holds; nodes that the view does not show join by look.

    What looks more like the box's content than like what is around it, and hangs together, is the thing if
    little of it is outside. Its look is then learned anew, without the box's other contents. Where there is
    no such thing, all that the box shows is the answer.

    Args:
        nodes: Gaussians or cells.
        inside: How much of each node the view shows in the box, pixels, >= 0. [n]
        around: How much of it next to the box. [n]
        beyond: How much of it elsewhere. [n]

    Returns:
        How much each node belongs to the thing, in [0, 1]. [n] float32
    """
    within, ring, far = (part.cpu().double().numpy() for part in (inside, around, beyond))
    shown = within + ring + far
    visible = shown > _HIDDEN * (shown @ shown) / max(shown.sum(), 1e-12)
    held = visible & (within > ring + far)
    thing, rest = held, visible & ~held & (ring > 0)
    for _ in range(_ROUNDS):
        # Pixels count as many as they are: what is on both sides belongs to the larger one, outside.
        odds = _discriminate(nodes, thing, rest, held, shown, balanced=False)
        parts = nodes.graph.components((odds > 0.5) & visible)
        found = held & _enclosed(parts, within, shown)
        if within[found].sum() < _LEAST * within[held].sum():  # all looks like the surroundings
            return torch.from_numpy(np.where(held, within / np.maximum(shown, 1e-12), 0.0)).float()
        thing, rest = found, visible & ((ring > 0) | held) & ~found
    like = _discriminate(nodes, thing, rest, thing, shown)
    scores = np.where(visible & ~held, 0.0, like)
    return _connected(nodes.graph, scores, _main_parts(nodes.graph, thing, within))


def _enclosed(parts: NDArray[np.integer], within: Array, shown: Array) -> Mask:
    """Nodes of parts that are nearly all within, or of the part that is most so. Small parts do not count."""
    labelled = parts >= 0
    if not labelled.any():
        return labelled
    held = np.bincount(parts[labelled], within[labelled])
    share = held / np.maximum(np.bincount(parts[labelled], shown[labelled]), 1e-12)
    share[held < _BESIDE * held.max()] = 0
    return np.isin(parts, np.flatnonzero(share >= min(_HELD, share.max())))


@dataclass(frozen=True, eq=False)
class _Flood:
    """A flood through what resembles the seeds.

    Attributes:
        seeds: Where it rises. [s]
        start: The level at which all seeds are flooded.
        heights: How little each node resembles the seeds: distance of unit features. [n]
        levels: When it reaches each node. [n]
    """

    seeds: NDArray[np.integer]
    start: float
    heights: Array
    levels: Array

    @classmethod
    def of(cls, nodes: Nodes, points: Sequence[Tensor]) -> "_Flood":
        directions, seeds = [], []
        for weights in points:
            direction, kept = common_direction(nodes.features, weights, nodes.decoder)
            directions.append(direction)
            best = kept.topk(min(_SEEDS, len(kept)))
            seeds.append(best.indices[best.values > 0.1 * best.values[0]].cpu().numpy())
        cosine = cosines(nodes.features, torch.stack(directions), nodes.decoder)
        heights = distance_of(cosine.amax(1)).cpu().double().numpy()
        places = np.unique(nodes.graph.leader[np.concatenate(seeds)])
        return cls(places, float(heights[places].max()), heights, nodes.graph.flooded(heights, places))

    def lost_to(self, other: "_Flood", graph: Graph, places: Array) -> Mask:  # [n, d] -> [n]
        """Nodes that are nearer to the seeds of another flood.

        Ways are as long as they are in space, and longer through what resembles the other flood's seeds more:
        between things that look alike the distance decides, elsewhere the look.
        """
        lengths = np.linalg.norm(places[graph.first] - places[graph.second], axis=1) + _TOUCHING

        def far(flood: _Flood, from_: Array) -> Array:
            stranger = np.maximum(from_ - _ALIKE, 0)
            return graph.distances(
                lengths * (1 + _STRANGE * (stranger[graph.first] + stranger[graph.second])), flood.seeds
            )

        excess = self.heights**2 - other.heights**2
        return np.asarray(far(other, -excess) < far(self, excess))


def _discriminate(
    nodes: Nodes, thing: Mask, rest: Mask, fallback: Mask, weights: Array | None = None, balanced: bool = True
) -> Array:
    """How much each node is like the thing: ridge regression onto 1 for the thing and 0 for the rest.

    Where there is too little of either to learn from, or it cannot be told apart, the fallback is the answer.

    Args:
        nodes: Gaussians or cells.
        thing: Nodes of the thing. [n]
        rest: Nodes of what is not the thing. [n]
        fallback: Another answer. [n]
        weights: How much each node counts; None: all the same. [n]
        balanced: Both sides count the same, and the median of the thing becomes 1, that of the rest 0.
            Otherwise the answer is the share of the thing among nodes with such features.

    Returns:
        In [0, 1]. [n]
    """
    if min(thing.sum(), rest.sum()) < _FEWEST:
        return fallback.astype(np.float64)
    rows, shares = zip(*(_sample(nodes.features, side, weights) for side in (thing, rest)), strict=True)
    prior = 0.5
    if not balanced and weights is not None:
        prior = float(weights[thing].sum() / (weights[thing].sum() + weights[rest].sum()))
    means = [share @ row for row, share in zip(rows, shares, strict=True)]
    middle = prior * means[0] + (1 - prior) * means[1]
    covariance = middle.new_zeros(len(middle), len(middle))
    for row, share, part in zip(rows, shares, (prior, 1 - prior), strict=True):
        apart = row - middle
        covariance.addmm_((apart * share[:, None]).t(), apart, alpha=part)
    covariance.diagonal().add_(_RIDGE * covariance.diagonal().mean().clamp_min(1e-20))
    towards = prior * (1 - prior) * (means[0] - means[1])
    direction = torch.linalg.solve(covariance.double(), towards.double()).to(middle.dtype)
    values = nodes.features.float() @ direction
    if balanced:
        high, low = (_median(row @ direction, share) for row, share in zip(rows, shares, strict=True))
        if not high > low:
            return fallback.astype(np.float64)
        values = (values - low) / (high - low)
    else:
        values = values - middle @ direction + prior
    return np.asarray(values.clamp(0, 1).cpu().double().numpy())


def _sample(features: Tensor, chosen: Mask, weights: Array | None) -> tuple[Tensor, Tensor]:
    """Some features of one side [m, c] and their weights [m], which sum to 1."""
    rows = np.flatnonzero(chosen)
    rows = rows[:: -(-len(rows) // _SAMPLES)]
    share = np.ones(len(rows)) if weights is None else weights[rows]
    places = torch.from_numpy(rows).to(features.device)
    return features[places].float(), torch.from_numpy(share / share.sum()).to(features.device).float()


def _median(values: Tensor, weights: Tensor) -> Tensor:  # [m], [m] -> []
    ordered, order = values.sort()
    return ordered[int((weights[order].cumsum(0) < 0.5).sum().clamp(max=len(values) - 1))]


def _main_parts(graph: Graph, thing: Mask, weights: Array) -> NDArray[np.integer]:
    """The nodes of the heaviest connected part, and of others nearly as heavy."""
    labels = graph.components(thing)
    if not (labels >= 0).any():
        return np.empty(0, dtype=np.int64)
    heavy = np.bincount(labels[labels >= 0], weights[labels >= 0])
    return np.flatnonzero(np.isin(labels, np.flatnonzero(heavy >= _BESIDE * heavy.max())))


def _connected(graph: Graph, scores: Array, seeds: NDArray[np.integer]) -> Tensor:
    """Scores of nodes that hang together with the seeds through scores above one half; others have none.

    Those right beside keep theirs: the thing's border. [n] float32
    """
    if len(seeds) == 0:
        return torch.zeros(len(scores))
    solid = scores > 0.5
    labels = graph.components(solid)
    kept = solid & np.isin(labels, np.unique(labels[seeds[solid[seeds]]]))
    border = graph.widened(kept) & ~solid
    return torch.from_numpy(np.where(kept | border, scores, 0.0)).float()
