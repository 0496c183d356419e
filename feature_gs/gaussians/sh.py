"""Spherical harmonics, in which colours are stored: `rgb = 0.5 + sum of coefficient * basis`."""

from torch import Tensor

SH_C0 = 0.28209479177387814
"""The constant basis function, 1 / (2 sqrt(pi))."""

MAX_SH_DEGREE = 3


def rest_bands(degree: int) -> int:
    """Number of SH basis functions of `degree` without the constant one: 0, 3, 8, 15 for degree 0..3."""
    return (degree + 1) ** 2 - 1


def degree_of(bands: int) -> int | None:
    """The SH degree that has `bands` basis functions besides the constant one; None if there is none."""
    return {rest_bands(degree): degree for degree in range(MAX_SH_DEGREE + 1)}.get(bands)


def rgb_to_dc(rgb: Tensor) -> Tensor:
    """The constant SH coefficient that shows as colour `rgb` ([..., 3], in [0, 1]) from all directions."""
    return (rgb - 0.5) / SH_C0


def dc_to_rgb(dc: Tensor) -> Tensor:
    """The view-independent part of the colour, [..., 3]: the inverse of `rgb_to_dc`."""
    return dc * SH_C0 + 0.5
