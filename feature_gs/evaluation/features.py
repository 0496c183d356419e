"""Measuring how near rendered features are to the teacher's."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from feature_gs.features.field import FeatureField
from feature_gs.features.grid import cell_size, cell_weights, grid_for
from feature_gs.features.lifting import as_rows
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import View


@torch.no_grad()
def feature_cosines(
    model: GaussianModel,
    field: FeatureField,
    views: Iterable[View],
    teacher: TeacherStore,
    *,
    antialiased: bool = False,
    near: float = 0.01,
) -> dict[str, float]:
    """The mean cosine between rendered, decoded features and the teacher's map, of each view.

    Both are compared as in training: the mean over the teacher's own cells, over a background of zero. Cells
    at which the map is zero, where the teacher says nothing, are left out; cells at which nothing is
    rendered count 0 (with a linear decoder, its bias).

    Args:
        model: The Gaussians.
        field: Their features.
        views: The views to measure; looked at one after the other.
        teacher: The maps; views without one are left out.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.

    Returns:
        The mean cosine, -1 to 1, by image name.

    Raises:
        UserError: A map is damaged or has other channels than the field's teacher.
    """
    features = field.features.to(model.means)
    decoder = field.decoder.to(features.device)
    cosines = {}
    for view in views:
        if teacher.missing([view]):
            continue
        teacher_map = teacher.load(view)
        grid = grid_for(view.camera, *cell_size(teacher_map, view.camera))
        target = as_rows(teacher_map, grid, features.device)
        weights = cell_weights(model, grid, antialiased=antialiased, near=near)
        decoded = decoder(weights.blend(features))[0, : target.shape[0], : target.shape[1]]
        says = (target != 0).any(dim=2)
        if bool(says.any()):
            cosine = F.cosine_similarity(decoded[says], target[says], dim=1)
            cosines[view.camera.name] = cosine.mean().item()
    return cosines
