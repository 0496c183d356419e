"""The one public call: 3D Gaussians and cameras in; colour, alpha, depth and features out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from feature_gs.rasterizer.cells import CellWeights
from feature_gs.rasterizer.ops import FEATURE_CELLS, POOLED_CELL, ops


@dataclass
class RenderOutput:
    """What `rasterize` returns.

    Attributes:
        color: Colour over the background. [B, H, W, 3]
        alpha: Coverage, 1 - T_final. [B, H, W]
        depth: Expected z, Σ w z / Σ w; 0 where nothing is. [B, H, W]
        median_depth: z of the Gaussian that takes the transmittance below 0.5; 0 where none does. [B, H, W],
            without gradient.
        features: Mean feature of each cell over a background of zero, or None.
            [B, ceil(H/cell), ceil(W/cell), C]
        radii: Pixels from the centre out to alpha = 1/255; 0 = not visible. [B, N] int32
        means2d: Projected centres, pixels; call `.retain_grad()` before `backward()` to read their gradient.
            [B, N, 2]
        absgrad: With `absgrad=True` a tensor whose `.grad` is, after `backward()`, the sum over pixels of
            |dL/dmeans2d|. [B, N, 2]
        cells: With `cell_weights=True` the Gaussians' weights in the feature cells, else None. They carry a
            gradient only with `features_move_geometry`.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    median_depth: Tensor
    features: Tensor | None
    radii: Tensor
    means2d: Tensor
    absgrad: Tensor | None
    cells: CellWeights | None = None


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    cam_from_world: Tensor,  # [B, 4, 4]
    K: Tensor,  # [B, 3, 3]
    width: int,
    height: int,
    *,
    colors: Tensor | None = None,  # [N, 3]
    sh: Tensor | tuple[Tensor, Tensor] | None = None,  # [N, K, 3] | ([N, 3], [N, K-1, 3])
    features: Tensor | None = None,  # [N, C]
    feature_cell: int = 1,
    background: Tensor | None = None,  # [3]
    antialiased: bool = False,
    near: float = 0.01,
    far: float = float("inf"),
    features_move_geometry: bool = False,
    absgrad: bool = False,
    cell_weights: bool = False,
    tensor_cores: bool = True,
) -> RenderOutput:
    """Renders 3D Gaussians with B pinhole cameras, differentiably (Kerbl et al., 3D Gaussians, 2023).

    Features are blended as a matrix product of the blending weights, pooled over cells of pixels, with
    `features`: any number of channels, and for large cells a sparse matrix whose cost grows with Gaussians
    rather than pixels. A Gaussian with a non-finite parameter is not drawn. The cameras carry no gradient.

    Args:
        means: Centres in world space. [N, 3] float32 (float64 for checks)
        quats: Rotations w, x, y, z of any non-zero length. [N, 4]
        scales: Standard deviations along the axes, world units, activated (> 0). [N, 3]
        opacities: In [0, 1], activated. [N]
        cam_from_world: Poses, OpenCV axes (x right, y down, z forward). [B, 4, 4]
        K: Intrinsics in pixels; pixel (0, 0) has its centre at (0.5, 0.5). [B, 3, 3]
        width: Pixels.
        height: Pixels.
        colors: RGB, used as it is. [N, 3]
        sh: Spherical-harmonics coefficients with K in {1, 4, 9, 16}, rgb = max(0.5 + Σ, 0); either one tensor
            [N, K, 3] or the pair of its first and its other coefficients, which spares a copy. Give `colors`
            or `sh`, or neither for black.
        features: Any number of channels C >= 1, finite. float16 and bfloat16 are blended as float32. [N, C]
        feature_cell: Side of a feature cell in pixels: 1, 2, 4, 8 or 16. The last row and column of cells
            average only the pixels inside the image.
        background: Colour behind everything; black when absent. [3]
        antialiased: Lowers opacities by what the 0.3 px² blur adds to a splat's area.
        near: Nearest z drawn.
        far: Farthest z drawn.
        features_move_geometry: Lets the gradient of the feature image, and of images made of
            `RenderOutput.cells`, reach means, quats, scales and opacities. Off: these get exactly zero.
        absgrad: Also provides the sum over pixels of absolute 2D gradients, see `RenderOutput.absgrad`.
        cell_weights: Also provides the weights of the feature cells, from which feature images of any kind
            are made later, see `RenderOutput.cells`. Needs a `feature_cell` of 4, 8 or 16.
        tensor_cores: CUDA and float32 only, from compute capability 8.0 on: blends the features of cells of 1
            or 2 pixels, and sums their gradients, with TF32 operands (10 bits of mantissa) and float32 sums.
            Off, and on the CPU: multiplies in the precision of the features.

    Returns:
        Images of all cameras, see `RenderOutput`.

    Raises:
        ValueError: A shape, dtype, device or option is wrong; the message names expected and got.

    Example:
        >>> means, quats = torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]])
        >>> scales, opacities = torch.full((1, 3), 0.1), torch.tensor([0.9])
        >>> K = torch.tensor([[[50.0, 0, 16], [0, 50, 12], [0, 0, 1]]])
        >>> out = rasterize(means, quats, scales, opacities, torch.eye(4)[None], K, 32, 24,
        ...     colors=torch.ones(1, 3))
        >>> out.color.shape
        torch.Size([1, 24, 32, 3])
    """
    count, batch = means.shape[0], cam_from_world.shape[0]
    _check(means, "means", (count, 3), means)
    _check(quats, "quats", (count, 4), means)
    _check(scales, "scales", (count, 3), means)
    _check(opacities, "opacities", (count,), means)
    _check(cam_from_world, "cam_from_world", (batch, 4, 4), means)
    _check(K, "K", (batch, 3, 3), means)
    if colors is not None and sh is not None:
        raise ValueError("give colors or sh, not both")
    if feature_cell not in FEATURE_CELLS:
        raise ValueError(f"feature_cell must be one of {FEATURE_CELLS}, got {feature_cell}")
    if cell_weights and feature_cell < POOLED_CELL:
        raise ValueError(f"cell_weights needs a feature_cell of 4, 8 or 16, got {feature_cell}")
    if width < 1 or height < 1:
        raise ValueError(f"the image must have at least one pixel, got {width} x {height}")
    if background is not None:
        _check(background, "background", (3,), means)
    if features is not None:
        wide = features.to(means.dtype) if features.dtype in (torch.float16, torch.bfloat16) else features
        _check(wide, "features", (count, features.shape[-1]), means)
        if feature_cell < POOLED_CELL:
            features = wide
        if features.shape[1] < 1:
            raise ValueError("features must have at least one channel, got [N, 0]")
    sh_dc, sh_rest = _split_sh(sh, count, means)

    means2d, conics, blended, sh_colors, depths, radii = ops.project(
        means,
        quats,
        scales,
        opacities,
        sh_dc,
        sh_rest,
        cam_from_world,
        K,
        width,
        height,
        near,
        far,
        antialiased,
    )
    if colors is not None:
        _check(colors, "colors", (count, 3), means)
        splat_colors = colors.expand(batch, count, 3)
    else:
        splat_colors = sh_colors if sh is not None else means.new_zeros(batch, count, 3)
    # A stand-in whose "gradient" is the sum of absolute gradients: it takes part in nothing.
    stand_in = torch.zeros_like(means2d, requires_grad=True) if absgrad else None
    with torch.no_grad():
        lists = ops.intersect(means2d, conics, blended, depths, radii, width, height)
    *pairs, _, gaussian_offsets = lists
    pooled = feature_cell >= POOLED_CELL and (cell_weights or features is not None)
    color, alpha, depth, median_depth, feature_map, _, _, weights = ops.rasterize(
        means2d,
        conics,
        blended,
        splat_colors,
        depths,
        None if pooled else features,
        background,
        stand_in,
        *pairs,
        gaussian_offsets,
        width,
        height,
        feature_cell if pooled or features is not None else 1,
        features_move_geometry,
        tensor_cores,
    )
    cells = None
    if pooled:
        kept = weights if features_move_geometry else weights.detach()
        shape = (batch, -(-height // feature_cell), -(-width // feature_cell))
        cells = CellWeights(kept, lists, shape, count)
        if features is not None:
            feature_map = cells.blend(features)
    return RenderOutput(
        color=color,
        alpha=alpha,
        depth=depth,
        median_depth=median_depth,
        features=None if features is None else feature_map,
        radii=radii,
        means2d=means2d,
        absgrad=stand_in,
        cells=cells if cell_weights else None,
    )


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], like: Tensor) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {tensor.dtype}")
    if tensor.dtype != like.dtype or tensor.device != like.device:
        raise ValueError(
            f"{name} must be {like.dtype} on {like.device} like means, got {tensor.dtype} on {tensor.device}"
        )


def _split_sh(
    sh: Tensor | tuple[Tensor, Tensor] | None, count: int, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    if sh is None:
        return None, None
    if isinstance(sh, Tensor):
        if sh.dim() != 3:
            raise ValueError(f"sh must be [{count}, K, 3], got {list(sh.shape)}")
        sh = (sh[:, 0], sh[:, 1:])
    sh_dc, sh_rest = sh
    _check(sh_dc, "sh (first coefficient)", (count, 3), like)
    _check(
        sh_rest, "sh (other coefficients)", (count, sh_rest.shape[1] if sh_rest.dim() == 3 else -1, 3), like
    )
    if sh_rest.shape[1] not in (0, 3, 8, 15):
        raise ValueError(
            f"sh must have 1, 4, 9 or 16 coefficients (degree 0 to 3), got {sh_rest.shape[1] + 1}"
        )
    return sh_dc, sh_rest
