"""render(): one view of a model."""

import math

import torch

from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import rasterize
from feature_gs.rendering import render
from feature_gs.scenes import Camera

CAMERA = Camera("a.png", 40, 30, torch.tensor([[40.0, 0, 23], [0, 44.0, 14], [0, 0, 1]]), torch.eye(4))


def model(degree: int = 2) -> GaussianModel:
    """Eight Gaussians two to four units ahead of CAMERA."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return GaussianModel(
        means=random(8, 3) * 0.3 + torch.tensor([0, 0, 3.0]),
        quats=random(8, 4),
        log_scales=random(8, 3) * 0.3 + math.log(0.1),
        logit_opacities=random(8),
        sh_dc=random(8, 3),
        sh_rest=random(8, (degree + 1) ** 2 - 1, 3) * 0.3,
        sh_degree=3,
    )


def test_is_the_rasterizer_at_the_activated_parameters() -> None:
    gaussians, background = model(), torch.tensor([0.2, 0.5, 0.9])
    output = render(gaussians, CAMERA, background=background, antialiased=True, near=2.9)
    expected = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales.exp(),
        gaussians.logit_opacities.sigmoid(),
        CAMERA.cam_from_world[None],
        CAMERA.K[None],
        40,
        30,
        sh=torch.cat([gaussians.sh_dc[:, None], gaussians.sh_rest], 1),
        background=background,
        antialiased=True,
        near=2.9,
    )
    assert output.color.shape == (1, 30, 40, 3)
    torch.testing.assert_close(output.color, expected.color)
    torch.testing.assert_close(output.depth, expected.depth)
    skipped = gaussians.means[:, 2] < 2.9
    assert 0 < skipped.sum() < 8 and (output.radii[0, skipped] == 0).all()


def test_every_parameter_gets_a_gradient() -> None:
    for degree in (0, 2):
        gaussians = model(degree)
        output = render(gaussians, CAMERA, absgrad=True)
        output.color.square().sum().backward()
        for name, parameter in gaussians.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
            assert parameter.numel() == 0 or parameter.grad.abs().sum() > 0, name
        assert output.absgrad is not None and output.absgrad.grad is not None
        assert output.absgrad.grad.sum() > 0


def test_background_shows_where_nothing_is() -> None:
    behind = Camera("b.png", 40, 30, CAMERA.K, torch.diag(torch.tensor([-1.0, 1, -1, 1])))
    background = torch.tensor([0.2, 0.5, 0.9])
    output = render(model(), behind, background=background)
    torch.testing.assert_close(output.color, background.expand(1, 30, 40, 3))
    assert output.alpha.abs().max() == 0
    assert render(model(), behind).color.abs().max() == 0
