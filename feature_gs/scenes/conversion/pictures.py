"""Pixels of photos, read and written so that nothing but their geometry changes on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from feature_gs.errors import UserError
from feature_gs.scenes.images import has_alpha, opaque_rgb

_JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
_TIFF: dict[str, Any] = {"compression": "tiff_lzw"}
_OPTIONS = {".jpg": _JPEG, ".jpeg": _JPEG, ".tif": _TIFF, ".tiff": _TIFF}


@dataclass
class Picture:
    """A photo in memory.

    Attributes:
        color: RGB, as stored: a rotation noted in EXIF is not applied. [H, W, 3] uint8
        alpha: What is to be seen of it, or None: everything. [H, W] uint8
        profile: ICC profile of the colours, or None.
    """

    color: np.ndarray  # [H, W, 3]
    alpha: np.ndarray | None  # [H, W]
    profile: bytes | None


def read_picture(path: Path) -> Picture:
    """Reads a photo; grey, palette, CMYK and 16 bits become RGB of 8 bits.

    Raises:
        UserError: The file is no readable image.
    """
    try:
        with Image.open(path) as image:
            profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
            if not has_alpha(image):
                return Picture(opaque_rgb(image), None, profile)
            pixels = np.array(image.convert("RGBA"))
            return Picture(np.ascontiguousarray(pixels[..., :3]), pixels[..., 3].copy(), profile)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the photo {path}: {error}. Copy it again, or remove it.") from None


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a photo in the format of its name, without EXIF: what it says about rotation is no longer so."""
    pixels = picture.color
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    path.parent.mkdir(parents=True, exist_ok=True)
    options = _OPTIONS.get(path.suffix.lower(), {})
    Image.fromarray(pixels).save(path, icc_profile=picture.profile, **options)
