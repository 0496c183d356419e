"""Tiny scenes on disk for tests: four photos of 32 x 24 pixels on a circle, and eight points."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

NAMES = ("a.png", "b.png", "c.png", "d.png")
POINTS = np.stack(np.meshgrid([-0.3, 0.3], [-0.3, 0.3], [-0.3, 0.3]), axis=-1).reshape(-1, 3)


def circle_pose(i: int, count: int) -> np.ndarray:
    """cam_from_world [4, 4] of camera i of `count`, two units away from the origin and looking at it."""
    angle = 2 * np.pi * i / count
    forward = -np.array([np.cos(angle), np.sin(angle), 0.0])
    right = np.cross(forward, [0, 0, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[2, 3] = 2.0
    return pose


def write_photo(path: Path, width: int = 32, height: int = 24, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8)).save(path)


def write_colmap_scene(
    folder: Path,
    *,
    names: Sequence[str] = NAMES,
    model: str = "PINHOLE",
    params: Sequence[float] = (30.0, 31.0, 15.5, 12.5),
    points: np.ndarray = POINTS,
    binary: bool = True,
    where: str = "sparse/0",
    photos: bool = True,
) -> Path:
    """Writes a COLMAP scene and returns `folder`."""
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=1, model=model, width=32, height=24, params=list(params))
    reconstruction.add_camera_with_trivial_rig(camera)
    for i, name in enumerate(names):
        image = pycolmap.Image(name=name, keypoints=np.zeros((0, 2)), camera_id=1, image_id=i + 1)
        pose = pycolmap.Rigid3d(circle_pose(i, len(names))[:3])
        reconstruction.add_image_with_trivial_frame(image, pose)
        if photos:
            write_photo(folder / "images" / name, value=10 * i)
    for i, point in enumerate(points):
        reconstruction.add_point3D(point, pycolmap.Track(), np.array([i, 2 * i, 255 - i], dtype=np.uint8))
    (folder / where).mkdir(parents=True, exist_ok=True)
    if binary:
        reconstruction.write_binary(str(folder / where))
    else:
        reconstruction.write_text(str(folder / where))
    return folder


def write_blender_scene(folder: Path, *, split: Sequence[str] = ("train", "test"), **keys: object) -> Path:
    """Writes a NeRF-synthetic scene of two frames per split, with transparent photos; returns `folder`."""
    for part in split:
        frames = []
        for i in range(2):
            rgba = np.zeros((24, 32, 4), dtype=np.uint8)
            rgba[:, :16] = [200, 100, 50, 255]
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgba).save(folder / part / f"r_{i}.png")
            pose = np.linalg.inv(np.diag([1.0, -1.0, -1.0, 1.0]) @ circle_pose(i, 2))
            frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": pose.tolist()})
        transforms = {"camera_angle_x": 2 * np.arctan(0.5), **keys, "frames": frames}
        (folder / f"transforms_{part}.json").write_text(json.dumps(transforms))
    return folder
