"""Random scenes and the comparisons that the tests of the compiled ops share."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass
class RandomScene:
    """Gaussians and cameras, as `rasterize` takes them."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4]
    scales: Tensor  # [N, 3]
    opacities: Tensor  # [N]
    sh_dc: Tensor  # [N, 3]
    sh_rest: Tensor | None  # [N, K-1, 3]
    cam_from_world: Tensor  # [B, 4, 4]
    K: Tensor  # [B, 3, 3]
    width: int
    height: int

    def gaussians(self) -> list[Tensor]:
        """The tensors that may carry a gradient."""
        tensors = [self.means, self.quats, self.scales, self.opacities, self.sh_dc]
        return tensors if self.sh_rest is None else [*tensors, self.sh_rest]

    def to(self, dtype: torch.dtype) -> "RandomScene":
        """A copy in another precision, without gradient."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.detach().to(dtype, copy=True)
        return RandomScene(**values)

    def requires_grad(self) -> "RandomScene":
        for tensor in self.gaussians():
            tensor.requires_grad_()
        return self

    def select(self, keep: Tensor) -> "RandomScene":
        """The scene with some of its Gaussians."""
        kept: dict[str, Any] = {
            name: getattr(self, name)[keep] for name in ("means", "quats", "scales", "opacities", "sh_dc")
        }
        kept["sh_rest"] = None if self.sh_rest is None else self.sh_rest[keep]
        return dataclasses.replace(self, **kept)


def look_at(position: Tensor, target: Tensor, roll: float) -> Tensor:
    """`cam_from_world` [4, 4] of a camera at `position` [3] whose z axis points at `target` [3]."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    up = torch.tensor([math.sin(roll), -math.cos(roll), 0.1], dtype=position.dtype)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    pose = torch.eye(4, dtype=position.dtype)
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ position
    return pose


def random_scene(
    count: int,
    width: int,
    height: int,
    *,
    batch: int = 1,
    sh_bands: int = 4,
    scale: float = 0.05,
    kinds: bool = True,
    seed: int = 0,
) -> RandomScene:
    """A cloud of Gaussians around the origin and cameras at a distance of about 4, in float32-exact float64.

    Args:
        count: Gaussians, from which those are dropped that lie at nearly the same depth as another: their
            order would depend on rounding.
        width: Pixels.
        height: Pixels.
        batch: Number of cameras. Focal lengths differ in x and y, principal points are off centre.
        sh_bands: Colour coefficients per channel: 1, 4, 9 or 16.
        scale: Typical standard deviation of a Gaussian; the cloud is 3 wide.
        kinds: Make some Gaussians sub-pixel, screen-filling, needles, transparent or opaque, and put some
            behind and some right at the first camera.
        seed: Of the random numbers.
    """
    rng = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    poses, intrinsics = [], []
    for _ in range(batch):
        position = torch.nn.functional.normalize(normal(3), dim=0) * (3.5 + uniform(1))
        poses.append(look_at(position, 0.3 * normal(3), float(6.3 * uniform(1))))
        fx, fy, cx, cy = (float(0.8 + 0.4 * u) for u in uniform(4))
        matrix = [[fx * width, 0, 0.5 * cx * width], [0, fy * width, 0.5 * cy * height], [0, 0, 1]]
        intrinsics.append(torch.tensor(matrix, dtype=torch.float64))
    cam_from_world = torch.stack(poses)

    means = 3 * uniform(count, 3) - 1.5
    scales = scale * torch.exp(0.6 * normal(count, 3))
    opacities = uniform(count)
    if kinds:
        centre = -cam_from_world[0, :3, :3].T @ cam_from_world[0, :3, 3]
        means[0::11] += 2 * centre  # behind the first camera
        means[1::11] = centre + 0.3 * normal(*means[1::11].shape)  # around it, across the near plane
        scales[2::11] *= 0.01
        scales[3::97] *= 40
        scales[4::11, 0] *= 5
        opacities[5::11] = 0
        opacities[6::11] = 1
    scene = RandomScene(
        means=means,
        quats=normal(count, 4) * torch.exp(normal(count, 1)),
        scales=scales,
        opacities=opacities,
        sh_dc=normal(count, 3),
        sh_rest=None if sh_bands == 1 else 0.4 * normal(count, sh_bands - 1, 3),
        cam_from_world=cam_from_world,
        K=torch.stack(intrinsics),
        width=width,
        height=height,
    )
    scene = scene.to(torch.float32).to(torch.float64)
    keep = torch.ones(count, dtype=torch.bool)
    for pose in scene.cam_from_world:
        depth, order = (scene.means @ pose[2, :3] + pose[2, 3]).sort()
        close = depth.diff() < 1e-5
        keep[order[1:][close]] = False
    return scene.select(keep)


def weights_like(output: Tensor, seed: int) -> Tensor:
    """Fixed random factors that turn an output into a loss."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(output.shape, generator=rng, dtype=torch.float64) - 0.3


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    """Every difference is at most `tolerance` times the larger of 1 and the expected value."""
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    error = (actual.double() - expected.double()).abs() / expected.double().abs().clamp(min=1)
    worst = float(error.detach().max()) if error.numel() else 0.0
    assert worst <= tolerance, f"{name}: off by {worst:.2e}, more than {tolerance:.0e}"


def assert_same_gradient(actual: Tensor | None, expected: Tensor | None, tolerance: float, name: str) -> None:
    """The largest difference is at most `tolerance` times the largest gradient; None counts as zero."""
    if actual is None or expected is None:
        present = expected if actual is None else actual
        assert present is None or not present.any(), f"{name}: only one of the gradients is there"
        return
    assert actual.shape == expected.shape and torch.isfinite(actual).all(), f"{name}: shape or not finite"
    if expected.numel() == 0:
        return
    scale = max(float(expected.abs().max()), 1e-12)
    worst = float((actual.double() - expected.double()).abs().max()) / scale
    assert worst <= tolerance, (
        f"{name}: off by {worst:.2e} of the largest gradient, more than {tolerance:.0e}"
    )
