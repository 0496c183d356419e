"""What can be done to selected Gaussians. Every operation returns a new cloud; others keep every bit."""

import math

import torch
from torch import Tensor

from feature_gs.editing.cloud import Cloud
from feature_gs.gaussians.geometry import multiply_quaternions
from feature_gs.gaussians.geometry import rotate as rotate_vectors
from feature_gs.gaussians.sh import SH_C0
from feature_gs.gaussians.sh_rotation import rotate_sh
from feature_gs.rasterizer.reference import rotation_matrices

_OPACITIES = (1e-13, 1 - 1e-7)  # what a logit in single precision can say


def delete(cloud: Cloud, selected: Tensor) -> Cloud:  # [N] bool
    """The scene without what is selected."""
    return cloud.take(~selected)


def extract(cloud: Cloud, selected: Tensor) -> Cloud:  # [N] bool
    """Only what is selected."""
    return cloud.take(selected)


def fade(cloud: Cloud, factor: Tensor) -> Cloud:  # [N]
    """Multiplies opacities.

    Args:
        cloud: The Gaussians.
        factor: For each Gaussian, >= 0; 1 keeps its opacity to the bit, 0 makes it invisible. [N]
    """
    logits = cloud.model.logit_opacities.detach()
    opacities = (logits.double().sigmoid() * factor.double()).clamp(*_OPACITIES)
    return cloud.changed(logit_opacities=torch.where(factor == 1, logits, opacities.logit().to(logits)))


def recolour(
    cloud: Cloud,
    selected: Tensor,  # [N] bool
    matrix: Tensor,  # [3, 3]
    offset: Tensor,  # [3]
) -> Cloud:
    """Maps colours by `rgb' = matrix rgb + offset`, seen from whatever side.

    Colour is affine in the SH coefficients: the matrix acts on all of them, the offset on the constant ones.

    Args:
        cloud: The Gaussians.
        selected: Which are recoloured. [N] bool
        matrix: Of RGB in [0, 1]. [3, 3]
        offset: Of RGB in [0, 1]. [3]
    """
    matrix, offset = (_beside(cloud, part) for part in (matrix, offset))
    sh_dc, sh_rest = (part.detach().clone() for part in (cloud.model.sh_dc, cloud.model.sh_rest))
    shift = (matrix.sum(dim=1) / 2 + offset - 0.5) / SH_C0  # rgb = 0.5 + SH_C0 sh_dc + ...
    sh_dc[selected] = (sh_dc[selected].double() @ matrix.T + shift).to(sh_dc)
    sh_rest[selected] = (sh_rest[selected].double() @ matrix.T).to(sh_rest)
    return cloud.changed(sh_dc=sh_dc, sh_rest=sh_rest)


def translate(cloud: Cloud, selected: Tensor, by: Tensor) -> Cloud:  # [N] bool, [3]
    """Moves what is selected.

    Args:
        cloud: The Gaussians.
        selected: Which are moved. [N] bool
        by: World units. [3]
    """
    means = cloud.model.means.detach().clone()
    means[selected] = (means[selected].double() + _beside(cloud, by)).to(means)
    return cloud.changed(means=means)


def rotate(cloud: Cloud, selected: Tensor, quat: Tensor, about: Tensor) -> Cloud:  # [N] bool, [4], [3]
    """Turns what is selected about a point: centres, the Gaussians' own axes, and what they show where.

    Args:
        cloud: The Gaussians.
        selected: Which are turned. [N] bool
        quat: The rotation w, x, y, z, of any length but 0. [4]
        about: The point that stays, world units. [3]
    """
    model, quat, about = cloud.model, _beside(cloud, quat), _beside(cloud, about)
    quat = torch.nn.functional.normalize(quat, dim=0)
    means, quats, sh_rest = (part.detach().clone() for part in (model.means, model.quats, model.sh_rest))
    offsets = means[selected].double() - about
    means[selected] = (rotate_vectors(quat.expand(len(offsets), 4), offsets) + about).to(means)
    quats[selected] = multiply_quaternions(quats[selected].double(), quat).to(quats)
    sh_rest[selected] = rotate_sh(sh_rest[selected], rotation_matrices(quat[None])[0])
    return cloud.changed(means=means, quats=quats, sh_rest=sh_rest)


def scale(cloud: Cloud, selected: Tensor, factor: float, about: Tensor) -> Cloud:  # [N] bool, [3]
    """Enlarges or shrinks what is selected: distances to a point, and the Gaussians themselves.

    Args:
        cloud: The Gaussians.
        selected: Which are scaled. [N] bool
        factor: > 0.
        about: The point that stays, world units. [3]
    """
    model, about = cloud.model, _beside(cloud, about)
    means, log_scales = model.means.detach().clone(), model.log_scales.detach().clone()
    means[selected] = ((means[selected].double() - about) * factor + about).to(means)
    log_scales[selected] = (log_scales[selected].double() + math.log(factor)).to(log_scales)
    return cloud.changed(means=means, log_scales=log_scales)


def centre(cloud: Cloud, selected: Tensor) -> Tensor:  # [N] bool
    """The mean of the selected Gaussians' centres, weighted by their opacity.

    Args:
        cloud: The Gaussians.
        selected: At least one. [N] bool

    Returns:
        World units. [3] float64
    """
    weights = cloud.model.opacities.detach()[selected].double()[:, None]
    return (weights * cloud.model.means.detach()[selected].double()).sum(dim=0) / weights.sum()


def _beside(cloud: Cloud, part: Tensor) -> Tensor:
    return part.to(cloud.model.means.device, torch.float64)
