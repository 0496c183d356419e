"""Points to start from when a scene has none."""

import torch
from torch import Tensor

from feature_gs.scenes.camera import Camera


def random_points_in_frustums(cameras: list[Camera], count: int = 10_000) -> tuple[Tensor, Tensor]:
    """Draws points that the cameras see, spread evenly in inverse depth around what they look at.

    Args:
        cameras: The cameras, at least one.
        count: How many points in all.

    Returns:
        Points float32 [count, 3] and their colours uint8 [count, 3], mid-grey. The same at every call.
    """
    generator = torch.Generator().manual_seed(0)
    depths = _depths_of_interest(cameras)  # [B]
    chosen = torch.arange(count) % len(cameras)
    K = torch.stack([camera.K for camera in cameras]).double()[chosen]
    pose = torch.stack([camera.cam_from_world for camera in cameras]).double()[chosen]
    sizes = torch.tensor([[camera.width, camera.height] for camera in cameras], dtype=torch.float64)[chosen]

    pixels = torch.rand(count, 2, generator=generator, dtype=torch.float64) * sizes
    inverse = torch.rand(count, generator=generator, dtype=torch.float64) * (1 / 0.4 - 1 / 2.5) + 1 / 2.5
    z = (depths[chosen] / inverse)[:, None]
    xy = (pixels - K[:, :2, 2]) / torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=1) * z
    in_camera = torch.cat([xy, z], dim=1)
    points = torch.einsum("nji,nj->ni", pose[:, :3, :3], in_camera - pose[:, :3, 3])
    return points.float(), torch.full((count, 3), 128, dtype=torch.uint8)


def _depths_of_interest(cameras: list[Camera]) -> Tensor:
    """Depth [B] at which each camera passes the point nearest to all optical axes; 1 where there is none."""
    pose = torch.stack([camera.cam_from_world for camera in cameras]).double()
    axes = pose[:, 2, :3]
    centers = torch.stack([camera.center for camera in cameras]).double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]  # along the axis: 0
    normal = across.sum(dim=0)
    if torch.linalg.eigvalsh(normal)[0] < 1e-6 * len(cameras):  # parallel axes meet nowhere
        spread = (centers - centers.mean(dim=0)).norm(dim=1).max().item()
        return torch.full((len(cameras),), spread or 1.0, dtype=torch.float64)
    focus = torch.linalg.solve(normal, torch.einsum("bij,bj->i", across, centers))
    depths = torch.einsum("bi,bi->b", axes, focus - centers)
    spread = (focus - centers).norm(dim=1).mean()
    return torch.where(depths > 0.05 * spread, depths, spread)
