"""Pictures side by side under captions: photo | render | depth | error, or features in its place."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from feature_gs.rasterizer import RenderOutput
from feature_gs.rendering.colormap import DepthRange, Picture, depth_colors, error_colors
from feature_gs.rendering.pictures import to_uint8

VIEW_CAPTIONS = ("photo", "render", "depth", "error")
FEATURE_CAPTIONS = ("photo", "render", "depth", "feature PCA")
_GAP = 6
_INK = (40, 40, 40)


def view_row(
    photo: Tensor,  # [H, W, 3]
    output: RenderOutput,
    depth_range: DepthRange,
    features: Picture | None = None,
) -> list[Picture]:
    """The pictures of one view, in the order of VIEW_CAPTIONS or, with features, of FEATURE_CAPTIONS.

    Args:
        photo: The true picture. [H, W, 3] uint8
        output: The render of the same view, a batch of one.
        depth_range: The depths of the colour scale.
        features: The view's features as colours, or None. [H, W, 3] uint8

    Returns:
        Photo, render, depth, and error or features. Four times [H, W, 3] uint8
    """
    last = features
    if last is None:
        last = error_colors(output.color[0], photo.to(output.color.device).float() / 255)
    return [
        photo.cpu().numpy(),
        to_uint8(output.color[0]),
        depth_colors(output.depth[0], output.alpha[0], depth_range),
        last,
    ]


def picture_strip(
    rows: Sequence[Sequence[Picture]], captions: Sequence[str] = VIEW_CAPTIONS, *, width: int = 1600
) -> Picture:
    """Rows of pictures under one line of captions, on white.

    Args:
        rows: For each row one picture per caption, all of one row equally large. [H, W, 3] uint8 each
        captions: The title of each column.
        width: Total width aimed at, pixels. Pictures are shrunk to it, never enlarged.

    Returns:
        The strip. [H', W', 3] uint8

    Raises:
        ValueError: No rows, or a row with another number of pictures than captions.
    """
    if not rows or any(len(row) != len(captions) for row in rows):
        raise ValueError(f"each row needs {len(captions)} pictures ({', '.join(captions)})")
    columns = len(captions)
    widest = max(row[0].shape[1] for row in rows)
    cell = min((width - _GAP * (columns + 1)) // columns, widest)
    pictures = [[_fitted(picture, cell) for picture in row] for row in rows]
    font_size = max(11, min(20, cell // 12))
    font = ImageFont.load_default(size=font_size)
    header = round(1.8 * font_size)
    heights = [row[0].height for row in pictures]
    canvas = Image.new(
        "RGB", (cell * columns + _GAP * (columns + 1), header + sum(heights) + _GAP * len(heights)), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for column, caption in enumerate(captions):
        middle = _GAP + column * (cell + _GAP) + cell // 2
        draw.text((middle, header // 2), caption, fill=_INK, font=font, anchor="mm")
    top = header
    for row, height in zip(pictures, heights, strict=True):
        for column, picture in enumerate(row):
            canvas.paste(picture, (_GAP + column * (cell + _GAP), top))
        top += height + _GAP
    return np.asarray(canvas)


def _fitted(picture: Picture, width: int) -> Image.Image:
    image = Image.fromarray(picture)
    height = max(1, round(image.height * width / image.width))
    return image if image.width == width else image.resize((width, height), Image.Resampling.LANCZOS)
