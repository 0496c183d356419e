"""Loads the compiled ops, and tells torch their output shapes and their gradients.

The ops live under `torch.ops.feature_gs`; their contracts stand in the headers of `csrc/`. Use them through
`feature_gs.rasterizer.rasterize`.
"""

from typing import Any

import torch
from torch import Tensor

from feature_gs import _C

build_info = _C.build_info
ops = torch.ops.feature_gs

TILE = 16  # pixels along the side of a tile
FEATURE_CELLS = (1, 2, 4, 8, 16)
POOLED_CELL = 4  # from this size on the op puts out weights per cell, and cells.py makes features of them


# ---------------------------------------------------------------------------------------------------- project
@torch.library.register_fake("feature_gs::project")
def _project_fake(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    sh_dc: Tensor | None,  # [N, 3]
    sh_rest: Tensor | None,  # [N, K-1, 3]
    cam_from_world: Tensor,  # [B, 4, 4]
    K: Tensor,  # [B, 3, 3]
    width: int,
    height: int,
    near: float,
    far: float,
    antialiased: bool,
) -> tuple[Tensor, ...]:
    batch, count = cam_from_world.shape[0], means.shape[0]
    return (
        means.new_empty(batch, count, 2),
        means.new_empty(batch, count, 3),
        means.new_empty(batch, count),
        means.new_empty(batch, 0 if sh_dc is None else count, 3),
        means.new_empty(batch, count),
        means.new_empty(batch, count, dtype=torch.int32),
    )


@torch.library.register_fake("feature_gs::project_backward")
def _project_backward_fake(*args: Any) -> tuple[Tensor, ...]:
    means, quats, scales, opacities, sh_dc, sh_rest = args[5:11]
    return (
        means.new_empty(means.shape),
        quats.new_empty(quats.shape),
        scales.new_empty(scales.shape),
        opacities.new_empty(opacities.shape),
        means.new_empty(0 if sh_dc is None else means.shape[0], 3),
        means.new_empty((0, 0, 3) if sh_rest is None else sh_rest.shape),
    )


def _project_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    colors, radii = output[3], output[5]
    ctx.mark_non_differentiable(radii)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:8], colors, radii)
    ctx.settings = inputs[8:]


def _project_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, colors, radii = ctx.saved_tensors
    if all(grad is None for grad in grads):
        return (None,) * 13
    means, sh_dc, sh_rest = inputs[0], inputs[4], inputs[5]
    batch, count = radii.shape
    shapes = ((batch, count, 2), (batch, count, 3), (batch, count), tuple(colors.shape), (batch, count))
    given = [means.new_zeros(shape) if g is None else g for g, shape in zip(grads, shapes, strict=False)]
    out = ops.project_backward(*given, *inputs, *ctx.settings, colors, radii)
    g_dc = None if sh_dc is None else out[4]
    g_rest = None if sh_rest is None else out[5]
    return (*out[:4], g_dc, g_rest, *(None,) * 7)


torch.library.register_autograd("feature_gs::project", _project_backward, setup_context=_project_setup)


# -------------------------------------------------------------------------------------------------- intersect
@torch.library.register_fake("feature_gs::intersect")
def _intersect_fake(
    means2d: Tensor,  # [B, N, 2]
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    depths: Tensor,  # [B, N]
    radii: Tensor,  # [B, N]
    width: int,
    height: int,
) -> tuple[Tensor, ...]:
    batch, count = radii.shape
    tiles = batch * (-(-width // TILE)) * (-(-height // TILE))
    pairs = torch.library.get_ctx().new_dynamic_size()
    return (
        means2d.new_empty(tiles + 1, dtype=torch.int64),
        means2d.new_empty(pairs, dtype=torch.int32),
        means2d.new_empty(pairs, dtype=torch.int32),
        means2d.new_empty(pairs, dtype=torch.int32),
        means2d.new_empty(batch * count + 1, dtype=torch.int64),
    )


# -------------------------------------------------------------------------------------------------- rasterize
@torch.library.register_fake("feature_gs::rasterize")
def _rasterize_fake(
    means2d: Tensor,  # [B, N, 2]
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    colors: Tensor,  # [B, N, 3]
    depths: Tensor,  # [B, N]
    features: Tensor | None,  # [N, C]
    background: Tensor | None,  # [3]
    absgrad: Tensor | None,  # [B, N, 2]
    tile_offsets: Tensor,  # [B * tiles + 1]
    pair_gaussians: Tensor,  # [P]
    pair_slots: Tensor,  # [P]
    gaussian_offsets: Tensor,  # [B * N + 1]
    width: int,
    height: int,
    feature_cell: int,
    features_move_geometry: bool,
    tensor_cores: bool,
) -> tuple[Tensor, ...]:
    batch = means2d.shape[0]
    channels = 0 if features is None else features.shape[1]
    rows, columns = -(-height // feature_cell), -(-width // feature_cell)
    pooled = feature_cell >= POOLED_CELL
    image = (batch, height, width)
    return (
        means2d.new_empty(*image, 3),
        means2d.new_empty(image),
        means2d.new_empty(image),
        means2d.new_empty(image),
        means2d.new_empty(0 if features is None else batch, rows, columns, channels),
        means2d.new_empty(image),
        means2d.new_empty(image, dtype=torch.int32),
        means2d.new_empty(pair_slots.shape[0] if pooled else 0, (TILE // feature_cell) ** 2 if pooled else 0),
    )


@torch.library.register_fake("feature_gs::rasterize_backward")
def _rasterize_backward_fake(*args: Any) -> tuple[Tensor, ...]:
    grad_features, _, means2d, conics, opacities, colors, depths, features = args[3:11]
    absgrad, features_need_grad = args[25], args[26]
    batch, count = opacities.shape
    channels = 0 if features is None else features.shape[1]
    wanted = features is not None and grad_features is not None and features_need_grad
    return (
        means2d.new_empty(means2d.shape),
        conics.new_empty(conics.shape),
        opacities.new_empty(opacities.shape),
        colors.new_empty(colors.shape),
        depths.new_empty(depths.shape),
        means2d.new_empty(count if wanted else 0, channels),
        means2d.new_empty(batch if absgrad else 0, count, 2),
    )


def _rasterize_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, alpha, depth, median_depth, _, transmittance, last, _ = output
    ctx.mark_non_differentiable(median_depth, transmittance, last)
    ctx.set_materialize_grads(False)
    absgrad = inputs[7]
    ctx.save_for_backward(*inputs[:7], *inputs[8:12], alpha, depth, transmittance, last)
    ctx.settings = (*inputs[12:17], absgrad is not None)


def _rasterize_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    g_color, g_alpha, g_depth, _, g_features, _, _, g_weights = grads
    features, background, transmittance = (ctx.saved_tensors[k] for k in (5, 6, 13))
    needed = ctx.needs_input_grad
    g_background = None
    if background is not None and needed[6] and g_color is not None:
        g_background = torch.einsum("bhwc,bhw->c", g_color, transmittance)
    if features is None:
        g_features = None
    *size, cell, move_geometry, tensor_cores, absgrad = ctx.settings
    moves = any(needed[:5]) or absgrad
    if not moves:  # the op passes over the splats only for what comes back to them
        g_color = g_alpha = g_depth = g_weights = None
        move_geometry = False
    given = (g_color, g_alpha, g_depth, g_features, g_weights)
    if all(grad is None for grad in given):
        return (*(None,) * 6, g_background, *(None,) * 10)
    settings = (*size, cell, move_geometry, tensor_cores, absgrad)
    out = ops.rasterize_backward(*given, *ctx.saved_tensors, *settings, needed[5])
    return (
        *(out[:5] if moves else (None,) * 5),
        out[5] if needed[5] and g_features is not None else None,
        g_background,
        out[6] if absgrad else None,
        *(None,) * 9,
    )


torch.library.register_autograd("feature_gs::rasterize", _rasterize_backward, setup_context=_rasterize_setup)


# ------------------------------------------------------------------------------------------------------- ssim
@torch.library.register_fake("feature_gs::ssim")
def _ssim_fake(image: Tensor, target: Tensor) -> tuple[Tensor, ...]:  # [B, H, W, C], [B, H, W, C]
    maps = (image.new_empty(image.shape) for _ in range(3))
    return (image.new_empty(image.shape[0]), *maps)


@torch.library.register_fake("feature_gs::ssim_backward")
def _ssim_backward_fake(grad: Tensor, image: Tensor, *rest: Tensor) -> Tensor:  # [B], [B, H, W, C]
    return image.new_empty(image.shape)


def _ssim_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output[1:])


def _ssim_backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, None]:
    return (None if grad is None else ops.ssim_backward(grad, *ctx.saved_tensors)), None


torch.library.register_autograd("feature_gs::ssim", _ssim_backward, setup_context=_ssim_setup)


def ssim(
    image: Tensor,  # [B, H, W, C]
    target: Tensor,  # [B, H, W, C]
) -> Tensor:
    """Mean structural similarity of each image, as the reference 3D Gaussian splatting computes it.

    Gaussian window of 11 pixels with sigma 1.5, zero padding, C1 = 0.01², C2 = 0.03², values in [0, 1]
    (Wang et al., Image quality assessment, 2004). One fused op, forward and backward.

    Args:
        image: Images, float32 or float64. [B, H, W, C]
        target: What they are compared with; carries no gradient. [B, H, W, C]

    Returns:
        Mean over pixels and channels. [B]

    Raises:
        RuntimeError: The shapes or dtypes differ.
    """
    return ops.ssim(image, target)[0]
