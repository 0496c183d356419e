"""The camera of a teacher's map: its cells lie where the teacher's do, in whole pixels of some camera."""

import math

import pytest
import torch
from torch import Tensor

from feature_gs.features.grid import POOLED_CELLS, cell_size, cell_weights, grid_for
from feature_gs.features.maps import TeacherMap
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import rasterize
from feature_gs.scenes import Camera

pytestmark = pytest.mark.usefixtures("one_thread")


def camera(width: int = 400, height: int = 300) -> Camera:
    K = torch.tensor([[350.0, 0, width / 2 + 7], [0, 360.0, height / 2 - 5], [0, 0, 1]])
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.3, -0.2, 2.0])
    return Camera("a.png", width, height, K, pose)


def projected(seen_by: Camera, points: Tensor) -> Tensor:  # [P, 3] -> [P, 2]
    inside = points @ seen_by.cam_from_world[:3, :3].t() + seen_by.cam_from_world[:3, 3]
    pixels = inside @ seen_by.K.t()
    return pixels[:, :2] / pixels[:, 2:]


def unprojected(seen_by: Camera, pixels: Tensor) -> Tensor:  # [P, 2] -> [P, 3], at depth 3
    rays = torch.cat([pixels, torch.ones(len(pixels), 1)], dim=1) @ torch.linalg.inv(seen_by.K).t()
    moved = 3 * rays - seen_by.cam_from_world[:3, 3]
    return moved @ seen_by.cam_from_world[:3, :3]


@pytest.mark.parametrize("cell", POOLED_CELLS)
@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 401), (399, 5)])
def test_whole_cells_share_the_photos_own_camera(cell: int, width: int, height: int) -> None:
    photo = camera(width, height)
    grid = grid_for(photo, cell, cell)
    assert grid.shared and grid.camera is photo and grid.cell == cell
    assert (grid.rows, grid.columns) == (math.ceil(height / cell), math.ceil(width / cell))


def test_a_map_that_was_counted_on_a_larger_photo_shares_it_too() -> None:
    """1008 cells per 8064 pixels: the division leaves a rounding error."""
    photo = camera(403, 302)
    teacher_map = TeacherMap(torch.zeros(1, 38, 51), 403 / 3 * (3 / 8), 302 / 7 * (7 / 8))
    grid = grid_for(photo, *cell_size(teacher_map, photo))
    assert grid.shared and (grid.rows, grid.columns) == (38, 51)


@pytest.mark.parametrize("cell", [(8, 4), (8.01, 8.01), (8, 8.02), (7, 7), (12, 12), (2, 2), (1, 1)])
def test_other_cells_get_a_camera_of_their_own(cell: tuple[float, float]) -> None:
    grid = grid_for(camera(), *cell)
    assert not grid.shared and grid.cell in POOLED_CELLS


CELLS = [(5.5, 5.5), (7.0, 7.0), (14.0, 14.0), (37.3, 21.7), (8.0, 4.0), (3.3, 3.3), (2.0, 2.0), (1.0, 1.0)]


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (97, 61)])
@pytest.mark.parametrize("cell", CELLS)
def test_the_corners_of_cells_are_whole_pixels_of_the_grids_camera(
    cell: tuple[float, float], size: tuple[int, int]
) -> None:
    """The same point in space lies at cell corner (i, j) of both."""
    photo = camera(*size)
    grid = grid_for(photo, *cell)
    corners = torch.cartesian_prod(torch.arange(grid.columns + 1.0), torch.arange(grid.rows + 1.0))
    points = unprojected(photo, corners * torch.tensor(cell))
    assert torch.allclose(projected(grid.camera, points), corners * grid.cell, atol=0.02)
    assert (grid.rows, grid.columns) == (math.ceil(size[1] / cell[1]), math.ceil(size[0] / cell[0]))
    assert (grid.rows, grid.columns) == tuple(
        math.ceil(side / grid.cell) for side in (grid.camera.height, grid.camera.width)
    ), "as the rasterizer counts them"
    assert grid.camera.name == photo.name


@pytest.mark.parametrize("cell", CELLS)
def test_no_more_pixels_than_needed(cell: tuple[float, float]) -> None:
    """The photo's resolution at most, but for cells too small to have four pixels on a side."""
    grid = grid_for(camera(), *cell)
    pixels, photo = grid.camera.width * grid.camera.height, 400 * 300
    assert pixels <= photo * max(1, 16 / (cell[0] * cell[1])) * 1.01
    assert grid.cell == (4 if math.prod(cell) < 64 else 8 if math.prod(cell) < 256 else 16)


@pytest.mark.parametrize("columns", [0.6, 1.0, 2.4])
def test_few_large_cells(columns: float) -> None:
    """Half a photo per cell, or more than one."""
    photo = camera(20, 10)
    grid = grid_for(photo, 20 / columns, 20 / columns)
    assert (grid.rows, grid.columns) == (math.ceil(columns / 2), math.ceil(columns))


@torch.no_grad()
@pytest.mark.parametrize("cell", [(5.0, 6.0), (2.0, 2.0), (1.0, 1.0), (10.0, 10.0)])
def test_weights_are_means_over_the_cells(cell: tuple[float, float]) -> None:
    """Against the photo's own pixels, which such cells hold a whole number of."""
    photo = camera().resized(80, 60)
    generator = torch.Generator().manual_seed(0)
    model = GaussianModel(
        means=0.2 * torch.randn(20, 3, generator=generator),
        quats=torch.randn(20, 4, generator=generator),
        log_scales=torch.full((20, 3), math.log(0.1)),
        logit_opacities=torch.zeros(20),
        sh_dc=torch.zeros(20, 3),
        sh_rest=torch.zeros(20, 0, 3),
        sh_degree=0,
    )
    found = cell_weights(model, grid_for(photo, *cell)).blend(torch.eye(20))[0]
    shapes = (model.means, model.quats, model.scales, model.opacities)
    place = (photo.cam_from_world[None], photo.K[None], photo.width, photo.height)
    fine = rasterize(*shapes, *place, features=torch.eye(20)).features
    assert fine is not None
    rows, columns = int(60 / cell[1]), int(80 / cell[0])
    expected = fine[0].unflatten(0, (rows, -1)).unflatten(2, (columns, -1)).mean(dim=(1, 3))
    assert found.shape == expected.shape and expected.max() > 0.02
    # Gaussians are widened by 0.3 pixels of whichever camera draws them, and sampled there: near, not equal.
    assert (found - expected).abs().mean() < 0.1 * expected.mean()
