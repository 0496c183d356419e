"""Rotations of the Gaussians."""

import math

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


def quaternion_about(axis: Tensor, degrees: float) -> Tensor:  # [3] -> [4]
    """The rotation by an angle about an axis, counter-clockwise for who looks against the axis.

    Args:
        axis: Of any length but 0. [3]
        degrees: The angle.

    Returns:
        A unit quaternion w, x, y, z. [4] float64
    """
    half = math.radians(degrees) / 2
    unit = torch.nn.functional.normalize(axis.double(), dim=0)
    return torch.cat([unit.new_tensor([math.cos(half)]), math.sin(half) * unit])


def multiply_quaternions(first: Tensor, then: Tensor) -> Tensor:  # [..., 4], [..., 4] -> [..., 4]
    """The rotation that turns by `first` and then by `then`: Hamilton's product `then * first`.

    Args:
        first: w, x, y, z. [..., 4]
        then: w, x, y, z. [..., 4]

    Returns:
        w, x, y, z; its length is the product of both lengths. [..., 4]
    """
    a, b = then[..., :1], first[..., :1]
    u, v = torch.broadcast_tensors(then[..., 1:], first[..., 1:])
    real = a * b - (u * v).sum(dim=-1, keepdim=True)
    return torch.cat([real, a * v + b * u + torch.linalg.cross(u, v)], dim=-1)
