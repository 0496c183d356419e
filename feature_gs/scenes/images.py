"""Photos on disk: which there are, how large, and their pixels as uint8."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from feature_gs.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def index_images(folder: Path) -> dict[str, Path]:
    """Finds the images in a folder and its sub-folders.

    Returns:
        Path of each image by its name: the path relative to `folder`, with forward slashes and composed
        Unicode (an umlaut is one character, also where the disk stores two).
    """
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return {
        unicodedata.normalize("NFC", path.relative_to(folder).as_posix()): path
        for path in files
        if not path.name.startswith(".")
    }


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as stored in the file, read from its header.

    A rotation noted in EXIF is ignored, as COLMAP ignores it.

    Raises:
        UserError: If the file is no readable image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def load_image(path: Path, width: int, height: int, white_background: bool) -> Tensor:
    """Reads an image as RGB of the wanted size.

    Transparent pixels are blended onto white or black first; shrinking averages over areas.

    Args:
        path: The image; grey, palette, 16 bits and alpha are understood, EXIF rotation is ignored.
        width: Width of the result in pixels.
        height: Height of the result in pixels.
        white_background: Blend transparency onto white instead of black.

    Returns:
        uint8 tensor [height, width, 3].

    Raises:
        UserError: If the file is no readable image.
    """
    try:
        with Image.open(path) as image:
            pixels = _to_rgb(image, white_background)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    if pixels.shape[:2] != (height, width):
        shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
        pixels = cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    return torch.from_numpy(pixels)


def has_alpha(image: Image.Image) -> bool:
    """Whether an image says how much of each pixel is to be seen."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def opaque_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an image without alpha, [H, W, 3] uint8; grey, palette, CMYK and 16 bits are understood."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey, which convert("RGB") would clip
        grey = np.asarray(image).astype(np.float32)
        grey = (grey / 257.0 if grey.max(initial=0) > 255 else grey).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _to_rgb(image: Image.Image, white_background: bool) -> np.ndarray:
    if not has_alpha(image):
        return opaque_rgb(image)
    rgba = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3:] / 255.0
    background = 255.0 if white_background else 0.0
    return (rgba[..., :3] * alpha + background * (1.0 - alpha)).round().astype(np.uint8)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read the image {path}: {error}. Is the file damaged or only partly copied?")
