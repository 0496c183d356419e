"""One pinhole camera: intrinsics, pose, and its JSON form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.files import atomic_write

_LARGEST_SIDE = 65535  # pixels
_LEAST_VOLUME = 1e-9


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with OpenCV axes (x right, y down, z forward).

    A world point x is seen at pixel `(K x_cam)[:2] / x_cam[2]` with `x_cam = R x + t`; the pixel in the
    upper left corner has its centre at (0.5, 0.5).

    Attributes:
        name: Path of the image relative to the folder of images, with suffix ("left/0001.jpg").
        width: Image width in pixels.
        height: Image height in pixels.
        K: Intrinsics fx, fy, cx, cy in pixels as a matrix, float32.
        cam_from_world: World to camera transform, float32.
    """

    name: str
    width: int
    height: int
    K: Tensor  # [3, 3]
    cam_from_world: Tensor  # [4, 4]

    @property
    def center(self) -> Tensor:
        """The camera's position in the world, [3]."""
        pose = self.cam_from_world.double()
        return (-pose[:3, :3].T @ pose[:3, 3]).float()

    def resized(self, width: int, height: int) -> "Camera":
        """The same camera with `width` x `height` pixels: x scales by width / self.width, y likewise."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0], dtype=torch.float64)
        return Camera(
            self.name, width, height, (self.K.double() * scale[:, None]).float(), self.cam_from_world
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dump` writes and `from_json` reads back without loss."""
        return {
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "K": self.K.tolist(),
            "cam_from_world": self.cam_from_world.tolist(),
        }

    @staticmethod
    def from_json(entry: dict[str, Any]) -> "Camera":
        """The camera that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: If a key is missing or a value has the wrong type or shape.
        """
        K = torch.tensor(entry["K"], dtype=torch.float32)
        cam_from_world = torch.tensor(entry["cam_from_world"], dtype=torch.float32)
        if K.shape != (3, 3) or cam_from_world.shape != (4, 4):
            shapes = f"K {list(K.shape)} and cam_from_world {list(cam_from_world.shape)}"
            raise ValueError(f"expected K [3, 3] and cam_from_world [4, 4], got {shapes}")
        return Camera(str(entry["name"]), int(entry["width"]), int(entry["height"]), K, cam_from_world)


def write_cameras_json(path: Path, train: list[Camera], test: Sequence[Camera] = ()) -> None:
    """Writes the cameras and which of them are for testing: all that rendering needs besides a model.

    Args:
        path: The file.
        train: Cameras that were trained on.
        test: Cameras kept for testing.
    """
    entries = [{**camera.to_json(), "split": "train"} for camera in train]
    entries += [{**camera.to_json(), "split": "test"} for camera in test]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")


def read_cameras_json(path: Path) -> dict[str, list[Camera]]:
    """Reads what `write_cameras_json` wrote.

    Returns:
        The cameras of "train" and of "test", each sorted by name.

    Raises:
        UserError: If the file is missing, is not JSON, an entry is not a camera, a name leads out of the
            folder of images or stands there twice, a camera makes no sense, or there is no training camera.
    """
    cameras: dict[str, list[Camera]] = {"train": [], "test": []}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            cameras[entry["split"]].append(Camera.from_json(entry))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; training writes it: is this a model's folder?") from None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a list of cameras ({type(error).__name__}: {error})") from None
    for camera in (*cameras["train"], *cameras["test"]):
        if not PurePosixPath(camera.name).name or "\0" in camera.name:
            raise UserError(f"{path}: {camera.name!r} is no image name.")
        if not _makes_sense(camera):
            raise UserError(f"{path}: size, K or pose of the camera {camera.name!r} make no sense.")
        if PurePosixPath(camera.name).is_absolute() or ".." in PurePosixPath(camera.name).parts:
            raise UserError(f"{path}: the image name {camera.name!r} leads out of the folder of images.")
    for split, views in cameras.items():
        if len({camera.name for camera in views}) < len(views):
            raise UserError(f"{path}: two cameras of {split} have the same name.")
    if not cameras["train"]:
        raise UserError(f"{path} holds no training camera; train the model again.")
    return {split: sorted(views, key=lambda camera: camera.name) for split, views in cameras.items()}


def _makes_sense(camera: Camera) -> bool:
    K, R = camera.K, camera.cam_from_world[:3, :3]  # R may be scaled, as some Blender scenes have it
    return (
        bool(K.isfinite().all() and camera.cam_from_world.isfinite().all())
        and min(float(K[0, 0]), float(K[1, 1])) > 0
        and abs(float(torch.linalg.det(R))) > _LEAST_VOLUME
        and all(1 <= side <= _LARGEST_SIDE for side in (camera.width, camera.height))
    )
