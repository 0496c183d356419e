"""Reads scenes in the form of NeRF-synthetic: `transforms_{train,test}.json` beside the photos."""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from plyfile import PlyData, PlyParseError
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.scenes.camera import Camera
from feature_gs.scenes.images import image_size
from feature_gs.scenes.source import Source, check_camera, fit_to_photo, some_of

RANDOM_POINTS = 100_000
RANDOM_HALF_SIZE = 1.3  # the objects of NeRF-synthetic lie in this cube around the origin
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def read_blender(source_path: Path) -> Source:
    """Reads the cameras and points of a Blender scene.

    Frames whose photo is missing are left out with a message. Points come from `points3d.ply` if it exists;
    otherwise they are random in a cube around the origin.

    Raises:
        UserError: If a file is damaged, a camera is distorted or not rigid, or no photo is found.
    """
    source = Source([], {}, torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8))
    missing: list[str] = []
    _read_frames(source_path, source_path / "transforms_train.json", source, missing)
    test_file = source_path / "transforms_test.json"
    if test_file.is_file():
        train_names = set(source.paths)
        _read_frames(source_path, test_file, source, missing)
        source.test_names = set(source.paths) - train_names
    if not source.cameras:
        what = f"expected e.g. {missing[0]}" if missing else "it lists no frames"
        raise UserError(f"no photo of {source_path / 'transforms_train.json'} was found: {what}")
    if missing:
        source.messages.append(f"{len(missing)} frames without a photo are left out: {some_of(missing)}")
    source.points, source.point_colors = _points(source_path, source.messages)
    return source


def _read_frames(source_path: Path, file: Path, source: Source, missing: list[str]) -> None:
    try:
        transforms = json.loads(file.read_text(encoding="utf-8"))
        frames = [(transforms | frame, str(frame["file_path"])) for frame in transforms["frames"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a transforms file ({type(error).__name__}: {error})") from None
    for entry, file_path in frames:
        path = source_path / file_path
        path = path if path.is_file() else path.with_name(path.name + ".png")
        name = _name(file_path, path.suffix)
        if not path.is_file():
            missing.append(str(path))
        elif name in source.paths:
            source.messages.append(f"{file} lists {file_path} once more; the first entry counts")
        else:
            source.cameras.append(_camera(entry, name, path, file))
            source.paths[name] = path


def _name(file_path: str, suffix: str) -> str:
    parts = [part for part in PurePosixPath(file_path).parts if part not in ("..", "/")]
    if parts[0] == "images":
        parts = parts[1:]
    name = "/".join(parts)
    return name if name.endswith(suffix) else name + suffix


def _camera(entry: dict[str, Any], name: str, path: Path, file: Path) -> Camera:
    distortion = {key: entry[key] for key in DISTORTION_KEYS if entry.get(key)}
    if distortion:
        raise UserError(f"{file} describes a lens with distortion {distortion}; undistort the photos first")
    try:
        photo_width, photo_height = image_size(path)
        width, height = int(entry.get("w", photo_width)), int(entry.get("h", photo_height))
        if "fl_x" in entry:
            fx = float(entry["fl_x"])
        else:
            fx = 0.5 * width / math.tan(0.5 * float(entry["camera_angle_x"]))
        fy = float(entry.get("fl_y", fx))
        cx, cy = float(entry.get("cx", width / 2)), float(entry.get("cy", height / 2))
        world_from_cam = np.eye(4)
        world_from_cam[:3] = np.array(entry["transform_matrix"], dtype=np.float64)[:3]
        cam_from_world = OPENCV_FROM_OPENGL @ np.linalg.inv(world_from_cam)
    except KeyError as error:
        raise UserError(
            f"{file} lacks {error} for {name}; expected camera_angle_x or fl_x, and poses"
        ) from None
    except (TypeError, ValueError, IndexError, ZeroDivisionError, np.linalg.LinAlgError) as error:
        raise UserError(f"{file} has no usable camera for {name}: {error}") from None
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
    camera = Camera(name, width, height, K, torch.tensor(cam_from_world, dtype=torch.float32))
    check_camera(camera, file)
    return fit_to_photo(camera, path)


def _points(source_path: Path, messages: list[str]) -> tuple[Tensor, Tensor]:
    file = source_path / "points3d.ply"
    if not file.is_file():
        messages.append(
            f"no points3d.ply: started from {RANDOM_POINTS:,} random points in the cube of half size "
            f"{RANDOM_HALF_SIZE} around the origin"
        )
        generator = torch.Generator().manual_seed(0)
        points = (torch.rand(RANDOM_POINTS, 3, generator=generator) * 2 - 1) * RANDOM_HALF_SIZE
        return points, torch.full((RANDOM_POINTS, 3), 128, dtype=torch.uint8)
    try:
        vertices = PlyData.read(str(file))["vertex"]
        xyz = np.stack([vertices[key] for key in ("x", "y", "z")], axis=1).astype(np.float32)
        rgb = np.stack([vertices[key] for key in ("red", "green", "blue")], axis=1).astype(np.uint8)
    except (OSError, PlyParseError, KeyError, ValueError) as error:
        raise UserError(f"cannot read points with colours from {file}: {error}") from None
    finite = np.isfinite(xyz).all(axis=1)
    return torch.from_numpy(xyz[finite]), torch.from_numpy(rgb[finite])
