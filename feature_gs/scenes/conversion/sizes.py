"""The photos of a scene at half, a quarter and an eighth of their size."""

from pathlib import Path

import cv2
import numpy as np

from feature_gs.scenes.conversion.pictures import Picture, read_picture, write_picture
from feature_gs.scenes.conversion.progress import for_each
from feature_gs.scenes.scene import target_size

FACTORS = (2, 4, 8)


def write_smaller(images: Path, names: list[str], factor: int, output: Path, *, quiet: bool = False) -> None:
    """Writes the photos `names` of `images` to `output`, averaged over areas.

    Args:
        images: Folder of the photos.
        names: Their paths below it.
        factor: By what width and height are divided; rounded, as `-r` does.
        output: An empty folder.
        quiet: Show no progress bar.
    """

    def write(name: str) -> None:
        picture = read_picture(images / name)
        height, width = picture.color.shape[:2]
        write_picture(output / name, shrink(picture, *target_size(width, height, factor)))

    for_each(write, names, output.name.lstrip("."), quiet)


def shrink(picture: Picture, width: int, height: int) -> Picture:
    """A smaller picture, each pixel the mean of its area, in which hidden pixels do not count."""
    if picture.alpha is None:
        return Picture(_mean(picture.color, width, height), None, picture.profile)
    seen = picture.alpha.astype(np.float32)
    weighed = _mean(picture.color * seen[..., None], width, height)
    alpha = _mean(seen, width, height)
    color = np.where(alpha[..., None] > 0, weighed / np.maximum(alpha[..., None], 1e-6), 0)
    return Picture(color.round().astype(np.uint8), alpha.round().astype(np.uint8), picture.profile)


def _mean(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
