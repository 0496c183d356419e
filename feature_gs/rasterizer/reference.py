"""Plain PyTorch twins of the compiled ops: slow, differentiable by autograd, in any floating dtype.

They say what the compiled ops must compute, so they are written for reading, and the tests compare with them
value by value and gradient by gradient. Memory and time grow with Gaussians x pixels: for small scenes only.
"""

import math

import torch
from torch import Tensor

from feature_gs.rasterizer.rasterize import RenderOutput

BLUR = 0.3  # added to the diagonal of every 2D covariance, pixels squared
MIN_ALPHA = 1.0 / 255.0  # fainter contributions are skipped
MAX_ALPHA = 0.99  # opaque Gaussians still let 1 % through
MIN_TRANSMITTANCE = 1e-4  # blending stops before the Gaussian that would reach this
MIN_COMPENSATION = 0.005  # floor of the antialiasing factor
TILE = 16  # pixels along a tile's side

_MAX_RADIUS = 1_000_000
_ALPHAS_PER_CHUNK = 250_000  # bounds the memory of rasterize_reference


def sh_basis(directions: Tensor, bands: int) -> Tensor:
    """Real spherical harmonics at unit directions, in the order and with the signs that 3DGS PLY files use.

    Args:
        directions: Unit vectors. [M, 3]
        bands: Number of basis functions: 1, 4, 9 or 16.

    Returns:
        The values of the basis functions. [M, bands]
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.5 / math.sqrt(math.pi))]
    if bands > 1:
        linear = math.sqrt(3.0 / (4.0 * math.pi))
        basis += [-linear * y, linear * z, -linear * x]
    if bands > 4:
        quadratic = 0.5 * math.sqrt(15.0 / math.pi)
        basis += [
            quadratic * x * y,
            -quadratic * y * z,
            0.25 * math.sqrt(5.0 / math.pi) * (3.0 * z * z - 1.0),
            -quadratic * x * z,
            0.5 * quadratic * (x * x - y * y),
        ]
    if bands > 9:
        edge = 0.25 * math.sqrt(35.0 / (2.0 * math.pi))
        middle = 0.25 * math.sqrt(21.0 / (2.0 * math.pi))
        inner = 0.5 * math.sqrt(105.0 / math.pi)
        basis += [
            -edge * y * (3.0 * x * x - y * y),
            inner * x * y * z,
            -middle * y * (5.0 * z * z - 1.0),
            0.25 * math.sqrt(7.0 / math.pi) * z * (5.0 * z * z - 3.0),
            -middle * x * (5.0 * z * z - 1.0),
            0.5 * inner * z * (x * x - y * y),
            -edge * x * (x * x - 3.0 * y * y),
        ]
    return torch.stack(basis, dim=-1)


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [M, 3, 3] of quaternions (w, x, y, z) of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _clamped_slopes(
    p_cam: Tensor,  # [M, 3]
    focal: Tensor,  # [M, 2]
    centre: Tensor,  # [M, 2]
    size: Tensor,  # [2] width, height
) -> Tensor:
    """x/z and y/z [M, 2], clamped to 15 % of the image size around the image: where the Jacobian is taken."""
    lower = -centre / focal - 0.15 * size / focal
    upper = (size - centre) / focal + 0.15 * size / focal
    slopes = p_cam[:, :2] / p_cam[:, 2:]
    # where() rather than minimum()/maximum(), which would share the gradient with the limits on a tie
    return torch.where(slopes < lower, lower, torch.where(slopes > upper, upper, slopes))


def _project_pairs(
    means: Tensor,  # [M, 3]
    quats: Tensor,  # [M, 4]
    scales: Tensor,  # [M, 3]
    opacities: Tensor,  # [M]
    cam_from_world: Tensor,  # [M, 4, 4]
    K: Tensor,  # [M, 3, 3]
    size: Tensor,  # [2]
    antialiased: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One Gaussian and camera per row: means2d [M,2], cov2d xx xy yy [M,3], det [M], opacities [M], z [M]."""
    rotation = cam_from_world[:, :3, :3]
    p_cam = torch.einsum("mij,mj->mi", rotation, means) + cam_from_world[:, :3, 3]
    z = p_cam[:, 2]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1)
    centre = torch.stack([K[:, 0, 2], K[:, 1, 2]], dim=-1)
    means2d = focal * p_cam[:, :2] / z[:, None] + centre

    slopes = _clamped_slopes(p_cam, focal, centre, size)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([focal[:, 0] / z, zero, -focal[:, 0] * slopes[:, 0] / z], dim=-1),
            torch.stack([zero, focal[:, 1] / z, -focal[:, 1] * slopes[:, 1] / z], dim=-1),
        ],
        dim=-2,
    )
    half = jacobian @ rotation @ (rotation_matrices(quats) * scales[:, None, :])  # [M, 2, 3]
    cov = half @ half.transpose(-1, -2)
    xx, xy, yy = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
    det_sharp = xx * yy - xy * xy
    xx, yy = xx + BLUR, yy + BLUR
    det = xx * yy - xy * xy
    if antialiased:
        opacities = opacities * (det_sharp / det).clamp(min=MIN_COMPENSATION**2).sqrt()
    return means2d, torch.stack([xx, xy, yy], dim=-1), det, opacities, z


def project_reference(
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
    near: float = 0.01,
    far: float = math.inf,
    antialiased: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Project 3D Gaussians to 2D, with J taken at clamped x/z, y/z: `cov2d = J Q R S S R^T Q^T J^T + 0.3 I`.

    A Gaussian is visible in a camera if its z lies in (near, far), its 2D covariance is invertible, its
    opacity reaches 1/255, and the bounding box of the ellipse on which alpha is 1/255 overlaps the image. All
    outputs of an invisible Gaussian are zero and carry no gradient. Radii have no gradient.

    Args:
        means: Centres in world space. [N, 3]
        quats: Rotations (w, x, y, z), any length. [N, 4]
        scales: Standard deviations along the rotated axes. [N, 3]
        opacities: In [0, 1]. [N]
        sh_dc: Spherical-harmonics coefficients of band 0; None gives no colours. [N, 3]
        sh_rest: The further coefficients; None for degree 0. [N, K-1, 3], K in {4, 9, 16}
        cam_from_world: Poses. [B, 4, 4]
        K: Intrinsics fx, fy, cx, cy in pixels. [B, 3, 3]
        width: Image width in pixels.
        height: Image height in pixels.
        near: Only Gaussians with z > near are visible.
        far: Only Gaussians with z < far are visible.
        antialiased: Scale opacities by max(sqrt(det(cov2d - 0.3 I) / det(cov2d)), 0.005).

    Returns:
        means2d [B, N, 2], conics xx xy yy [B, N, 3], opacities [B, N], colors [B, N, 3] ([B, 0, 3] if none),
        depths [B, N], radii [B, N] int32 (pixels, rounded up; 0 = not visible).
    """
    batch, count = cam_from_world.shape[0], means.shape[0]
    size = means.new_tensor([width, height])

    def project(b: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        args = (means[n], quats[n], scales[n], opacities[n], cam_from_world[b], K[b])
        return _project_pairs(*args, size, antialiased)

    with torch.no_grad():
        b, n = torch.ones(batch, count, dtype=torch.bool, device=means.device).nonzero(as_tuple=True)
        centre, cov, det, opacity, z = project(b, n)
        log_ratio = torch.log(opacity / MIN_ALPHA).clamp(min=0)
        extent = (2 * log_ratio[:, None] * cov[:, ::2]).sqrt()
        inside = ((centre + extent > 0) & (centre - extent < size)).all(dim=-1)
        visible = inside & (z > near) & (z < far) & (det > 0) & (opacity >= MIN_ALPHA)
        b, n = b[visible], n[visible]
        radius = extent[visible].amax(dim=-1).ceil().clamp(1, _MAX_RADIUS)

    centre, cov, det, opacity, z = project(b, n)
    conic = torch.stack([cov[:, 2], -cov[:, 1], cov[:, 0]], dim=-1) / det[:, None]

    def scatter(values: Tensor) -> Tensor:
        return values.new_zeros((batch, count, *values.shape[1:])).index_put((b, n), values)

    if sh_dc is None:
        colors = means.new_zeros(batch, 0, 3)
    else:
        rotation, translation = cam_from_world[:, :3, :3], cam_from_world[:, :3, 3]
        camera_centre = -torch.einsum("bji,bj->bi", rotation, translation)
        coefficients = sh_dc[n, None] if sh_rest is None else torch.cat([sh_dc[n, None], sh_rest[n]], dim=1)
        directions = torch.nn.functional.normalize(means[n] - camera_centre[b], dim=-1)
        basis = sh_basis(directions, coefficients.shape[1])
        colors = scatter(torch.relu(0.5 + torch.einsum("mk,mkc->mc", basis, coefficients)))

    radii = torch.zeros(batch, count, dtype=torch.int32, device=means.device)
    radii[b, n] = radius.to(torch.int32)
    return scatter(centre), scatter(conic), scatter(opacity), colors, scatter(z), radii


def pixel_alphas(
    means2d: Tensor,  # [..., G, 2]
    conics: Tensor,  # [G, 3]
    opacities: Tensor,  # [G]
    pixels: Tensor,  # [P, 2] centres, x then y
) -> Tensor:
    """Alpha of each Gaussian at each pixel [P, G], before the rules for faint and opaque; 0 if sigma < 0."""
    dx, dy = (pixels[:, None, :] - means2d).unbind(-1)
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    return torch.where(sigma >= 0, opacities * torch.exp(-sigma), 0.0)


def blend_weights(alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and transmittances of Gaussians sorted by depth.

    Args:
        alphas: From `pixel_alphas`. [P, G]

    Returns:
        weights alpha * T, zero where skipped or after the stop [P, G]; T behind each Gaussian [P, G].
    """
    used = torch.where(alphas >= MIN_ALPHA, alphas.clamp(max=MAX_ALPHA), 0.0)
    behind = torch.cumprod(1 - used, dim=-1)
    used = torch.where(behind > MIN_TRANSMITTANCE, used, 0.0)
    behind = torch.cumprod(1 - used, dim=-1)
    before = torch.cat([torch.ones_like(behind[:, :1]), behind[:, :-1]], dim=-1)
    return used * before, behind


class _MeansPerPixel(torch.autograd.Function):
    """Repeats means2d for every pixel; sends the sum of |gradient| over the pixels to a second input."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, means2d: Tensor, absgrad: Tensor, pixels: int
    ) -> Tensor:
        return means2d.expand(pixels, *means2d.shape).clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad.sum(0), grad.abs().sum(0), None


def pixel_centres(width: int, height: int, like: Tensor) -> Tensor:
    """Centres [height * width, 2] of all pixels, row by row: (0.5, 0.5), (1.5, 0.5), and so on."""
    ys = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    xs = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2)


def _pool_cells(image: Tensor, cell: int) -> Tensor:
    """Averages [h, w, C] over cells of `cell` x `cell` pixels, those at the border over their real pixels."""
    height, width, _ = image.shape
    padding = (0, 0, 0, -width % cell, 0, -height % cell)

    def cell_sum(x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, padding)
        return padded.unflatten(1, (-1, cell)).unflatten(0, (-1, cell)).sum(dim=(1, 3))

    return cell_sum(image) / cell_sum(torch.ones_like(image[:, :, :1]))


def rasterize_reference(
    means2d: Tensor,  # [B, N, 2]
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    colors: Tensor,  # [B, N, 3]
    depths: Tensor,  # [B, N]
    radii: Tensor,  # [B, N] int32
    features: Tensor | None,  # [N, C]
    background: Tensor | None,  # [3]
    width: int,
    height: int,
    feature_cell: int = 1,
    features_move_geometry: bool = False,
    absgrad: Tensor | None = None,  # [B, N, 2]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Blend all visible Gaussians at every pixel, front to back by (depth, index).

    With `alpha = min(0.99, opacity exp(-sigma))`, skipped below 1/255, and `w = alpha T`: colour is
    `sum w color + T_final background`, depth `sum w z / sum w` (0 where nothing is), median depth the z of
    the Gaussian behind which T is first below 0.5 (0 if none; no gradient), features the mean over a cell's
    pixels of `sum w feature`. The gradient of `absgrad`, if given, is the sum over pixels of |dL/dmeans2d|.

    Returns:
        color [B, H, W, 3], alpha [B, H, W], depth [B, H, W], median_depth [B, H, W],
        features [B, ceil(H / cell), ceil(W / cell), C] or None.
    """
    pixels = pixel_centres(width, height, means2d)
    images = []
    for b in range(means2d.shape[0]):
        order = torch.sort(depths[b].detach(), stable=True).indices
        order = order[radii[b][order] > 0]
        rows = max(1, _ALPHAS_PER_CHUNK // max(1, order.numel()))
        chunks = []
        for chunk in pixels.split(rows):
            with torch.no_grad():  # those that no pixel of the chunk sees only cost memory
                alphas = pixel_alphas(means2d[b, order], conics[b, order], opacities[b, order], chunk)
                g = order[(alphas >= MIN_ALPHA).any(dim=0)]
            centres = means2d[b, g]
            if absgrad is not None:
                centres = _MeansPerPixel.apply(centres, absgrad[b, g], chunk.shape[0])
            weights, behind = blend_weights(pixel_alphas(centres, conics[b, g], opacities[b, g], chunk))
            total = weights.sum(dim=-1)
            empty = total == 0
            depth = torch.where(empty, 0.0, (weights @ depths[b, g]) / torch.where(empty, 1.0, total))
            # T only falls, so this count is the index of the first Gaussian behind which it is below 0.5
            crossing = (behind >= 0.5).sum(dim=-1)
            median = torch.cat([depths[b, g], depths.new_zeros(1)]).detach()[crossing]
            color = weights @ colors[b, g]
            if background is not None:
                color = color + (1 - total)[:, None] * background
            values = [color, total[:, None], depth[:, None], median[:, None]]
            if features is not None:
                w = weights if features_move_geometry else weights.detach()
                values.append(w @ features[g].to(w.dtype))
            chunks.append(torch.cat(values, dim=-1))
        images.append(torch.cat(chunks).unflatten(0, (height, width)))
    image = torch.stack(images)
    pooled = None
    if features is not None:
        pooled = torch.stack([_pool_cells(view[:, :, 6:], feature_cell) for view in image])
    return image[..., :3], image[..., 3], image[..., 4], image[..., 5], pooled


def cell_weights_reference(
    means2d: Tensor,  # [B, N, 2]
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    depths: Tensor,  # [B, N]
    radii: Tensor,  # [B, N] int32
    width: int,
    height: int,
    cell: int,
) -> Tensor:
    """Mean weight of each Gaussian over each cell's pixels, cells row by row, dense. [B * cells, N]."""
    count = means2d.shape[1]
    colors = means2d.new_zeros(*means2d.shape[:2], 3)
    each = torch.eye(count, dtype=means2d.dtype, device=means2d.device)  # a channel per Gaussian
    blended = rasterize_reference(
        means2d, conics, opacities, colors, depths, radii, each, None, width, height, cell, True
    )[4]
    assert blended is not None
    return blended.flatten(0, 2)


def intersect_reference(
    means2d: Tensor,  # [B, N, 2]
    conics: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    radii: Tensor,  # [B, N] int32
    width: int,
    height: int,
) -> Tensor:
    """Whether Gaussians reach alpha >= 1/255 at a pixel of a 16 x 16 tile. [B, tiles_y, tiles_x, N] bool."""
    pixels = pixel_centres(width, height, means2d).unflatten(0, (height, width))
    seen = torch.stack(
        [
            (pixel_alphas(means2d[b], conics[b], opacities[b], tile.flatten(0, 1)) >= MIN_ALPHA).any(dim=0)
            for b in range(means2d.shape[0])
            for row in pixels.split(TILE, dim=0)
            for tile in row.split(TILE, dim=1)
        ]
    )
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    return seen.unflatten(0, (-1, tiles_y, tiles_x)) & (radii > 0)[:, None, None, :]


def ssim_reference(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity: Gaussian window 11 x 11 of sigma 1.5, zero padding, biased variances.

    Args:
        image: In [0, 1]. [B, H, W, C]
        target: In [0, 1]. [B, H, W, C]

    Returns:
        The mean over pixels and channels. [B]
    """
    offsets = torch.arange(-5, 6, dtype=image.dtype, device=image.device)
    taps = torch.exp(-(offsets**2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    window = torch.outer(taps, taps)[None, None]

    def blur(x: Tensor) -> Tensor:
        planes = x.permute(0, 3, 1, 2).flatten(0, 1)[:, None]
        return torch.nn.functional.conv2d(planes, window, padding=5)

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = blur(image), blur(target)
    var_x, var_y = blur(image**2) - mean_x**2, blur(target**2) - mean_y**2
    cov = blur(image * target) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.reshape(image.shape[0], -1).mean(dim=-1)


def rasterize_twin(
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
    sh: Tensor | tuple[Tensor, Tensor] | None = None,  # [N, K, 3], or ([N, 3], [N, K-1, 3])
    features: Tensor | None = None,  # [N, C]
    feature_cell: int = 1,
    background: Tensor | None = None,  # [3]
    antialiased: bool = False,
    near: float = 0.01,
    far: float = math.inf,
    features_move_geometry: bool = False,
    absgrad: bool = False,
) -> RenderOutput:
    """What `rasterize` computes, from the twins above; same arguments and results, but for `cell_weights`."""
    sh_dc, sh_rest = sh if isinstance(sh, tuple) else (None, None) if sh is None else (sh[:, 0], sh[:, 1:])
    geometry = (means, quats, scales, opacities, sh_dc, sh_rest, cam_from_world, K, width, height)
    projected = project_reference(*geometry, near, far, antialiased)
    means2d, conics, opacities2d, colors2d, depths, radii = projected
    if colors is not None:
        colors2d = colors.expand(cam_from_world.shape[0], -1, -1)
    magnitudes = torch.zeros_like(means2d).requires_grad_() if absgrad else None
    color, alpha, depth, median_depth, feature_map = rasterize_reference(
        means2d,
        conics,
        opacities2d,
        colors2d,
        depths,
        radii,
        features,
        background,
        width,
        height,
        feature_cell,
        features_move_geometry,
        magnitudes,
    )
    return RenderOutput(
        color=color,
        alpha=alpha,
        depth=depth,
        median_depth=median_depth,
        features=feature_map,
        radii=radii,
        means2d=means2d,
        absgrad=magnitudes,
    )
