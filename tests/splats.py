"""2D splats for the tests of blending: made from random scenes, blended by the reference and by the ops."""

import dataclasses
import math
from typing import Any

import torch
from random_scenes import RandomScene, random_scene
from torch import Tensor

from feature_gs.rasterizer.cells import CellWeights
from feature_gs.rasterizer.ops import POOLED_CELL, ops
from feature_gs.rasterizer.reference import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    pixel_alphas,
    pixel_centres,
    project_reference,
    rasterize_reference,
)

Images = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]
IMAGE_NAMES = ("color", "alpha", "depth", "median_depth", "features")


@dataclasses.dataclass
class Splats:
    """What `project` gives, with features and a background."""

    means2d: Tensor  # [B, N, 2]
    conics: Tensor  # [B, N, 3]
    opacities: Tensor  # [B, N]
    colors: Tensor  # [B, N, 3]
    depths: Tensor  # [B, N]
    radii: Tensor  # [B, N] int32
    features: Tensor | None  # [N, C]
    background: Tensor | None  # [3]
    width: int
    height: int

    def leaves(self) -> dict[str, Tensor]:
        """The tensors that may carry a gradient, by name."""
        names = ("means2d", "conics", "opacities", "colors", "depths", "features", "background")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def to(self, dtype: torch.dtype, requires_grad: bool = False) -> "Splats":
        """A copy in another precision."""
        copies: dict[str, Any] = {
            name: t.detach().to(dtype, copy=True).requires_grad_(requires_grad)
            for name, t in self.leaves().items()
        }
        return dataclasses.replace(self, **copies)


def splats_of(scene: RandomScene, channels: int = 0, background: bool = True, near: float = 0.2) -> Splats:
    """The projected scene with random features, exact in float32: both precisions see the same splats."""
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh_dc, scene.sh_rest)
    cameras = (scene.cam_from_world, scene.K)
    projected = project_reference(*geometry, *cameras, scene.width, scene.height, near, math.inf)
    rng = torch.Generator().manual_seed(7)
    features = torch.randn(scene.means.shape[0], channels, generator=rng) if channels else None
    color = torch.rand(3, generator=rng) if background else None
    splats = Splats(*projected, features, color, scene.width, scene.height)
    return splats.to(torch.float32).to(torch.float64)


def random_splats(count: int, width: int, height: int, *, channels: int = 0, **scene: object) -> Splats:
    """Splats of a `random_scene`."""
    return splats_of(random_scene(count, width, height, **scene), channels)  # type: ignore[arg-type]


def blend_reference(
    splats: Splats, cell: int = 1, move: bool = False, absgrad: Tensor | None = None
) -> Images:
    """Blends by the plain-PyTorch twin; `move` is features_move_geometry."""
    geometry = (splats.means2d, splats.conics, splats.opacities, splats.colors, splats.depths, splats.radii)
    size = (splats.width, splats.height)
    return rasterize_reference(*geometry, splats.features, splats.background, *size, cell, move, absgrad)


def blend_compiled(
    splats: Splats, cell: int = 1, move: bool = False, absgrad: Tensor | None = None
) -> Images:
    """Blends by the compiled ops, composed as `rasterize` does."""
    outputs, cells = run_ops(splats, cell, move, absgrad)
    features: Tensor | None = outputs[4]
    if splats.features is None:
        features = None
    elif cells is not None:
        features = cells.blend(splats.features)
    return outputs[0], outputs[1], outputs[2], outputs[3], features


def cells_compiled(splats: Splats, cell: int, move: bool = False) -> CellWeights:
    """The cell weights by the compiled ops."""
    cells = run_ops(splats, cell, move)[1]
    assert cells is not None
    return cells


def run_ops(
    splats: Splats, cell: int, move: bool = False, absgrad: Tensor | None = None
) -> tuple[tuple[Tensor, ...], CellWeights | None]:
    """What the op `rasterize` puts out, and for cells of 4 pixels or more the weights that it found."""
    lists = ops.intersect(*intersect_arguments(splats))
    outputs = ops.rasterize(*rasterize_arguments(splats, lists, cell, move, absgrad))
    if cell < POOLED_CELL:
        return outputs, None
    weights = outputs[7] if move else outputs[7].detach()
    batch, count = splats.radii.shape
    shape = (batch, -(-splats.height // cell), -(-splats.width // cell))
    return outputs, CellWeights(weights, lists, shape, count)


def intersect_arguments(splats: Splats) -> tuple[Any, ...]:
    """What the op `intersect` takes."""
    geometry = (splats.means2d, splats.conics, splats.opacities, splats.depths, splats.radii)
    return (*(t.detach() for t in geometry), splats.width, splats.height)


def rasterize_arguments(
    splats: Splats,
    lists: tuple[Tensor, ...],
    cell: int,
    move: bool,
    absgrad: Tensor | None,
    tensor_cores: bool = False,
) -> tuple[Any, ...]:
    """What the op `rasterize` takes: of the lists of `intersect` all but `slot_tiles`."""
    geometry = (splats.means2d, splats.conics, splats.opacities, splats.colors, splats.depths)
    features = None if cell >= POOLED_CELL else splats.features
    tiles, gaussians, slots, _, offsets = lists
    payload = (features, splats.background, absgrad, tiles, gaussians, slots, offsets)
    return (*geometry, *payload, splats.width, splats.height, cell, move, tensor_cores)


def _near(values: Tensor, boundary: float, margin: float) -> Tensor:
    return (values / boundary - 1).abs() < margin


def fragile_pixels(splats: Splats, tolerance: float) -> tuple[Tensor, Tensor]:
    """Pixels where rounding decides, being on the boundary of one of the rules of blending.

    Args:
        splats: In float64.
        tolerance: Relative distance of alpha from 1/255 and 0.99; ten times that of T from 1e-4 and, for the
            median, from 0.5.

    Returns:
        Those where the blending is in doubt, and those where the median depth is. Both [B, H, W] bool.
    """
    pixels = pixel_centres(splats.width, splats.height, splats.means2d)
    blending, median = [], []
    for b in range(splats.means2d.shape[0]):
        order = splats.depths[b].argsort(stable=True)
        order = order[splats.radii[b][order] > 0]
        for chunk in pixels.split(max(1, 250_000 // max(1, order.numel()))):
            geometry = (splats.means2d[b, order], splats.conics[b, order], splats.opacities[b, order])
            alphas = pixel_alphas(*geometry, chunk)
            used = torch.where(alphas >= MIN_ALPHA, alphas.clamp(max=MAX_ALPHA), 0.0)
            behind = torch.cumprod(1 - used, dim=-1)
            seen = behind / (1 - used) > 0.99 * MIN_TRANSMITTANCE  # not hidden by those in front

            doubtful = _near(alphas, MIN_ALPHA, tolerance) | _near(alphas, MAX_ALPHA, tolerance)
            doubtful |= _near(behind, MIN_TRANSMITTANCE, 10 * tolerance)
            blending.append((seen & doubtful).any(dim=-1))
            median.append((seen & _near(behind, 0.5, 10 * tolerance)).any(dim=-1))
    shape = (splats.means2d.shape[0], splats.height, splats.width)
    return torch.cat(blending).reshape(shape), torch.cat(median).reshape(shape)


def any_in_cell(pixels: Tensor, cell: int) -> Tensor:
    """Whether a cell has such a pixel. [B, H, W] bool -> [B, ceil(H / cell), ceil(W / cell)] bool."""
    return torch.nn.functional.max_pool2d(pixels[:, None].float(), cell, ceil_mode=True)[:, 0] > 0
