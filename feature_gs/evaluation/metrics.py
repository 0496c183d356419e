"""How near a rendered picture comes to the photo."""

import torch
from torch import Tensor

from feature_gs.rasterizer import ssim as fused_ssim

# Below this mean squared error two pictures count as equal: 100 dB, a finite number that JSON can hold.
_SMALLEST_MSE = 1e-10


def psnr(image: Tensor, target: Tensor) -> Tensor:  # [..., H, W, C], [..., H, W, C] -> [...]
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error over pixels and channels.

    Args:
        image: Colours in [0, 1]. [..., H, W, C]
        target: Colours in [0, 1]. [..., H, W, C]

    Returns:
        Decibels, at most 100. [...]

    Raises:
        ValueError: The shapes differ.
    """
    _check_same(image, target)
    mse = (image - target).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(mse.clamp_min(_SMALLEST_MSE))


def ssim(image: Tensor, target: Tensor) -> Tensor:  # [B, H, W, C], [B, H, W, C] -> [B]
    """Mean structural similarity per image: Gaussian window of 11 pixels, sigma 1.5, zero padding.

    Args:
        image: Colours in [0, 1]. [B, H, W, C] float32
        target: Colours in [0, 1]. [B, H, W, C] float32

    Returns:
        Similarities, 1 for equal images. [B]

    Raises:
        ValueError: The shapes differ.
    """
    _check_same(image, target)
    return fused_ssim(image, target)


def _check_same(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape:
        raise ValueError(
            f"image and target must have one shape, got {list(image.shape)} and {list(target.shape)}"
        )
