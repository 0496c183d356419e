"""One teacher map in one safetensors file, and how its cells lie on the photo."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from feature_gs.files import atomic_write

LONGEST_SIDE = 1 << 16  # cells
KEYS = ("cells_per_pixel_x", "cells_per_pixel_y")


@dataclass(frozen=True, eq=False)
class TeacherMap:
    """What a teacher says about one photo.

    Cell (i, j) covers the photo between j / cells_x and (j + 1) / cells_x of its width, and between
    i / cells_y and (i + 1) / cells_y of its height. The last column and row may reach beyond the photo, never
    whole ones. A teacher that leaves out a margin at the right or below has fewer columns or rows than cells.

    Attributes:
        features: The map, float16 or float32, on the CPU, possibly memory-mapped, so not to be written to.
            [C, h, w]
        cells_x: How many cells the photo's full width spans; may be fractional, `w` <= ceil(cells_x).
        cells_y: How many cells the photo's full height spans; may be fractional, `h` <= ceil(cells_y).
    """

    features: Tensor
    cells_x: float
    cells_y: float


def located(features: Tensor, cells_x: float, cells_y: float) -> TeacherMap:  # [C, h, w]
    """The map with what lies beyond the photo cut off, after checking all that can be wrong with it.

    Args:
        features: Any floating-point type. [C, h, w]
        cells_x: How many cells the photo's full width spans.
        cells_y: How many cells the photo's full height spans.

    Raises:
        ValueError: The map is unusable; says why.
    """
    if features.ndim != 3 or min(features.shape) < 1 or max(features.shape[1:]) > LONGEST_SIDE:
        raise ValueError(f"expected features [channels, rows, columns], got {list(features.shape)}")
    if not features.dtype.is_floating_point:
        raise ValueError(f"expected features of type float16 or float32, got {features.dtype}")
    for side, size, cells in (("width", features.shape[2], cells_x), ("height", features.shape[1], cells_y)):
        if not 0.5 * cells <= size or cells < 0.5:
            raise ValueError(
                f"the photo's {side} spans {cells:g} cells, the map has {size}: cells_per_pixel must be the "
                "cells' number divided by the pixels' of the photo's own file"
            )
    cells_x, cells_y = _snapped(cells_x), _snapped(cells_y)
    features = features[:, : math.ceil(cells_y), : math.ceil(cells_x)]
    if features.dtype not in (torch.float16, torch.float32):
        features = features.float()
    low, high = torch.aminmax(features)  # NaN wins in both
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError("it holds NaN or infinite features")
    return TeacherMap(features, cells_x, cells_y)


def read_map(path: Path, width: int, height: int) -> TeacherMap:
    """Reads a map that `write_map` or any other tool wrote.

    Args:
        path: A safetensors file with `features` [C, h, w] and, in its metadata, cells_per_pixel_x and
            cells_per_pixel_y; without them the map spans the whole photo.
        width: Width of the photo's file in pixels.
        height: Height of the photo's file in pixels.

    Raises:
        ValueError: The file is damaged or holds something else; says what.
        OSError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if "features" not in file.keys():  # noqa: SIM118 (no mapping, it has no other way to ask)
                raise ValueError(f"expected a tensor `features`, got {sorted(file.keys())[:5]}")
            features = file.get_tensor("features")
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"it is damaged or no safetensors file ({error})") from None
    if features.ndim != 3:
        raise ValueError(f"expected features [channels, rows, columns], got {list(features.shape)}")
    if not metadata.keys() & set(KEYS):
        return located(features, features.shape[2], features.shape[1])
    try:
        scales = [float(metadata[key]) for key in KEYS]
    except (KeyError, ValueError) as error:
        raise ValueError(f"expected numbers {KEYS[0]} and {KEYS[1]} in its metadata ({error})") from None
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"expected {KEYS[0]} and {KEYS[1]} above 0, got {scales}")
    return located(features, scales[0] * width, scales[1] * height)


def write_map(
    path: Path,
    features: Tensor,  # [C, h, w]
    cells_per_pixel_x: float | None = None,
    cells_per_pixel_y: float | None = None,
) -> None:
    """Writes a map as float16; the file appears whole or not at all.

    Args:
        path: The file, ending in .safetensors; missing folders are made.
        features: Finite numbers within the range of float16, 65504 in size. [C, h, w]
        cells_per_pixel_x: Cells per pixel of the photo's own file along its width; None, and then both: the
            map spans the whole photo.
        cells_per_pixel_y: The same along its height.

    Raises:
        ValueError: The shape is another, or a number does not fit into float16.
    """
    if (cells_per_pixel_x is None) != (cells_per_pixel_y is None):
        raise ValueError("give cells_per_pixel_x and cells_per_pixel_y, or neither")
    if features.ndim != 3:
        raise ValueError(f"expected features [channels, rows, columns], got {list(features.shape)}")
    half = features.detach().to("cpu", torch.float16).contiguous()
    if not torch.isfinite(half).all():
        largest = features.abs().max().item()
        raise ValueError(
            f"features must be finite and at most 65504 (float16), got {largest:g}; normalise them"
        )
    metadata = {}
    if cells_per_pixel_x is not None and cells_per_pixel_y is not None:
        metadata = dict(
            zip(KEYS, (repr(float(cells_per_pixel_x)), repr(float(cells_per_pixel_y))), strict=True)
        )
    with atomic_write(path) as temporary:
        save_file({"features": half}, temporary, metadata=metadata)


def _snapped(cells: float) -> float:
    """Whole numbers of cells that lost a bit to rounding, such as 21.999999999999996, made whole again."""
    whole = round(cells)
    return float(whole) if abs(cells - whole) < 1e-6 * max(1.0, cells) else cells
