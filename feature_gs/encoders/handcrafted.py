"""A teacher without weights: CIELAB colour and gradient orientations at two scales."""

from collections.abc import Mapping
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders.base import Encoder, Grid
from feature_gs.encoders.options import Option, whole_number

_BINS = 8  # orientations in half a turn
_BLUR = (1.0, 2.0)  # standard deviation before taking gradients, pixels: one cell, 3 x 3 cells
_FAINT = 1.0  # gradients below this (lightness per pixel) have no clear direction

# Offset and scale of L, a, b, of log(1 + their spread) and of the orientations, at both scales: means and
# standard deviations over photos of a living room, a castle and a table. Orientations count
# less (0.4), as they change within a material.
_SCALING = tuple(
    (
        torch.tensor([50, 2.5, 9, *spreads, *[0] * _BINS]),
        torch.tensor([25, 8.5, 14, *sizes, *[orientation / 0.4] * _BINS]),
    )
    for spreads, sizes, orientation in (
        ([1.35, 0.75, 0.90], [0.75, 0.50, 0.60], 0.08),
        ([1.85, 1.10, 1.35], [0.80, 0.60, 0.65], 0.06),
    )
)


class Handcrafted(Encoder):
    """Per cell, then per 3 x 3 cells: mean and spread of L, a, b, and 8 gradient orientations.

    The 28 channels are brought to comparable spreads around zero by constants, so that the cosine of two
    features tells materials apart: the same material gives values near 1, different ones much lower.
    """

    name = "handcrafted"
    channels = 2 * (3 + 3 + _BINS)
    patch = 24
    stride = 8
    normalisation = "fixed constants"
    licence = "none needed: no weights"
    origin = "computed from the photo"
    known_options: ClassVar[Mapping[str, Option]] = {
        "cell": Option(whole_number, 8, "side of a cell, pixels")
    }

    def grid(self, width: int, height: int) -> Grid:
        """Cells of the photo's own pixels; the last row and column may be partial."""
        return Grid.of_cells(width, height, self.settings["cell"])

    def encode(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [C, rows, columns]
        """The map of one photo; a partial cell describes the pixels it has."""
        cell = self.settings["cell"]
        rgb = image.cpu().numpy().astype(np.float32) / 255
        lab = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab), dtype=np.float32)
        colour = torch.from_numpy(lab).permute(2, 0, 1).double()  # spreads are differences of large numbers
        scales = []
        for index, blur in enumerate(_BLUR):
            mean, square = _pool(torch.cat([colour, colour.square()]), cell, 2 * index + 1).split(3)
            spread = (square - mean.square()).clamp_min(0).sqrt()
            votes = _pool(orientations(lab[..., 0], blur), cell, 2 * index + 1)
            total = votes.sum(0, keepdim=True)
            direction = (votes - total / _BINS) / (total + _FAINT)
            raw = torch.cat([mean, (spread + 1).log(), direction]).float()
            offset, size = _SCALING[index]
            scales.append((raw - offset.view(-1, 1, 1)) / size.view(-1, 1, 1))
        return torch.cat(scales)


def orientations(lightness: NDArray[np.float32], blur: float) -> Tensor:  # [H, W] -> [8, H, W]
    """Strength of the gradient at every pixel, shared among the two nearest of 8 orientations.

    Args:
        lightness: L of CIELAB, 0 to 100. [H, W]
        blur: Standard deviation of the smoothing before, pixels.

    Returns:
        Lightness per pixel along each orientation: 0 is across, 4 is down. [8, H, W] float32
    """
    smooth = cv2.GaussianBlur(lightness, (0, 0), blur)
    across = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    down = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    strength = torch.from_numpy(np.hypot(across, down))
    position = torch.from_numpy(np.mod(np.arctan2(down, across), np.pi) * (_BINS / np.pi))
    bins = torch.arange(_BINS, dtype=torch.float32).view(-1, 1, 1)
    apart = (position - bins).abs()
    apart = torch.minimum(apart, _BINS - apart)  # half a turn is a circle of bins
    return strength * (1 - apart).clamp_min(0)


def _pool(planes: Tensor, cell: int, cells: int) -> Tensor:  # [P, H, W] -> [P, rows, columns]
    """Means over `cells` x `cells` cells around every cell, of the pixels that exist."""
    return functional.avg_pool2d(
        planes[None], cells * cell, cell, cells // 2 * cell, ceil_mode=True, count_include_pad=False
    )[0]
