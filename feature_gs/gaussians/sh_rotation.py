"""Spherical harmonics of things that are turned: their looks turn with them."""

import numpy as np
import torch
from torch import Tensor

from feature_gs.gaussians.sh import MAX_SH_DEGREE, rest_bands
from feature_gs.rasterizer.reference import sh_basis


def wigner_matrix(rotation: Tensor) -> Tensor:  # [3, 3]
    """How the SH coefficients of bands 1 to 3 change when what they describe is turned.

    By definition `D[m, k]` is the integral over the sphere of `Y_m(R d) Y_k(d)`, which is zero where m and k
    are of different bands. The integrand is a polynomial of degree 6 at most; the quadrature used (4 Gauss
    nodes in z, 8 equal steps around) is exact up to degree 7, so D is exact but for rounding.

    Args:
        rotation: A proper rotation R. [3, 3]

    Returns:
        The block matrix with `c' = D c` for the coefficients c of the 15 functions besides the constant one,
        in the order and with the signs of 3DGS. Orthogonal. [15, 15] float64
    """
    z, weights = np.polynomial.legendre.leggauss(MAX_SH_DEGREE + 1)
    steps = 2 * (MAX_SH_DEGREE + 1)
    angle = np.arange(steps) * (2 * np.pi / steps)
    ring = np.sqrt(1 - z**2)
    x, y = ring[:, None] * np.cos(angle), ring[:, None] * np.sin(angle)
    nodes = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1).reshape(-1, 3)
    areas = np.repeat(weights * (2 * np.pi / steps), steps)
    directions = torch.from_numpy(nodes).to(rotation.device)
    count = rest_bands(MAX_SH_DEGREE) + 1
    turned = sh_basis(directions @ rotation.double().T, count)
    return (turned.T @ (torch.from_numpy(areas).to(directions)[:, None] * sh_basis(directions, count)))[
        1:, 1:
    ]


def rotate_sh(sh_rest: Tensor, rotation: Tensor) -> Tensor:  # [N, K - 1, 3], [3, 3] -> [N, K - 1, 3]
    """The coefficients of Gaussians that were turned: seen from R d they look as they did from d.

    Args:
        sh_rest: Coefficients besides the constant one, which does not change; 0, 3, 8 or 15 of them.
            [N, K - 1, 3]
        rotation: A proper rotation R. [3, 3]

    Returns:
        The turned coefficients, computed in float64. [N, K - 1, 3]
    """
    bands = sh_rest.shape[1]
    matrix = wigner_matrix(rotation)[:bands, :bands]
    return torch.einsum("mk,nkc->nmc", matrix, sh_rest.double()).to(sh_rest)
