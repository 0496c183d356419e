"""Rendered feature maps and palette pictures: exact against the rasterizer, and every cell in its place."""

import math

import numpy as np
import pytest
import torch
from edited import make_field
from torch import Tensor

from feature_gs.features.decoders import decoder_from_state, make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.palette import Palette
from feature_gs.features.rendering import (
    _features_beside,
    decoded,
    decoded_solid,
    enlarged,
    fit_field_palette,
    render_features,
    render_palette,
)
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import rasterize
from feature_gs.scenes import Camera

WIDTH, HEIGHT = 44, 36
CAMERA = Camera(
    "a.png",
    WIDTH,
    HEIGHT,
    torch.tensor([[40.0, 0, 21], [0, 40.0, 19], [0, 0, 1]]),
    torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]),
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_model(count: int = 60, size: float = 0.2) -> GaussianModel:
    return GaussianModel(
        means=0.6 * draw(count, 3),
        quats=draw(count, 4, seed=1),
        log_scales=torch.full((count, 3), math.log(size)),
        logit_opacities=draw(count, seed=2),
        sh_dc=draw(count, 3, seed=3),
        sh_rest=torch.zeros(count, 0, 3),
        sh_degree=0,
    )


def random_field(kind: str, count: int = 60, cell: float = 8) -> FeatureField:
    channels = 5 if kind == "none" else 7
    return FeatureField(
        features=draw(count, 5, seed=4),
        decoder=make_decoder(kind, 5, channels, generator=torch.Generator().manual_seed(5)),
        teacher="codes",
        cell=(cell, cell),
        seen=torch.ones(count, dtype=torch.bool),
    )


def blended(model: GaussianModel, features: Tensor, cell: int) -> Tensor:  # [N, c] -> [h, w, c]
    pose, K = CAMERA.cam_from_world[None], CAMERA.K[None]
    parameters = model.means, model.quats, model.scales, model.opacities
    output = rasterize(*parameters, pose, K, WIDTH, HEIGHT, features=features, feature_cell=cell)
    assert output.features is not None
    return output.features[0]


@torch.no_grad()
def test_a_map_is_the_rasterizers_at_the_teachers_cells() -> None:
    model, field = random_model(), random_field("linear")
    rendered = render_features(model, field, CAMERA)
    assert torch.allclose(rendered.features, blended(model, field.features, 8), atol=1e-6)
    assert rendered.features.shape == (math.ceil(HEIGHT / 8), math.ceil(WIDTH / 8), 5)
    assert (rendered.cells_x, rendered.cells_y) == (WIDTH / 8, HEIGHT / 8)
    ones = blended(model, torch.ones(60, 1), 8)[..., 0]
    assert torch.allclose(rendered.alpha, ones, atol=1e-5), "also where a cell reaches over the edge"
    assert torch.equal(decoded(field, rendered), field.decoder(rendered.features[None])[0])


@torch.no_grad()
@pytest.mark.parametrize("cell", [(1, 1), (2, 2), (4, 4), (5.5, 6.0), (14, 14), (3, 3)])
def test_cells_of_any_size_span_the_picture(cell: tuple[float, float]) -> None:
    """The mean over all cells is the mean over all pixels; exactly where whole cells fill the picture."""
    model, field = random_model(), random_field("linear")
    rendered = render_features(model, field, CAMERA, cell=cell)
    assert (rendered.cells_x, rendered.cells_y) == (WIDTH / cell[0], HEIGHT / cell[1])
    rows, columns = rendered.alpha.shape
    assert (rows, columns) == (math.ceil(HEIGHT / cell[1]), math.ceil(WIDTH / cell[0]))
    pixels = render_features(model, field, CAMERA, cell=(1, 1))
    small = pixels.features.abs().mean()
    large = enlarged(rendered.features, rendered.cells_x, rendered.cells_y, WIDTH, HEIGHT, mode="nearest")
    tolerance = 1e-4 if cell in ((1, 1), (2, 2), (4, 4)) else 0.1 * small.item()
    assert torch.allclose(large.mean(dim=(0, 1)), pixels.features.mean(dim=(0, 1)), atol=tolerance)


@torch.no_grad()
def test_solid_features_are_those_of_the_gaussian_however_transparent_it_is() -> None:
    model, field = random_model(1), random_field("linear", 1)
    model.means.zero_()
    for logit in (-1.5, 4.0):
        model.logit_opacities.fill_(logit)
        rendered = render_features(model, field, CAMERA, cell=(1, 1))
        middle = decoded_solid(field, rendered)[19, 21]
        assert torch.allclose(middle, field.decoder.decode_gaussians(field.features)[0], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["none", "linear"])
def test_a_palette_picture_is_exact_in_every_pixel(kind: str) -> None:
    """The colours of decoded maps at single pixels, times alpha."""
    model, field = random_model(), random_field(kind)
    field.palette = fit_field_palette(model, field, [CAMERA])
    rendered = render_features(model, field, CAMERA, cell=(1, 1))
    colors = field.palette.colors(decoded_solid(field, rendered)).clamp(0, 1)
    expected = (colors * rendered.alpha[..., None]).numpy()
    picture = render_palette(model, field, CAMERA)
    there = rendered.alpha.numpy() > 0.06
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    assert np.abs(picture / 255 - expected)[there].max() <= 0.5 / 255 + 1e-3
    assert picture[there].std() > 10, "the picture shows something"
    assert (picture[rendered.alpha.numpy() == 0] == 0).all()


@torch.no_grad()
def test_conv3x3_pictures_come_from_the_decoded_map() -> None:
    """With a kernel that looks only at the cell itself it is a linear decoder without bias."""
    model, field = random_model(), random_field("conv3x3", cell=2)
    weight = torch.zeros(7, 5, 3, 3)
    weight[:, :, 1, 1] = draw(7, 5)
    field.decoder = decoder_from_state("conv3x3", 5, 7, {"weight": weight})
    field.palette = fit_field_palette(model, field, [CAMERA])
    picture = render_palette(model, field, CAMERA)
    field.decoder = decoder_from_state("linear", 5, 7, {"weight": weight[:, :, 1, 1], "bias": torch.zeros(7)})
    exact = render_palette(model, field, CAMERA)
    assert np.abs(picture.astype(int) - exact).mean() < 6
    assert np.abs(exact.astype(int) - exact.mean()).mean() > 20


def test_a_field_without_palette_has_no_picture() -> None:
    with pytest.raises(ValueError, match="no palette"):
        render_palette(random_model(), random_field("none"), CAMERA)


def test_the_palette_of_a_model_that_nobody_sees_is_grey() -> None:
    model, field = random_model(), random_field("linear")
    model.means.data[:, 2] = -50
    palette = fit_field_palette(model, field, [CAMERA])
    assert torch.equal(palette.colors(draw(2, 7)), torch.full((2, 3), 0.5))


def test_a_feature_has_one_colour_in_all_views() -> None:
    """Two cameras, one Gaussian before each of them, the same feature: the same colour."""
    model, field = random_model(2, size=0.4), random_field("linear", 2)
    model.logit_opacities.data.fill_(9)
    model.means.data[:] = torch.tensor([[0.0, 0, 0], [50.0, 0, 0]])
    field.features[1] = field.features[0]
    field.palette = Palette(0.1 * draw(7, 3), torch.full((3,), 0.5))
    moved = CAMERA.cam_from_world.clone()
    moved[0, 3] = -50
    other = Camera("b.png", WIDTH, HEIGHT, CAMERA.K, moved)
    pictures = [render_palette(model, field, camera)[19, 21].astype(int) for camera in (CAMERA, other)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1 and pictures[0].max() > 20


def test_enlarging_puts_cells_where_they_are() -> None:
    """10 x 6 pixels, cells of 4: two and a half columns, one and a half rows."""
    values = torch.arange(6.0).reshape(2, 3, 1)
    large = enlarged(values, 2.5, 1.5, 10, 6, mode="nearest")[..., 0]
    y, x = torch.meshgrid(torch.arange(6), torch.arange(10), indexing="ij")
    assert torch.equal(large, 3.0 * (y // 4) + x // 4)


def test_enlarging_keeps_a_ramp_and_fills_what_the_map_leaves_out() -> None:
    """The map covers 6 of 8 cells; beyond its last centre the value stays."""
    values = (torch.arange(6.0) + 0.5)[None, :, None].expand(8, 6, 1)
    large = enlarged(values, 8, 8, 32, 32)[16, :, 0]
    expected = ((torch.arange(32) + 0.5) / 4).clamp(0.5, 5.5)
    assert torch.allclose(large, expected, atol=1e-5)


def test_features_are_brought_to_a_device_once() -> None:
    field = make_field(4, 3)
    like = torch.empty(0, device="meta")  # a device that holds no values
    there = _features_beside(field, like)
    assert there.device == like.device and _features_beside(field, like) is there
    assert _features_beside(field, torch.empty(0)) is field.features
    assert _features_beside(make_field(4, 3), like) is not there
