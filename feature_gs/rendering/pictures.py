"""Tensors to picture files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from feature_gs.files import atomic_write
from feature_gs.rendering.colormap import Picture


def to_uint8(values: Tensor) -> NDArray[np.uint8]:  # [...]
    """Values in [0, 1] as rounded bytes; what is outside is clamped."""
    clamped = np.clip(values.detach().cpu().numpy(), 0, 1)
    return (clamped * 255 + 0.5).astype(np.uint8)


def depth_to_uint16(depth: Tensor, alpha: Tensor, scale: float) -> NDArray[np.uint16]:  # [H, W], [H, W]
    """Depth in steps of `scale` scene units: 0 = nothing is there, 65535 = that far or farther.

    Args:
        depth: Expected depth, scene units. [H, W]
        alpha: Opacity in [0, 1]; below half a step of 8 bits nothing is there. [H, W]
        scale: Scene units per step.

    Returns:
        The values; something very near keeps the value 1. [H, W] uint16
    """
    steps = depth.detach().div(scale).add(0.5).clamp(1, 65535)
    return steps.mul(alpha.detach() >= 0.5 / 255).cpu().numpy().astype(np.uint16)


def depth_scale_for(far: float) -> float:
    """A readable scale (1, 2 or 5 times a power of ten) at which 16 bits reach at least `far`."""
    smallest = far / 65535
    power = 10.0 ** np.floor(np.log10(smallest))
    return float(next(round(step * power, 12) for step in (1, 2, 5, 10) if step * power >= smallest))


def save_picture(path: Path, picture: Picture | NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Writes a PNG; it appears whole or not at all.

    Args:
        path: The file, ending in .png; missing folders are made.
        picture: Grey [H, W] or RGB [H, W, 3], 8 or 16 bits.

    Raises:
        OSError: The file cannot be written.
    """
    ordered: NDArray[Any] = picture[..., ::-1] if picture.ndim == 3 else picture
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
    if not encoded:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} and type {picture.dtype}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
