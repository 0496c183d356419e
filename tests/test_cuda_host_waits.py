"""How often the host waits for a GPU: once per render, for the number of pairs, and never for gradients."""

import pytest
import torch
from cuda_host.emulated import Emulated
from kernels import kernels
from random_scenes import random_scene

from feature_gs.rasterizer import RenderOutput, rasterize, ssim

pytestmark = pytest.mark.usefixtures("one_thread")


def render(cell: int, move: bool) -> tuple[RenderOutput, torch.Tensor]:
    """Everything a render can be asked for; and the features."""
    scene = random_scene(60, 40, 30, batch=2).to(torch.float32).requires_grad()
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, scene.cam_from_world, scene.K)
    features = torch.ones(scene.means.shape[0], 70, requires_grad=True)
    assert scene.sh_dc is not None and scene.sh_rest is not None
    output = rasterize(
        *(*geometry, 40, 30),
        sh=(scene.sh_dc, scene.sh_rest),
        features=features,
        feature_cell=cell,
        background=torch.ones(3),
        features_move_geometry=move,
        absgrad=True,
        cell_weights=cell >= 4,
    )
    return output, features


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("cell", [1, 2, 4, 8, 16])
def test_a_render_waits_once_and_its_gradient_never(emulated: Emulated, cell: int, move: bool) -> None:
    with kernels("emulated"):
        emulated.waits()
        output, features = render(cell, move)
        assert emulated.waits() == 1
        assert output.features is not None
        loss = output.features.square().sum() + output.alpha.sum() + output.depth.sum()
        (loss + ssim(output.color, torch.zeros_like(output.color)).sum()).backward()
        assert features.grad is not None and features.grad.any()
        if output.cells is not None:
            output.cells.accumulate(features.detach(), output.features.detach(), 0.1, 0.5)
            assert output.cells.totals().any()
        assert emulated.waits() == 0


def test_neighbours_are_found_without_waiting(emulated: Emulated) -> None:
    emulated.waits()
    assert emulated.ops.nearest_distances(torch.rand(50, 3)).all()
    assert emulated.waits() == 0
