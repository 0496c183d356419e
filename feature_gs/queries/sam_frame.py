"""Between a picture and SAM's square input: cells of padding, places of prompts, sizes of masks."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.encoders.sam import sam_grid, sam_size
from feature_gs.encoders.sam_weights import CELLS, CHANNELS, SIDE
from feature_gs.errors import UserError

MASK_SIDE = 4 * CELLS  # of SAM's own low-resolution masks
_PADDING = "padding"  # in a teacher's meta.json: what SAM's encoder found out


def padded(
    features: Tensor,  # [256, h, w]
    width: int,
    height: int,
    padding: Tensor | None = None,  # [256]
) -> Tensor:  # [256, 64, 64]
    """SAM's whole embedding from the part of it that shows the picture.

    SAM has seen padding to the right of the picture or below, and its decoder attends to those cells too.
    They get `padding` where it is known: the mean of what the encoder gave for them in the scene's photos
    (`padding_of`). Otherwise each repeats the nearest cell of the picture. How close this comes to SAM's own
    masks was measured, with random weights only: docs/teachers.md.

    Args:
        features: Any floating-point type, any device. [256, h, w]
        width: Width of the picture in pixels.
        height: Its height.
        padding: The feature of cells beside the picture, or None. [256]

    Returns:
        A copy; of [256, 64, 64] all cells as they were. float32

    Raises:
        UserError: The features are not those of SAM for a picture of that size.
    """
    grid = sam_grid(width, height)
    channels, rows, columns = features.shape
    if channels != CHANNELS:
        raise UserError(
            f"SAM decodes maps of {CHANNELS} channels, got {channels}. Teach with -f sam_vit_b (or l, h) and "
            "without --pca, and bring rendered features to the teacher's space before."
        )
    features = features.float()
    if (rows, columns) == (CELLS, CELLS):
        return features.clone()
    if abs(rows - grid.rows) > 1 or abs(columns - grid.columns) > 1 or max(rows, columns) > CELLS:
        raise UserError(
            f"SAM has {grid.rows} x {grid.columns} cells (rows x columns) on a picture of {width} x {height} "
            f"pixels, the map has {rows} x {columns}. Render it with cells of SamDecoder.cell(width, height)."
        )
    features = features[:, : grid.rows, : grid.columns]
    rows, columns = features.shape[1:]
    whole = F.pad(features[None], (0, CELLS - columns, 0, CELLS - rows), mode="replicate")[0]
    if padding is not None:
        whole[:, grid.rows :] = padding.to(whole)[:, None, None]
        whole[:, : grid.rows, grid.columns :] = padding.to(whole)[:, None, None]
    return whole


def padding_of(meta: dict[str, Any]) -> Tensor | None:  # [256]
    """The feature of the cells beside the photos, or None where the encoder has not left it.

    Args:
        meta: `TeacherStore.meta` or `FeatureField.meta`.
    """
    values = meta.get(_PADDING)
    if not isinstance(values, list) or len(values) != CHANNELS:
        return None
    numbers = all(isinstance(value, float | int) and math.isfinite(value) for value in values)
    return torch.tensor(values, dtype=torch.float32) if numbers else None


def inside(places: Tensor, width: int, height: int) -> Tensor:  # [n, 2] -> [n, 2]
    """Pixels of the picture as pixels of SAM's input; float64, as SAM scales them."""
    across, down = sam_size(width, height)
    return places.double() * torch.tensor([across / width, down / height], dtype=torch.float64)


def enlarged(logits: Tensor, width: int, height: int) -> Tensor:  # [B, k, 256, 256] -> [B, k, H, W]
    """Low-resolution masks at the picture's size: enlarged, the padding cut off, resized, as SAM does it."""
    across, down = sam_size(width, height)
    square = F.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return F.interpolate(square[..., :down, :across], (height, width), mode="bilinear", align_corners=False)
