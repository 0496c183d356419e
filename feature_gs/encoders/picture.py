"""From a photo to the input of a network, so that every cell lands where its grid says."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def cells_along(size: int, width: int, height: int, step: int) -> tuple[int, int]:
    """How many cells a photo gets: its long side becomes about `size` pixels, each side whole cells.

    Args:
        size: Wanted long side, pixels.
        width: Width of the photo, pixels.
        height: Height of the photo, pixels.
        step: Side of a cell, pixels of the input.

    Returns:
        Rows and columns, at least 1 each. Each side of the input is within half a cell of the photo's aspect.
    """
    scale = size / max(width, height) / step
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))


def network_input(
    image: Tensor,  # [H, W, 3]
    rows: int,
    columns: int,
    patch: int,
    stride: int,
) -> Tensor:  # [3, h, w]
    """The photo at the size where `rows` x `columns` patches, `stride` apart, tile it exactly.

    Patches larger than their stride overlap and reach over the edge by half the difference. There the photo
    is mirrored, so that patch (i, j) is centred on cell (i, j) of a grid that is exactly the photo.

    Args:
        image: RGB. [H, W, 3] uint8
        rows: Cells down.
        columns: Cells across.
        patch: Side of a patch, pixels of the input.
        stride: Distance of neighbouring patches, at most `patch`.

    Returns:
        RGB in [0, 1]; h = rows * stride + patch - stride, w likewise. [3, h, w] float32
    """
    height, width = image.shape[:2]
    edge_x = (patch - stride) / 2 * width / (columns * stride)  # pixels of the photo
    edge_y = (patch - stride) / 2 * height / (rows * stride)
    pad_x, pad_y = math.ceil(edge_x), math.ceil(edge_y)
    photo = np.pad(image.cpu().numpy(), ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="symmetric")
    resized = Image.fromarray(photo).resize(
        (columns * stride + patch - stride, rows * stride + patch - stride),
        Image.Resampling.BICUBIC,
        box=(pad_x - edge_x, pad_y - edge_y, pad_x + width + edge_x, pad_y + height + edge_y),
    )
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
