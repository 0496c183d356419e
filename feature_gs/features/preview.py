"""preview.png of a teacher folder: some photos above their maps, all coloured by one palette."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor

from feature_gs.features.maps import TeacherMap
from feature_gs.features.palette import Palette, fit_palette
from feature_gs.features.teacher import TeacherStore
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import save_picture, to_uint8
from feature_gs.rendering.strip import picture_strip
from feature_gs.scenes import View
from feature_gs.scenes.images import image_size, load_image

PREVIEW = "preview.png"
_PHOTOS = 4
_WIDTH = 400  # pixels of one photo
_LONGEST_CAPTION = 24  # characters
_CELLS = 20_000  # of one map that the palette looks at


def write_preview(store: TeacherStore, views: Sequence[View]) -> None:
    """Writes the picture: up to four photos of one size, evenly chosen, and their maps.

    Args:
        store: The teacher's folder, with a map of every view.
        views: The views, at least one.
    """
    sizes = [image_size(view.image_path) for view in views]
    size = Counter(sizes).most_common(1)[0][0]
    alike = [view for view, its_size in zip(views, sizes, strict=True) if its_size == size]
    chosen = np.linspace(0, len(alike) - 1, min(_PHOTOS, len(alike))).round().astype(int)
    shown = [alike[index] for index in chosen]
    width = min(_WIDTH, size[0])
    height = max(1, round(size[1] * width / size[0]))
    palette = fit_palette(torch.cat([_sample(store.load(view).features) for view in shown]))
    photos = [load_image(view.image_path, width, height, view.white_background).numpy() for view in shown]
    colors = [map_picture(store.load(view), palette, width, height) for view in shown]
    captions = [PurePosixPath(view.camera.name).name[-_LONGEST_CAPTION:] for view in shown]
    save_picture(store.folder / PREVIEW, picture_strip([photos, colors], captions))


def map_picture(teacher_map: TeacherMap, palette: Palette, width: int, height: int) -> Picture:
    """A teacher's map over a photo of `width` x `height` pixels; every pixel shows the cell it lies in.

    Args:
        teacher_map: The map.
        palette: Its colours.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        The picture; black where the teacher left out a margin. [height, width, 3] uint8
    """
    colors = to_uint8(palette.colors(teacher_map.features.permute(1, 2, 0)))
    rows = _cells_of_pixels(height, teacher_map.cells_y)
    columns = _cells_of_pixels(width, teacher_map.cells_x)
    margin = [(0, max(0, rows[-1] + 1 - colors.shape[0])), (0, max(0, columns[-1] + 1 - colors.shape[1]))]
    return np.pad(colors, [*margin, (0, 0)])[rows][:, columns]


def _cells_of_pixels(pixels: int, cells: float) -> np.ndarray:
    """The cell in which each pixel's centre lies, [pixels]."""
    return ((np.arange(pixels) + 0.5) * cells / pixels).astype(np.int64)


def _sample(features: Tensor) -> Tensor:  # [C, h, w] -> [n, C]
    rows = features.flatten(1).T
    step = -(-len(rows) // _CELLS)
    return rows[::step].to(torch.float32)
