"""What training makes small."""

import torch.nn.functional as functional
from torch import Tensor

from feature_gs.rasterizer import ssim


def photometric_loss(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """`(1 - lambda) * mean |image - target| + lambda * (1 - SSIM)`.

    Args:
        image: Rendered colours. [B, H, W, 3]
        target: The photos' colours in [0, 1]; no gradient flows to them. [B, H, W, 3]
        lambda_dssim: Weight of the SSIM term, in [0, 1].

    Returns:
        The loss, a scalar tensor.
    """
    difference = functional.l1_loss(image, target)
    if lambda_dssim == 0:
        return difference
    return (1 - lambda_dssim) * difference + lambda_dssim * (1 - ssim(image, target).mean())
