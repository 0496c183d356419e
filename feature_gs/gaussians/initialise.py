"""The first size of a Gaussian: how far its neighbours are."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from feature_gs.gaussians.order import spatial_order
from feature_gs.rasterizer.ops import ops

_MIN_SQUARED_DISTANCE = 1e-7
_NEIGHBOURS = 3


def neighbour_distances(points: Tensor) -> Tensor:  # [P, 3]
    """Root mean squared distance of every point to its 3 nearest neighbours.

    Duplicates count as neighbours at distance 0, so the result is clamped from below (squared distance
    1e-7). With fewer than 4 points the mean is over those there are; a single point gets the clamp.

    Args:
        points: Finite world positions, any unit, on the CPU or a GPU. [P, 3] float32

    Returns:
        Distances in the unit of the points. [P] float32
    """
    points = points.detach()
    if points.is_cuda:
        order = spatial_order(points)  # points that follow each other are looked at together
        distances = torch.empty_like(points[:, 0])
        distances[order] = ops.nearest_distances(points[order])
        return distances.clamp_min(math.sqrt(_MIN_SQUARED_DISTANCE))
    count = len(points)
    if count < 2:
        squared = np.zeros(count)
    else:
        positions = points.cpu().numpy().astype(np.float64)
        neighbours = min(_NEIGHBOURS, count - 1)
        # The nearest one is the point itself (or a duplicate of it, at the same distance 0).
        nearest, _ = cKDTree(positions).query(positions, k=neighbours + 1, workers=-1)
        squared = np.square(nearest[:, 1:]).mean(axis=1)
    return torch.from_numpy(np.sqrt(np.maximum(squared, _MIN_SQUARED_DISTANCE))).to(points)


@torch.library.register_fake("feature_gs::nearest_distances")
def _nearest_distances_fake(points: Tensor) -> Tensor:  # [P, 3]
    return points.new_empty(points.shape[0])
