"""What every reader of a scene format returns, before resolution and split are chosen."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.scenes.camera import Camera
from feature_gs.scenes.images import image_size


@dataclass
class Source:
    """Photos with their cameras, and points.

    Attributes:
        cameras: One camera per photo of the source, at the size of the photo's file.
        paths: The photo's file by camera name; a camera without an entry has no photo.
        points: Points in the world, float32; may be empty.
        point_colors: Their colours, uint8.
        test_names: The test views when the source itself names them, otherwise None.
        messages: What the user should be told.
    """

    cameras: list[Camera]
    paths: dict[str, Path]
    points: Tensor  # [P, 3]
    point_colors: Tensor  # [P, 3]
    test_names: set[str] | None = None
    messages: list[str] = field(default_factory=list)


def some_of(names: list[str]) -> str:
    """The first names of a list in words: "a.jpg, b.jpg, c.jpg and 4 more"."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def check_camera(camera: Camera, origin: Path) -> None:
    """Checks that a camera can be rendered: sizes and focal lengths positive, pose rigid, nothing NaN.

    Raises:
        UserError: If not; names the image and `origin`, the file the camera came from.
    """
    where = f"the camera of image {camera.name!r} in {origin}"
    fx, fy = camera.K[0, 0].item(), camera.K[1, 1].item()
    if not torch.isfinite(camera.K).all() or min(fx, fy) <= 0 or min(camera.width, camera.height) < 1:
        size = f"{camera.width}x{camera.height} pixels, K {camera.K.tolist()}"
        raise UserError(f"{where} is not a camera: {size}; sizes and focal lengths must be above 0")
    pose = camera.cam_from_world.double()
    rotation = pose[:3, :3]
    if not torch.isfinite(pose).all():
        raise UserError(f"{where} has NaN or infinite numbers in its pose; remove the image or redo it")
    error = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    if error > 1e-3 or torch.linalg.det(rotation) < 0:
        raise UserError(
            f"{where} has a pose that scales or mirrors (off by {error:.2g}); expected a rotation"
        )


def fit_to_photo(camera: Camera, path: Path) -> Camera:
    """The camera at the size of its photo's file, e.g. one of `images_4` with a full-size COLMAP camera.

    Raises:
        UserError: If the photo cannot be read or its proportions are not the camera's.
    """
    width, height = image_size(path)
    if (width, height) == (camera.width, camera.height):
        return camera
    scaled = width * camera.height / camera.width
    if abs(scaled - height) > 1.0 + 0.5 * camera.height / camera.width:
        rotated = " It looks rotated by 90 degrees: store it upright." if width == camera.height else ""
        raise UserError(
            f"the photo {path} has {width}x{height} pixels, its camera {camera.width}x{camera.height}: "
            f"expected the same proportions.{rotated} Use the photos the cameras were estimated from, "
            "or point -i at their folder."
        )
    return camera.resized(width, height)
