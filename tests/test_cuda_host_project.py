"""The CUDA kernels of project, emulated, against the CPU twin."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated
from random_scenes import RandomScene, assert_near, assert_same_gradient, random_scene, weights_like

from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}
NAMES = ("means2d", "conics", "opacities", "colors", "depths", "radii")
GRADIENTS = ("means", "quats", "scales", "opacities", "sh_dc", "sh_rest")


def arguments(scene: RandomScene, antialiased: bool = False, far: float = math.inf) -> tuple[Any, ...]:
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh_dc, scene.sh_rest)
    return (*geometry, scene.cam_from_world, scene.K, scene.width, scene.height, 0.01, far, antialiased)


def compare(emulated: Emulated, args: tuple[Any, ...]) -> int:
    """Holds both passes against the CPU's; how many Gaussians were visible."""
    dtype = args[0].dtype
    expected = ops.project(*args)
    actual = emulated.ops.project(*args)
    assert torch.equal(actual[5] > 0, expected[5] > 0)
    for name, a, e in zip(NAMES[:5], actual, expected, strict=False):
        assert_near(a, e, TOLERANCE[dtype] * (30 if name == "conics" else 1), name)
    assert (
        (actual[5] - expected[5]).abs().max() <= 1 if expected[5].numel() else True
    )  # a radius is rounded up
    grads = [weights_like(output, i).to(dtype) for i, output in enumerate(expected[:5])]
    rest = (*args, expected[3], expected[5])
    for name, a, e in zip(
        GRADIENTS,
        emulated.ops.project_backward(*grads, *rest),
        ops.project_backward(*grads, *rest),
        strict=True,
    ):
        assert_same_gradient(a, e, TOLERANCE[dtype], name)
    return int((expected[5] > 0).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("sh_bands", [1, 4, 9, 16])
def test_same_as_on_the_cpu(emulated: Emulated, dtype: torch.dtype, antialiased: bool, sh_bands: int) -> None:
    scene = random_scene(300, 61, 47, batch=3, sh_bands=sh_bands).to(dtype)
    assert compare(emulated, arguments(scene, antialiased)) > 300
    assert 100 < compare(emulated, arguments(scene, antialiased, far=4.0)) < 500


@pytest.mark.parametrize("count", [0, 1, 31, 128, 129])
@pytest.mark.parametrize("colored", [True, False])
def test_any_number_of_gaussians(emulated: Emulated, count: int, colored: bool) -> None:
    scene = random_scene(200, 40, 30, sh_bands=9, kinds=False).to(torch.float32)
    args = list(arguments(scene.select(torch.arange(count))))
    if not colored:
        args[4] = args[5] = None
    compare(emulated, tuple(args))


def test_no_cameras(emulated: Emulated) -> None:
    scene = random_scene(50, 40, 30).to(torch.float32)
    compare(
        emulated,
        arguments(dataclasses.replace(scene, cam_from_world=torch.zeros(0, 4, 4), K=torch.zeros(0, 3, 3))),
    )


def test_harmonics_in_one_tensor(emulated: Emulated) -> None:
    scene = random_scene(150, 40, 30, sh_bands=16).to(torch.float32)
    assert scene.sh_rest is not None
    whole = torch.cat([scene.sh_dc[:, None], scene.sh_rest], dim=1)  # rows of 48, of which views are passed
    compare(emulated, arguments(dataclasses.replace(scene, sh_dc=whole[:, 0], sh_rest=whole[:, 1:])))


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh_dc", "sh_rest"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
def test_gaussians_that_are_not_finite(emulated: Emulated, field: str, value: float) -> None:
    scene = random_scene(64, 40, 30, kinds=False).to(torch.float32)
    getattr(scene, field)[::7] = value
    compare(emulated, arguments(scene))


def test_same_bits_in_any_order(emulated: Emulated) -> None:
    args = arguments(random_scene(300, 61, 47, batch=2).to(torch.float32))
    results = []
    for order in (IN_ORDER, BACKWARDS, SHUFFLED, SHUFFLED + 1):
        with emulated.order(order):
            outputs = emulated.ops.project(*args)
            grads = [weights_like(output, i).float() for i, output in enumerate(outputs[:5])]
            results.append((*outputs, *emulated.ops.project_backward(*grads, *args, outputs[3], outputs[5])))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    args = list(arguments(random_scene(20, 40, 30).to(torch.float32)))
    args[1] = args[1].double()
    with pytest.raises(RuntimeError, match="quats must have the dtype of the other inputs"):
        emulated.ops.project(*args)
    args[1] = args[1].float()[:3]
    with pytest.raises(RuntimeError, match=r"quats must be \[N, 4\]"):
        emulated.ops.project(*args)
