"""The demo scene: things on a rug in a room, with exact poses, depth and labels, as a COLMAP model."""

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch
from PIL import Image

from feature_gs.files import atomic_write
from feature_gs.scenes import textures
from feature_gs.scenes.camera import Camera, write_cameras_json
from feature_gs.scenes.raytracer import Lamp, Solid, bake, render
from feature_gs.scenes.solids import Box, Cylinder, Sphere

Array = np.ndarray
DEPTH_SCALE = 0.0001  # metres per unit of the depth images
POINTS = 3000
LOOK_AT = np.array([0.0, 0.0, 0.17])
RUG_TOP = 0.012

LAMPS = [
    Lamp(np.array([0.9, -0.7, 2.35]), np.array([[0.35, 0, 0], [0, 0.35, 0]]), np.array([5.6, 4.9, 4.0])),
    Lamp(np.array([-1.5, 0.8, 2.2]), np.array([[0.3, 0, 0], [0, 0.5, 0]]), np.array([0.9, 1.2, 1.6])),
]


def write_demo_scene(
    folder: Path,
    *,
    views: int = 40,
    width: int = 256,
    height: int = 192,
    seed: int = 0,
    without: Collection[str] = (),
) -> None:
    """Renders the demo scene and writes all that is known of it.

    Writes `images/NNN.png`, `labels/NNN.png` (8-bit ids, names in `labels.json`), `depth/NNN.png` (16-bit
    z-depth in units of 0.1 mm), `cameras.json`, and the COLMAP model `sparse/0` with points on the surfaces.
    The model comes last: where it is, the scene is whole.

    Args:
        folder: Where to write; created if missing. Files of the same names are replaced.
        views: How many views, on three turns around the scene at changing height.
        width: Width of the views in pixels.
        height: Height of the views in pixels.
        seed: Which surface points are chosen, and where on its circle the first camera stands.
        without: Labels of things that are left out, with their shadows; the others keep their ids.

    Raises:
        ValueError: There is no thing of such a label.
    """
    random = np.random.default_rng(seed)
    everything = _solids()
    names = list(dict.fromkeys(solid.label for solid in everything))
    if not {*without} <= {*names}:
        raise ValueError(f"the scene holds {', '.join(names)}; got {', '.join(without)} to leave out")
    solids = [solid for solid in everything if solid.label not in without]
    baked = bake(solids, LAMPS)
    ids = np.array([names.index(solid.label) + 1 for solid in solids], dtype=np.uint8)
    cameras = _cameras(views, width, height, start=random.uniform(0, 2 * np.pi) if seed else 0.0)

    pictures, depths = [], []
    for camera in cameras:
        picture, depth, index = render(camera, baked, LAMPS)
        stored = (depth / DEPTH_SCALE).round().astype(np.uint16)
        _write_png(folder / "images" / camera.name, picture)
        _write_png(folder / "labels" / camera.name, ids[index])
        _write_png(folder / "depth" / camera.name, stored)
        pictures.append(picture)
        depths.append(depth)
    labels = {"labels": {str(i + 1): name for i, name in enumerate(names)}}
    with atomic_write(folder / "labels.json") as temporary:
        temporary.write_text(json.dumps(labels, indent=1), encoding="utf-8")
    write_cameras_json(folder / "cameras.json", cameras)
    _write_colmap(folder / "sparse" / "0", cameras, pictures, depths, random)


def _solids() -> list[Solid]:
    def at(x: float, y: float, z: float) -> Array:
        return np.array([x, y, z + RUG_TOP])

    def book(x: float, y: float, z: float, yaw: float, half: list[float], cover: str, ink: str) -> Solid:
        return Solid("books", Box(at(x, y, z), np.array(half), yaw), textures.book(cover, ink))

    def small_ball(x: float, y: float, radius: float, light: str, dark: str, seed: int) -> Solid:
        stone = textures.marble(light, dark, 18.0, seed)
        return Solid("marbles", Sphere(at(x, y, radius), radius), stone, light_texel=0.01, gloss=0.5)

    room = Box(np.array([0, 0, 1.15]), np.array([2.2, 2.2, 1.25]), inward=True)
    floor = Box(np.array([0, 0, -0.05]), np.array([2.2, 2.2, 0.05]))
    boards = textures.planks(0.14, 1.1, "6e4a2c", "b98a5a")
    column = textures.marble("efe9df", "8a7f78", 9.0, 81)
    brass = textures.marble("f2c14e", "9a6a14", 25.0, 82)
    pot = textures.zigzag("c8693f", ("f3e2c0", "1d4e5f", "f3e2c0"), 14)
    sweet = textures.spiral(("f8f4ec", "c81d4e"), 5.0, 3)
    tub = textures.spiral(("20545e", "e7d9b0"), 0.0, 18)
    mat = Cylinder(np.array([0, 0, RUG_TOP / 2]), 0.95, RUG_TOP / 2)
    return [
        Solid("wall", room, textures.wallpaper, texel=0.012, light_texel=0.08),
        Solid("floor", floor, boards, texel=0.006, light_texel=0.035),
        Solid("rug", mat, textures.rug, light_texel=0.0125),
        Solid("crate", Box(at(-0.36, 0.24, 0.15), np.array([0.15, 0.15, 0.15]), 0.45), textures.crate),
        Solid("ball", Sphere(at(-0.36, 0.24, 0.42), 0.12), textures.beach_ball, gloss=0.15),
        Solid("tub", Cylinder(at(0.08, 0.06, 0.05), 0.13, 0.05), tub, light_texel=0.015),
        Solid("globe", Sphere(at(0.08, 0.06, 0.28), 0.18), textures.globe, gloss=0.2),
        book(0.50, 0.20, 0.026, 0.30, [0.20, 0.14, 0.026], "1f4e79", "e8c872"),
        book(0.49, 0.21, 0.076, -0.10, [0.18, 0.13, 0.024], "8f2d3b", "f1dfb4"),
        book(0.50, 0.19, 0.122, 0.75, [0.15, 0.11, 0.022], "2f6b45", "f3ead2"),
        Solid("pot", Cylinder(at(0.38, -0.34, 0.11), 0.10, 0.11), pot, light_texel=0.015),
        Solid("cube", Box(at(-0.08, -0.42, 0.09), np.array([0.09, 0.09, 0.09]), 0.55), textures.puzzle_cube),
        Solid("candle", Cylinder(at(-0.52, -0.20, 0.17), 0.05, 0.17), sweet, light_texel=0.015),
        Solid("column", Cylinder(at(0.12, 0.55, 0.20), 0.075, 0.20), column, light_texel=0.015),
        Solid("column", Sphere(at(0.12, 0.55, 0.47), 0.07), brass, gloss=0.5),
        small_ball(-0.30, -0.32, 0.05, "58c4dd", "0f3d6e", 91),
        small_ball(0.16, -0.24, 0.045, "f6d55c", "c0392b", 92),
        small_ball(0.66, -0.12, 0.055, "b8e0a0", "1e6b3c", 93),
    ]


def _cameras(views: int, width: int, height: int, start: float) -> list[Camera]:
    focal = 0.9 * width
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
    cameras = []
    for i in range(views):
        turn = 2 * np.pi * i / views
        azimuth = start + 3 * turn
        elevation = np.radians(30 - 15 * np.cos(2 * turn))
        distance = 1.45 + 0.15 * np.sin(5 * turn)
        ring = np.cos(elevation)
        offset = np.array([ring * np.cos(azimuth), ring * np.sin(azimuth), np.sin(elevation)])
        pose = torch.tensor(_look_at(LOOK_AT + distance * offset, LOOK_AT), dtype=torch.float32)
        cameras.append(Camera(f"{i:03d}.png", width, height, K, pose))
    return cameras


def _look_at(center: Array, target: Array) -> Array:
    """cam_from_world [4, 4] of an upright camera at `center` that looks at `target`."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ center
    return pose


def _write_png(path: Path, pixels: Array) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _write_colmap(
    folder: Path,
    cameras: list[Camera],
    pictures: list[Array],
    depths: list[Array],
    random: np.random.Generator,
) -> None:
    """Writes cameras, poses, and points sampled from the depth maps with the views that see them."""
    model = pycolmap.Reconstruction()
    K = cameras[0].K.double().numpy()
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    size = (cameras[0].width, cameras[0].height)
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=size[0], height=size[1], params=params)
    )
    points, colors = _sample_points(cameras, pictures, depths, random)
    tracks: list[Any] = [pycolmap.Track() for _ in points]
    for image_id, (camera, depth) in enumerate(zip(cameras, depths, strict=True), start=1):
        seen, pixels = _observe(camera, depth, points)
        for position, point in enumerate(seen):
            tracks[point].add_element(image_id, position)
        image = pycolmap.Image(name=camera.name, keypoints=pixels, camera_id=1, image_id=image_id)
        pose = camera.cam_from_world.double().numpy()
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    for point, color, track in zip(points, colors, tracks, strict=True):
        model.add_point3D(point, track, color)
    temporary = folder.with_name(f".{folder.name}.tmp")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.write_binary(str(temporary))
    os.replace(temporary, folder)


def _sample_points(
    cameras: list[Camera], pictures: list[Array], depths: list[Array], random: np.random.Generator
) -> tuple[Array, Array]:
    """Points [P, 3] on the surfaces seen at random pixels, and their colours [P, 3]."""
    view = random.integers(len(cameras), size=POINTS)
    row = random.integers(cameras[0].height, size=POINTS)
    column = random.integers(cameras[0].width, size=POINTS)
    poses = torch.stack([camera.cam_from_world for camera in cameras]).double().numpy()[view]
    K = cameras[0].K.double().numpy()
    z = np.stack(depths)[view, row, column]
    pixels = np.stack([column + 0.5, row + 0.5], axis=-1)
    local = np.concatenate([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]] * z[:, None], z[:, None]], axis=-1)
    points = np.einsum("nji,nj->ni", poses[:, :3, :3], local - poses[:, :3, 3])
    return points, np.stack(pictures)[view, row, column]


def _observe(camera: Camera, depth: Array, points: Array) -> tuple[Array, Array]:
    """Indices of the points that a camera sees, and the pixels [n, 2] where."""
    pose, K = camera.cam_from_world.double().numpy(), camera.K.double().numpy()
    local = points @ pose[:3, :3].T + pose[:3, 3]
    z = np.maximum(local[:, 2], 1e-6)
    pixels = local[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    size = [camera.width, camera.height]
    seen = np.flatnonzero((local[:, 2] > 1e-6) & ((pixels >= 0) & (pixels < size)).all(axis=1))
    column, row = pixels[seen].astype(int).T
    seen = seen[np.abs(depth[row, column] - z[seen]) < 0.01 * z[seen]]
    return seen, pixels[seen]
