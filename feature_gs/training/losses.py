"""What training makes small."""

from typing import Any

import torch
from torch import Tensor

from feature_gs.rasterizer import ssim


class _MeanAbsoluteError(torch.autograd.Function):
    """Mean |image - target| with one pass over the pictures forward and one backward."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        difference = image - target
        ctx.save_for_backward(difference)
        return torch.linalg.vector_norm(difference, 1) / difference.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference.sign().mul_(gradients[0] / difference.numel()), None


def mean_absolute_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean |image - target| over all elements, of tensors of one shape; no gradient flows to the target."""
    difference: Tensor = _MeanAbsoluteError.apply(image, target)
    return difference


def photometric_loss(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """`(1 - lambda) * mean |image - target| + lambda * (1 - SSIM)`.

    Args:
        image: Rendered colours. [B, H, W, 3]
        target: The photos' colours in [0, 1]; no gradient flows to them. [B, H, W, 3]
        lambda_dssim: Weight of the SSIM term, in [0, 1].

    Returns:
        The loss, a scalar tensor.

    Raises:
        ValueError: The shapes differ.
    """
    if image.shape != target.shape:
        raise ValueError(
            f"image and target must have one shape, got {list(image.shape)} and {list(target.shape)}"
        )
    difference = mean_absolute_error(image, target)
    if lambda_dssim == 0:
        return difference
    return (1 - lambda_dssim) * difference + lambda_dssim * (1 - ssim(image, target).mean())
