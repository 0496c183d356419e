"""Rendering the features of a model: maps at the teacher's grid, and pictures at full size."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.features.field import FeatureField
from feature_gs.features.grid import grid_for
from feature_gs.features.palette import Palette, fit_palette, palette_picture
from feature_gs.gaussians import GaussianModel
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.render import rasterize_view
from feature_gs.scenes import Camera

_PALETTE_VIEWS = 12
_PALETTE_CELLS = 2048  # of one view
_OPAQUE = 0.5  # alpha from which a cell counts
_FAINT = 0.05  # alpha below which features are not brought to full strength


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A rendered map. Like a teacher's, it may reach beyond the picture with its last column and row.

    Attributes:
        features: Mean of the cells' pixels over a background of zero, not decoded. [h, w, c] float32
        alpha: Mean opacity of the cells, in [0, 1]. [h, w]
        cells_x: How many cells the picture's full width spans; may be fractional.
        cells_y: How many cells the picture's full height spans; may be fractional.
    """

    features: Tensor
    alpha: Tensor
    cells_x: float
    cells_y: float


_uploaded: WeakKeyDictionary[FeatureField, Tensor] = WeakKeyDictionary()


def _features_beside(field: FeatureField, like: Tensor) -> Tensor:
    """The features on another device, where they stay for the next view, as long as the field lives."""
    if field.features.device == like.device:
        return field.features.to(like)
    found = _uploaded.get(field)
    if found is None or found.device != like.device or found.dtype != like.dtype:
        found = _uploaded[field] = field.features.to(like)
    return found


@torch.no_grad()
def render_features(
    model: GaussianModel,
    field: FeatureField,
    camera: Camera,
    *,
    cell: tuple[float, float] | None = None,
    antialiased: bool = False,
    near: float = 0.01,
) -> FeatureMap:
    """Renders a map of features as the Gaussians carry them; `decoded` brings it to the teacher's space.

    Args:
        model: The Gaussians. They decide the device.
        field: Their features.
        camera: The view.
        cell: Sides of a cell in pixels of the camera, x and y; the teacher's when None.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.

    Example:
        >>> render_features(model, field, camera).features.shape
        torch.Size([38, 50, 64])
    """
    cell = cell or field.cell
    # Cells of one or two pixels are no teacher's: they need no camera of their own.
    pixels = next((side for side in (1, 2) if cell == (side, side)), None)
    if pixels is None:
        grid = grid_for(camera, *cell)
        view, pixels = grid.camera, grid.cell
    else:
        view = camera
    features = _features_beside(field, model.means)
    output = rasterize_view(
        model, view, antialiased=antialiased, near=near, features=features, feature_cell=pixels
    )
    assert output.features is not None
    # Windows that reach over the edge average the pixels inside, as the rasterizer's cells do.
    alpha = F.avg_pool2d(output.alpha[:, None], pixels, ceil_mode=True)[0, 0]
    return FeatureMap(output.features[0], alpha, camera.width / cell[0], camera.height / cell[1])


@torch.no_grad()
def decoded(field: FeatureField, rendered: FeatureMap) -> Tensor:
    """A rendered map in the teacher's space, as training compares it with the teacher. [h, w, C]"""
    return field.decoder.to(rendered.features.device)(rendered.features[None])[0]


@torch.no_grad()
def decoded_solid(field: FeatureField, rendered: FeatureMap) -> Tensor:
    """A rendered map in the teacher's space, as if what is there were opaque. [h, w, C]"""
    alpha = rendered.alpha.clamp(min=_FAINT)[..., None]
    decoder = field.decoder.to(rendered.features.device)
    if decoder.kind == "conv3x3":  # cells beside each other may differ in alpha: decode first
        return decoder(rendered.features[None])[0] / alpha
    return decoder((rendered.features / alpha)[None])[0]


@torch.no_grad()
def fit_field_palette(
    model: GaussianModel,
    field: FeatureField,
    cameras: Sequence[Camera],
    *,
    antialiased: bool = False,
    near: float = 0.01,
) -> Palette:
    """The palette of a model: fitted to what about a dozen views show of its features.

    Args:
        model: The Gaussians.
        field: Their features.
        cameras: The training views, in order.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.
    """
    samples = []
    for camera in cameras[:: -(-len(cameras) // _PALETTE_VIEWS)]:
        rendered = render_features(model, field, camera, antialiased=antialiased, near=near)
        rows = decoded_solid(field, rendered)[rendered.alpha > _OPAQUE]
        samples.append(rows[:: max(1, -(-len(rows) // _PALETTE_CELLS))].cpu())
    return fit_palette(torch.cat(samples))


@torch.no_grad()
def render_palette(
    model: GaussianModel,
    field: FeatureField,
    camera: Camera,
    *,
    antialiased: bool = False,
    near: float = 0.01,
) -> Picture:
    """The features of a view as colours of the field's palette, at the camera's size.

    With a pointwise decoder the Gaussians themselves get colours, and the picture is exact in every pixel.
    With conv3x3 the map is decoded at the teacher's grid and enlarged.

    Args:
        model: The Gaussians.
        field: Their features, with a palette.
        camera: The view.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.

    Returns:
        The picture, black where nothing is. [H, W, 3] uint8

    Raises:
        ValueError: The field has no palette.
    """
    if field.palette is None:
        raise ValueError("the field has no palette: fit one with fit_field_palette")
    folded = field.palette.of_gaussians(field.decoder)
    if folded is not None:
        matrix, bias = (part.to(model.means) for part in folded)
        output = rasterize_view(
            model,
            camera,
            antialiased=antialiased,
            near=near,
            colors=_features_beside(field, model.means) @ matrix,
        )
        return palette_picture(output.color[0] + output.alpha[0][..., None] * bias, output.alpha[0])
    rendered = render_features(model, field, camera, antialiased=antialiased, near=near)
    colors = field.palette.colors(decoded_solid(field, rendered)).clamp(0, 1)
    colors = enlarged(colors, rendered.cells_x, rendered.cells_y, camera.width, camera.height)
    alpha = rasterize_view(model, camera, antialiased=antialiased, near=near).alpha[0]
    return palette_picture(colors * alpha[..., None], alpha)


def enlarged(
    values: Tensor,  # [h, w, k]
    cells_x: float,
    cells_y: float,
    width: int,
    height: int,
    *,
    mode: str = "bilinear",
) -> Tensor:
    """A map at the size of its picture, every cell where it belongs.

    Args:
        values: One vector per cell. [h, w, k]
        cells_x: How many cells the picture's full width spans.
        cells_y: How many cells the picture's full height spans.
        width: The picture's width in pixels.
        height: The picture's height in pixels.
        mode: "bilinear" or "nearest".

    Returns:
        [height, width, k]
    """
    rows, columns = values.shape[:2]

    def places(pixels: int, cells: float, count: int) -> Tensor:  # -1 and 1 are the map's outer edges
        centres = torch.arange(pixels, device=values.device, dtype=torch.float64) + 0.5
        return (centres * (2 * cells / (pixels * count)) - 1).to(values.dtype)

    y, x = torch.meshgrid(places(height, cells_y, rows), places(width, cells_x, columns), indexing="ij")
    sampled = F.grid_sample(
        values.permute(2, 0, 1)[None],
        torch.stack([x, y], dim=-1)[None],
        mode=mode,
        padding_mode="border",
        align_corners=False,
    )
    return sampled[0].permute(1, 2, 0)
