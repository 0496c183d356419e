import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_scenes import RandomScene, assert_near, assert_same_gradient, random_scene, weights_like
from torch import Tensor

from feature_gs.rasterizer.reference import project_reference

pytestmark = pytest.mark.usefixtures("one_thread")
Projected = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Project = Callable[..., Projected]
NAMES = ("means2d", "conics", "opacities", "colors", "depths", "radii")
FLOAT64 = torch.float64


@pytest.fixture(params=["reference", "compiled"])
def project(request: pytest.FixtureRequest) -> Project:
    return project_reference if request.param == "reference" else torch.ops.feature_gs.project


def arguments(
    scene: RandomScene, near: float = 0.01, far: float = math.inf, antialiased: bool = False
) -> tuple[Any, ...]:
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh_dc, scene.sh_rest)
    cameras = (scene.cam_from_world, scene.K, scene.width, scene.height)
    return (*geometry, *cameras, near, far, antialiased)


def one_gaussian(
    mean: tuple[float, float, float] = (0.0, 0.0, 2.0),
    scales: tuple[float, float, float] = (0.02, 0.02, 0.02),
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
    opacity: float = 0.8,
) -> RandomScene:
    """A camera at the origin looking along z, f = (100, 50), principal point (40, 30), 100 x 80 pixels."""

    def row(*values: float) -> Tensor:
        return torch.tensor([values], dtype=FLOAT64)

    return RandomScene(
        means=row(*mean),
        quats=row(*quat),
        scales=row(*scales),
        opacities=torch.tensor([opacity], dtype=FLOAT64),
        sh_dc=row(1.0, 0.0, -3.0),
        sh_rest=None,
        cam_from_world=torch.eye(4, dtype=FLOAT64)[None],
        K=torch.tensor([[[100.0, 0, 40], [0, 50, 30], [0, 0, 1]]], dtype=FLOAT64),
        width=100,
        height=80,
    )


def test_gaussian_on_the_optical_axis(project: Project) -> None:
    means2d, conics, opacities, colors, depths, radii = project(*arguments(one_gaussian()))
    # standard deviations 100 * 0.02 / 2 = 1 and 0.5 pixels, variances 1 + 0.3 and 0.25 + 0.3
    assert means2d[0, 0].tolist() == pytest.approx([40.0, 30.0])
    assert conics[0, 0].tolist() == pytest.approx([1 / 1.3, 0.0, 1 / 0.55])
    assert opacities[0, 0].item() == pytest.approx(0.8)
    assert colors[0, 0].tolist() == pytest.approx([0.5 + 0.28209479177387814, 0.5, 0.0])
    assert depths[0, 0].item() == pytest.approx(2.0)
    assert radii[0, 0].item() == math.ceil(math.sqrt(2 * math.log(255 * 0.8) * 1.3))


def test_gaussian_beside_the_axis_shears_by_its_depth(project: Project) -> None:
    scene = one_gaussian(mean=(0.4, -0.6, 2.0), scales=(0.02, 0.02, 0.1))
    means2d, conics, *_ = project(*arguments(scene))
    assert means2d[0, 0].tolist() == pytest.approx([60.0, 15.0])
    # J = [[50, 0, -10], [0, 25, 7.5]], the variances are 4e-4, 4e-4, 1e-2
    xx, xy, yy = 50**2 * 4e-4 + 100 * 1e-2 + 0.3, -75 * 1e-2, 25**2 * 4e-4 + 7.5**2 * 1e-2 + 0.3
    det = xx * yy - xy * xy
    assert conics[0, 0].tolist() == pytest.approx([yy / det, -xy / det, xx / det])


def test_quarter_turn_swaps_the_axes(project: Project) -> None:
    half = math.sqrt(0.5)
    turned = one_gaussian(scales=(0.02, 0.04, 0.01), quat=(half, 0, 0, half))
    swapped = one_gaussian(scales=(0.04, 0.02, 0.01))
    for a, b in zip(project(*arguments(turned)), project(*arguments(swapped)), strict=True):
        torch.testing.assert_close(a, b)


def test_jacobian_is_taken_no_further_than_fifteen_percent_outside(project: Project) -> None:
    # x/z = 1 is beyond (100 - 40) / 100 + 0.15 * 100 / 100, y/z = -1.5 beyond -30 / 50 - 0.15 * 80 / 50
    scene = one_gaussian(mean=(2.0, -3.0, 2.0), scales=(0.5, 0.5, 0.5))
    means2d, conics, *_ = project(*arguments(scene))
    assert means2d[0, 0].tolist() == pytest.approx([140.0, -45.0])
    fx, fy, u, v = 50.0, 25.0, 0.75, -0.84
    xx, yy = 0.25 * fx**2 * (1 + u**2) + 0.3, 0.25 * fy**2 * (1 + v**2) + 0.3
    xy = 0.25 * fx * u * fy * v
    det = xx * yy - xy * xy
    assert conics[0, 0].tolist() == pytest.approx([yy / det, -xy / det, xx / det])


def test_antialiasing_keeps_the_integral_down_to_the_floor(project: Project) -> None:
    opacities = project(*arguments(one_gaussian(), antialiased=True))[2]
    assert opacities[0, 0].item() == pytest.approx(0.8 * math.sqrt(0.25 / (1.3 * 0.55)))
    opacities = project(*arguments(one_gaussian(scales=(1e-6, 1e-6, 1e-6)), antialiased=True))[2]
    assert opacities[0, 0].item() == pytest.approx(0.8 * 0.005)


def test_spherical_harmonics_follow_the_ply_convention(project: Project) -> None:
    scene = one_gaussian(mean=(0.6, 0.0, 0.8))
    scene.K[0, 0, 2] = 0.0
    scene.sh_dc = torch.zeros(1, 3, dtype=FLOAT64)
    x, z = 0.6, 0.8
    expected = {
        1: 0.4886025119 * z,
        2: -0.4886025119 * x,
        5: 0.3153915653 * (2 * z * z - x * x),
        6: -1.0925484306 * x * z,
        7: 0.5462742153 * x * x,
        11: 0.3731763326 * z * (2 * z * z - 3 * x * x),
        12: -0.4570457995 * x * (4 * z * z - x * x),
        13: 1.4453057213 * z * x * x,
        14: -0.5900435899 * x**3,
    }
    for band in range(15):
        scene.sh_rest = torch.zeros(1, 15, 3, dtype=FLOAT64)
        scene.sh_rest[0, band] = torch.tensor([0.5, -0.5, 0.0])
        value = 0.5 * expected.get(band, 0.0)
        colors = project(*arguments(scene))[3]
        assert colors[0, 0].tolist() == pytest.approx([0.5 + value, 0.5 - value, 0.5])


@pytest.mark.parametrize(
    "scene",
    [
        one_gaussian(mean=(0.0, 0.0, 0.2)),  # on the near plane
        one_gaussian(mean=(0.0, 0.0, -2.0)),
        one_gaussian(mean=(0.0, 0.0, 10.0)),  # on the far plane
        one_gaussian(mean=(5.0, 0.0, 2.0)),
        one_gaussian(mean=(0.0, -9.0, 2.0)),
        one_gaussian(opacity=0.0),
        one_gaussian(opacity=0.0039),
    ],
)
def test_invisible_gaussians_are_zero_and_without_gradient(project: Project, scene: RandomScene) -> None:
    outputs = project(*arguments(scene.requires_grad(), near=0.2, far=10.0))
    for name, output in zip(NAMES, outputs, strict=True):
        assert not output.any(), name
    torch.stack([output.sum() for output in outputs[:5]]).sum().backward()
    for tensor in scene.gaussians():
        assert tensor.grad is None or not tensor.grad.any()


def test_length_of_quaternions_does_not_matter(project: Project) -> None:
    scene = random_scene(40, 64, 48)
    expected = project(*arguments(scene))
    scene.quats = -7.5 * scene.quats
    for name, a, b in zip(NAMES, project(*arguments(scene)), expected, strict=True):
        assert_near(a, b, 1e-9, name)


def test_moving_the_world_and_the_camera_together_changes_nothing(project: Project) -> None:
    scene = random_scene(60, 64, 48, sh_bands=1)
    expected = project(*arguments(scene))
    # quaternion product with a turn by 2 atan(0.5) about z, and the same turn of the world about the origin
    w, z = torch.tensor([1.0, 0.5], dtype=FLOAT64) / math.sqrt(1.25)
    a, b, c, d = scene.quats.unbind(-1)
    scene.quats = torch.stack([w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a], dim=-1)
    turn = torch.eye(4, dtype=FLOAT64)
    turn[0, 0] = turn[1, 1] = 1 - 2 * z * z
    turn[1, 0], turn[0, 1] = 2 * w * z, -2 * w * z
    shift = torch.tensor([0.3, -2.0, 0.7], dtype=FLOAT64)
    scene.means = scene.means @ turn[:3, :3].T + shift
    back = turn.T.clone()
    back[:3, 3] = -turn[:3, :3].T @ shift
    scene.cam_from_world = scene.cam_from_world @ back
    for name, got, want in zip(NAMES, project(*arguments(scene)), expected, strict=True):
        assert_near(got, want, 1e-7, name)


def test_batch_is_the_cameras_one_by_one(project: Project) -> None:
    scene = random_scene(60, 50, 40, batch=3)
    together = project(*arguments(scene))
    for b in range(3):
        single = dataclasses.replace(
            scene, cam_from_world=scene.cam_from_world[b : b + 1], K=scene.K[b : b + 1]
        )
        for name, all_views, view in zip(NAMES, together, project(*arguments(single)), strict=True):
            assert torch.equal(all_views[b : b + 1], view), name


def test_without_colours_there_are_none(project: Project) -> None:
    scene = random_scene(20, 50, 40)
    args = list(arguments(scene))
    args[4] = args[5] = None
    outputs = project(*args)
    assert outputs[3].shape == (1, 0, 3)
    assert torch.equal(outputs[0], project(*arguments(scene))[0])


SCENES = {
    "none": random_scene(0, 33, 21),
    "one": one_gaussian(),
    "mixed": random_scene(600, 101, 77, batch=2),
    "degree 0": random_scene(100, 64, 48, sh_bands=1),
    "degree 1": random_scene(100, 64, 48, sh_bands=4),
    "degree 2": random_scene(100, 64, 48, sh_bands=9),
    "degree 3": random_scene(100, 64, 48, sh_bands=16),
    "sub-pixel": random_scene(300, 100, 80, scale=1e-3),
    "screen-filling": random_scene(300, 100, 80, scale=2.0),
    "many": random_scene(5000, 100, 80, scale=0.03, batch=2),
}


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", SCENES)
def test_compiled_agrees_with_the_reference(kind: str, dtype: torch.dtype, antialiased: bool) -> None:
    expected_scene = SCENES[kind].to(FLOAT64).requires_grad()
    actual_scene = SCENES[kind].to(dtype).requires_grad()
    # a near plane that keeps conditioning within float32's reach; the float64 runs test the default as well
    near = 0.5 if dtype == torch.float32 else 0.01
    expected = project_reference(*arguments(expected_scene, near=near, antialiased=antialiased))
    actual = torch.ops.feature_gs.project(*arguments(actual_scene, near=near, antialiased=antialiased))

    same = (actual[5] > 0) == (expected[5] > 0)
    disagreements = int((~same).sum())
    assert disagreements <= (same.numel() // 1000 if dtype == torch.float32 else 0)
    assert int((actual[5] - expected[5])[same].abs().max() if same.any() else 0) <= 1

    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    actual_loss, expected_loss = torch.zeros((), dtype=dtype), torch.zeros((), dtype=FLOAT64)
    for i, name in enumerate(NAMES[:5]):
        mask = same[..., None] if actual[i].dim() == 3 else same
        assert_near(actual[i] * mask, expected[i] * mask, tolerance, name)
        weights = weights_like(expected[i], seed=i) * mask
        actual_loss = actual_loss + (actual[i] * weights.to(dtype)).sum()
        expected_loss = expected_loss + (expected[i] * weights).sum()
    actual_loss.backward()
    expected_loss.backward()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-8
    names = ("means", "quats", "scales", "opacities", "sh_dc", "sh_rest")
    for name, a, e in zip(names, actual_scene.gaussians(), expected_scene.gaussians(), strict=False):
        assert_same_gradient(a.grad, e.grad, tolerance, name)


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_are_those_of_finite_differences(antialiased: bool) -> None:
    scene = random_scene(8, 40, 30, batch=2, sh_bands=16, kinds=False, scale=0.2).requires_grad()
    cameras = (scene.cam_from_world, scene.K, scene.width, scene.height, 0.01, math.inf, antialiased)

    def outputs(*gaussians: Tensor) -> Projected:
        return torch.ops.feature_gs.project(*gaussians, *cameras)[:5]

    assert torch.autograd.gradcheck(outputs, tuple(scene.gaussians()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh_dc", "sh_rest"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussians_that_are_not_finite_are_skipped(field: str, value: float, dtype: torch.dtype) -> None:
    clean = random_scene(50, 64, 48, batch=2, kinds=False).to(dtype)
    broken = clean.to(dtype)
    victim = 17
    assert torch.ops.feature_gs.project(*arguments(clean))[5][:, victim].all()
    getattr(broken, field)[victim].view(-1)[-1] = value
    broken.requires_grad()
    outputs = torch.ops.feature_gs.project(*arguments(broken))
    others = torch.arange(50) != victim
    for name, output, unharmed in zip(
        NAMES, outputs, torch.ops.feature_gs.project(*arguments(clean)), strict=True
    ):
        assert torch.equal(output[:, others], unharmed[:, others]), name
        assert not output[:, victim].any(), name
    torch.stack([output.square().sum() for output in outputs[:5]]).sum().backward()
    for tensor in broken.gaussians():
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()
        assert not tensor.grad[victim].any()


def test_quaternion_of_length_zero_is_skipped() -> None:
    scene = one_gaussian(quat=(0.0, 0.0, 0.0, 0.0)).requires_grad()
    outputs = torch.ops.feature_gs.project(*arguments(scene))
    assert not any(output.any() for output in outputs)


def test_strides_do_not_matter() -> None:
    scene = random_scene(60, 64, 48, batch=2)
    expected = torch.ops.feature_gs.project(*arguments(scene))
    for name in ("means", "quats", "scales", "sh_dc", "sh_rest", "cam_from_world", "K"):
        tensor = getattr(scene, name)
        setattr(scene, name, tensor.transpose(0, -1).contiguous().transpose(0, -1))
    scene.opacities = scene.opacities.repeat_interleave(2)[::2]
    for name, got, want in zip(NAMES, torch.ops.feature_gs.project(*arguments(scene)), expected, strict=True):
        assert torch.equal(got, want), name


@pytest.mark.parametrize(
    ("position", "broken", "message"),
    [
        (0, torch.zeros(5, 2, dtype=FLOAT64), r"means must be \[N, 3\]"),
        (1, torch.zeros(5, 3, dtype=FLOAT64), r"quats must be \[N, 4\]"),
        (2, torch.zeros(4, 3, dtype=FLOAT64), r"scales must be \[N, 3\]"),
        (3, torch.zeros(5, 1, dtype=FLOAT64), r"opacities must be \[N\]"),
        (4, torch.zeros(5, 4, dtype=FLOAT64), "sh_dc must be"),
        (5, torch.zeros(5, 4, 3, dtype=FLOAT64), "sh_rest must hold"),
        (6, torch.zeros(1, 3, 4, dtype=FLOAT64), r"cam_from_world must be \[B, 4, 4\]"),
        (7, torch.zeros(2, 3, 3, dtype=FLOAT64), r"K must be \[B, 3, 3\]"),
        (1, torch.zeros(5, 4, dtype=torch.float32), "quats must have the dtype"),
        (0, torch.zeros(5, 3, dtype=torch.float16), "means must be float32 or float64"),
        (0, torch.zeros(5, 3, dtype=torch.int64), "means must be float32 or float64"),
        (8, 0, "at least one pixel, got 0 x 30"),
        (9, -3, "at least one pixel, got 40 x -3"),
    ],
)
def test_wrong_inputs_are_named(position: int, broken: object, message: str) -> None:
    scene = random_scene(5, 40, 30, kinds=False)
    args = list(arguments(scene))
    args[position] = broken
    with pytest.raises(RuntimeError, match=message):
        torch.ops.feature_gs.project(*args)


def test_repeats_and_thread_counts_are_bit_equal() -> None:
    scene = SCENES["many"].to(torch.float32).requires_grad()
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            outputs = torch.ops.feature_gs.project(*arguments(scene))
            loss = torch.stack([(o * weights_like(o, 3).float()).sum() for o in outputs[:5]]).sum()
            results.append([*outputs, *torch.autograd.grad(loss, scene.gaussians())])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
