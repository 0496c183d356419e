"""Making a selection whole: neighbours agree, and what lies apart is dropped."""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree

from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import Selection

_NEIGHBOURS = 8  # that a Gaussian inside a thing has within the reach
_REACH = 4.0  # times the middle distance to the last of them


@torch.no_grad()
def smoothed(selection: Selection, model: GaussianModel, neighbours: int) -> Selection:
    """Replaces every score by the mean over the Gaussian and its nearest ones, weighted by opacity.

    Args:
        selection: What is smoothed; afterwards selected is what scores above one half.
        model: Its Gaussians.
        neighbours: How many of the nearest, >= 1.

    Returns:
        The smoother selection.
    """
    means = model.means.detach().cpu().numpy().astype(np.float64)
    count = min(neighbours + 1, len(means))  # the nearest one is the Gaussian itself
    _, nearest = cKDTree(means).query(means, k=count, workers=-1)
    rows = torch.from_numpy(np.asarray(nearest).reshape(len(means), count))
    weights = model.opacities.detach().cpu()[rows]
    scores = (weights * selection.scores.cpu()[rows]).sum(dim=1) / weights.sum(dim=1)
    return Selection.of(scores.to(selection.scores), {"smoothed": neighbours, "of": selection.query})


def above(selection: Selection, threshold: float) -> Selection:
    """The same scores with another threshold, in [0, 1]."""
    query = {"above": threshold, "of": selection.query}
    return replace(selection, selected=selection.scores > threshold, query=query)


def largest_cluster(selection: Selection, model: GaussianModel) -> Selection:
    """Keeps of what is selected the largest part that hangs together (DBSCAN; Ester et al., 1996).

    Two Gaussians hang together when they are nearer than four times the distance that lies in the middle of
    those to everybody's 8th neighbour within the selection, and enough others are near, too.

    Args:
        selection: What is cleaned; the scores of what is dropped become 0.
        model: Its Gaussians.

    Returns:
        The smaller selection; the same where nothing hangs together.
    """
    chosen = torch.nonzero(selection.selected.cpu())[:, 0]
    points = model.means.detach().cpu()[chosen].numpy().astype(np.float64)
    if len(points) <= _NEIGHBOURS:
        return selection
    keep = torch.zeros(len(selection), dtype=torch.bool)
    keep[chosen[torch.from_numpy(_largest(points))]] = True
    kept = keep.to(selection.selected.device)
    if not bool(kept.any()):
        return selection
    query = {"largest_cluster": True, "of": selection.query}
    return Selection(torch.where(kept | ~selection.selected, selection.scores, 0.0), kept, query)


def _largest(points: np.ndarray) -> np.ndarray:  # [n, 3] -> [n] bool
    from sklearn.cluster import DBSCAN  # slow to import

    distances, _ = cKDTree(points).query(points, k=_NEIGHBOURS + 1, workers=-1)
    reach = _REACH * float(np.median(distances[:, -1]))
    labels = DBSCAN(eps=max(reach, 1e-12), min_samples=_NEIGHBOURS).fit_predict(points)
    counts = np.bincount(labels[labels >= 0], minlength=1)
    return np.asarray(labels == counts.argmax())
