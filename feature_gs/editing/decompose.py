"""A scene taken apart: as it is, only what is selected, and without it."""

import torch

from feature_gs.editing.cloud import Cloud
from feature_gs.editing.operations import extract, fade
from feature_gs.errors import UserError
from feature_gs.queries.selection import Selection


@torch.no_grad()
def only(cloud: Cloud, selection: Selection, *, soft: bool = False) -> Cloud:
    """Only what is selected.

    Args:
        cloud: The Gaussians.
        selection: Among them.
        soft: Multiply opacities by the scores instead of keeping what is selected and dropping the rest.

    Raises:
        UserError: The selection is not of these Gaussians.
    """
    return _kept(cloud, selection, soft)


@torch.no_grad()
def without(cloud: Cloud, selection: Selection, *, soft: bool = False) -> Cloud:
    """All but what is selected.

    Args:
        cloud: The Gaussians.
        selection: Among them.
        soft: Multiply opacities by 1 - score instead of dropping what is selected.

    Raises:
        UserError: The selection is not of these Gaussians.
    """
    return _kept(cloud, ~selection, soft)


def _kept(cloud: Cloud, selection: Selection, soft: bool) -> Cloud:
    if len(selection) != len(cloud):
        raise UserError(
            f"the selection is of {len(selection):,} Gaussians, the scene has {len(cloud):,}: select in the "
            "scene that is taken apart."
        )
    device = cloud.model.means.device
    if not soft:
        return extract(cloud, selection.selected.to(device))
    scores = selection.scores.to(device)
    return extract(fade(cloud, scores), scores > 0)
