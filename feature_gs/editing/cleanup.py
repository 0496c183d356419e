"""Making a selection whole: neighbours agree, and what lies apart or was never shown is dropped."""

import numbers
import reprlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from feature_gs.editing.cloud import Cloud
from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import Selection
from feature_gs.rendering.render import rasterize_view
from feature_gs.training.trained import Trained

_NEIGHBOURS = 8  # that a Gaussian inside a thing has within the reach
_CELL = 16  # pixels; only sums over cells are wanted, and few cells are the cheapest
_REACH = 4.0  # times the middle distance to the last of them


@dataclass(frozen=True)
class CleanUp:
    """What is done with a selection, in this order.

    Attributes:
        smooth: Neighbours that scores are averaged over; 0: none.
        threshold: Selected is what scores above it, 0 to 1; None: as the query says.
        largest_cluster: Drop what lies apart from the largest part.
        drop_hidden: Drop Gaussians of which the training views show less than this share of what would be
            seen if the selection stood alone, 0 to 1; 0: keep them.

    Raises:
        UserError: A number is none, or beyond its limits.
    """

    MOST_NEIGHBOURS: ClassVar[int] = 1000

    smooth: int = 0
    threshold: float | None = None
    largest_cluster: bool = False
    drop_hidden: float = 0.0

    def __post_init__(self) -> None:
        # Stored as plain numbers: NumPy's would not do in the JSON of a selection.
        most = self.MOST_NEIGHBOURS
        object.__setattr__(self, "smooth", int(_checked("smooth", self.smooth, most, numbers.Integral)))
        object.__setattr__(self, "drop_hidden", _checked("drop_hidden", self.drop_hidden, 1))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _checked("threshold", self.threshold, 1))


def _checked(name: str, value: Any, high: int, kind: type[Any] = numbers.Real) -> float:
    """A number from 0 to `high`; a flag is none."""
    if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= value <= high:
        wanted = "whole number" if kind is numbers.Integral else "number"
        raise UserError(f"{name} must be a {wanted} between 0 and {high}, got {reprlib.repr(value)}.")
    return float(value)


NO_CLEAN_UP = CleanUp()


def cleaned(selection: Selection, trained: Trained, clean_up: CleanUp) -> Selection:
    """A selection of a model's Gaussians after its clean-up."""
    if clean_up.smooth:
        selection = smoothed(selection, trained.model, clean_up.smooth)
    if clean_up.threshold is not None:
        selection = above(selection, clean_up.threshold)
    if clean_up.largest_cluster:
        selection = largest_cluster(selection, trained.model)
    if clean_up.drop_hidden:
        selection = without_hidden(selection, trained, clean_up.drop_hidden)
    return selection


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


@torch.no_grad()
def without_hidden(selection: Selection, trained: Trained, share: float) -> Selection:
    """Drops of a selection what extracting it would uncover, although no training view shows it.

    Nothing in the photos says what a Gaussian behind a surface looks like or what it belongs to; where it
    lies below a table's top, it hangs like a skirt from the thing that stood there. With w the weight that
    all training views give it within the scene, and v that within the selection alone, w / v is what is
    visible of it.

    Args:
        selection: What is cleaned; the scores of what is dropped become 0.
        trained: The model and its views.
        share: Dropped is what has a smaller w / v, in (0, 1].

    Returns:
        The smaller selection. What is hidden belongs to the thing all the same: do not use this for removing.
    """
    model, chosen = trained.model, selection.selected.to(trained.model.means.device)
    alone = Cloud(model).take(chosen).model
    whole = _weights(trained, model)[chosen]
    hidden = whole < share * _weights(trained, alone)
    kept = chosen.clone()
    kept[chosen] = ~hidden
    kept = kept.to(selection.selected.device)
    query = {"drop_hidden": share, "of": selection.query}
    return Selection(torch.where(kept | ~selection.selected, selection.scores, 0.0), kept, query)


def _weights(trained: Trained, model: GaussianModel) -> Tensor:
    """The blending weight of each Gaussian, summed over all pixels of the training views. [N]"""  # noqa: D415
    total = model.means.new_zeros(len(model))
    for camera in trained.cameras["train"]:
        output = rasterize_view(
            model,
            camera,
            antialiased=trained.config.antialiased,
            near=trained.config.near,
            feature_cell=_CELL,
            cell_weights=True,
        )
        assert output.cells is not None
        total += output.cells.totals()
    return total


def _largest(points: np.ndarray) -> np.ndarray:  # [n, 3] -> [n] bool
    from sklearn.cluster import DBSCAN  # slow to import

    distances, _ = cKDTree(points).query(points, k=_NEIGHBOURS + 1, workers=-1)
    reach = _REACH * float(np.median(distances[:, -1]))
    labels = DBSCAN(eps=max(reach, 1e-12), min_samples=_NEIGHBOURS).fit_predict(points)
    counts = np.bincount(labels[labels >= 0], minlength=1)
    return np.asarray(labels == counts.argmax())
