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
    width: int,
    height: int,
    overlap: int = 0,
) -> Tensor:  # [3, height + overlap, width + overlap]
    """The photo at another size, with a mirrored edge of half the overlap on all sides.

    Patches that are larger than their stride overlap and reach over the edge by half of what they overlap.
    With that edge, patch (i, j) is centred on cell (i, j) of a grid that is exactly the photo. Half pixels
    are exact too: the photo is resized from the rectangle that the input shows.

    Args:
        image: RGB. [H, W, 3] uint8
        width: Width of the photo in the input, pixels.
        height: Its height.
        overlap: Side of a patch minus the distance of neighbouring patches, pixels of the input.

    Returns:
        RGB in [0, 1]. [3, height + overlap, width + overlap] float32
    """
    edge_x = overlap / 2 * image.shape[1] / width  # pixels of the photo
    edge_y = overlap / 2 * image.shape[0] / height
    pad_x, pad_y = math.ceil(edge_x), math.ceil(edge_y)
    photo = np.pad(image.cpu().numpy(), ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="symmetric")
    resized = Image.fromarray(photo).resize(
        (width + overlap, height + overlap),
        Image.Resampling.BICUBIC,
        box=(
            pad_x - edge_x,
            pad_y - edge_y,
            pad_x + image.shape[1] + edge_x,
            pad_y + image.shape[0] + edge_y,
        ),
    )
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
