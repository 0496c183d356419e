"""Rotations of the Gaussians."""

import torch
from torch import Tensor


def rotate(quats: Tensor, vectors: Tensor) -> Tensor:  # [N, 4], [N, 3] -> [N, 3]
    """Turns vectors by quaternions, from the Gaussians' axes to the world's.

    Args:
        quats: Rotations w, x, y, z of any length but 0. [N, 4]
        vectors: What is turned. [N, 3]

    Returns:
        The turned vectors. [N, 3]
    """
    unit = torch.nn.functional.normalize(quats, dim=1)
    real, imaginary = unit[:, :1], unit[:, 1:]
    across = 2 * torch.linalg.cross(imaginary, vectors)
    return vectors + real * across + torch.linalg.cross(imaginary, across)
