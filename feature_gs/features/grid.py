"""The camera of a teacher's map: how to render so that a cell of the render is a cell of the map."""

import math
from dataclasses import dataclass

import torch

from feature_gs.features.maps import TeacherMap
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import CellWeights
from feature_gs.rendering.render import rasterize_view
from feature_gs.scenes import Camera

POOLED_CELLS = (4, 8, 16)  # sides of the cells that the rasterizer averages over, pixels


@dataclass(frozen=True)
class FeatureGrid:
    """The cells of one view.

    Attributes:
        camera: What to rasterize; its pixels divide every cell evenly.
        cell: Side of a cell in pixels of `camera`: 4, 8 or 16.
        rows: Cells from top to bottom; the last may reach beyond the photo.
        columns: Cells from left to right.
        shared: Whether `camera` is the photo's own, so that colours come from the same pass.
    """

    camera: Camera
    cell: int
    rows: int
    columns: int
    shared: bool


def cell_size(teacher_map: TeacherMap, camera: Camera) -> tuple[float, float]:
    """Width and height of a map's cells in pixels of the photo's camera, at whatever size that is."""
    return camera.width / teacher_map.cells_x, camera.height / teacher_map.cells_y


def grid_for(camera: Camera, cell_x: float, cell_y: float) -> FeatureGrid:
    """The grid of cells of a view.

    Where a cell is 4, 8 or 16 whole pixels in both directions, the view itself is rasterized. Otherwise the
    same camera with other pixels, 4, 8 or 16 to a cell, at no more than the view's resolution if possible.

    Args:
        camera: The photo's camera.
        cell_x: Width of a cell in pixels of `camera`, > 0.
        cell_y: Height of a cell in pixels of `camera`, > 0.

    Returns:
        The grid, of ceil(width / cell) columns.
    """
    whole = round(cell_x)
    slack = 0.01 / max(camera.width, camera.height)  # adds up to a hundredth of a pixel over the whole photo
    if whole in POOLED_CELLS and abs(cell_x / whole - 1) < slack and abs(cell_y / whole - 1) < slack:
        return FeatureGrid(camera, whole, -(-camera.height // whole), -(-camera.width // whole), True)
    pooled = max(
        (size for size in POOLED_CELLS if size <= math.sqrt(cell_x * cell_y)), default=POOLED_CELLS[0]
    )
    width, height = (
        max(1, math.ceil(side * pooled / size - 0.01))
        for side, size in ((camera.width, cell_x), (camera.height, cell_y))
    )
    scale = torch.tensor([pooled / cell_x, pooled / cell_y, 1.0], dtype=torch.float64)
    K = (camera.K.double() * scale[:, None]).float()
    finer = Camera(camera.name, width, height, K, camera.cam_from_world)
    return FeatureGrid(finer, pooled, -(-height // pooled), -(-width // pooled), False)


def cell_weights(
    model: GaussianModel,
    grid: FeatureGrid,
    *,
    antialiased: bool = False,
    near: float = 0.01,
    differentiable: bool = False,
) -> CellWeights:
    """The share of every Gaussian in every cell of a view.

    Args:
        model: The Gaussians.
        grid: The view's cells.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.
        differentiable: Let a gradient pass to the Gaussians' geometry; otherwise there is none.
    """
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        output = rasterize_view(
            model,
            grid.camera,
            antialiased=antialiased,
            near=near,
            feature_cell=grid.cell,
            features_move_geometry=differentiable,
            cell_weights=True,
        )
    assert output.cells is not None
    return output.cells
