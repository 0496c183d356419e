"""Depth and error as colours."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]  # [H, W, 3], RGB

# The mean absolute colour difference that reaches the top of the error scale.
ERROR_LIMIT = 0.25


@dataclass(frozen=True)
class DepthRange:
    """Depths that get the two ends of the colour scale, scene units, 0 < near < far.

    One range serves all pictures of a run, so that colours neither flicker in a video nor differ in a strip.
    """

    near: float
    far: float

    @classmethod
    def of(cls, views: Iterable[tuple[Tensor, Tensor]]) -> "DepthRange":  # ([..., H, W], [..., H, W])
        """The range of some views: 1st and 99th percentile of the depth where they are mostly opaque.

        Args:
            views: Pairs of depth in scene units and alpha in [0, 1], each [..., H, W].

        Returns:
            The range; (1, 2) where nothing is opaque.
        """
        seen = [depth[alpha > 0.5].detach().float().cpu().numpy() for depth, alpha in views]
        values = np.concatenate(seen) if seen else np.empty(0, np.float32)
        values = values[np.isfinite(values) & (values > 0)]
        if values.size == 0:
            return cls(1.0, 2.0)
        near, far = (float(value) for value in np.quantile(values, (0.01, 0.99)))
        return cls(near, far if far > near * 1.001 else near * 1.001)


def depth_colors(depth: Tensor, alpha: Tensor, depth_range: DepthRange) -> Picture:  # [H, W], [H, W]
    """Depth as colours, from warm (near) to cold (far), fading to black where nothing is.

    Equal steps of colour are equal steps of 1/depth, as the eye judges distance.

    Args:
        depth: Expected depth, scene units. [H, W]
        alpha: Opacity in [0, 1]. [H, W]
        depth_range: Depths beyond it take the colour of its ends.

    Returns:
        The picture. [H, W, 3] uint8
    """
    values = np.maximum(depth.detach().cpu().numpy().astype(np.float32), 1e-12)
    near, far = 1 / depth_range.near, 1 / depth_range.far
    warmth = np.clip(np.nan_to_num((1 / values - far) / (near - far)), 0, 1)
    return _scaled(_mapped(warmth, cv2.COLORMAP_TURBO), alpha.detach().cpu().numpy())


def error_colors(image: Tensor, target: Tensor) -> Picture:  # [H, W, 3], [H, W, 3]
    """Mean absolute difference of the channels, from black (none) over red to yellow (0.25 and more).

    Args:
        image: Rendered colour, in [0, 1]. [H, W, 3]
        target: The photo, in [0, 1]. [H, W, 3]

    Returns:
        The picture. [H, W, 3] uint8
    """
    error = (image.clamp(0, 1) - target).abs().mean(-1).detach().cpu().numpy()
    return _mapped(np.clip(error / ERROR_LIMIT, 0, 1), cv2.COLORMAP_INFERNO)


def _mapped(values: NDArray[np.floating], colormap: int) -> Picture:
    colored = cv2.applyColorMap((values * 255 + 0.5).astype(np.uint8), colormap)
    return np.ascontiguousarray(colored[..., ::-1])


def _scaled(picture: Picture, factor: NDArray[np.floating]) -> Picture:
    return (picture * np.clip(factor, 0, 1)[..., None] + 0.5).astype(np.uint8)
