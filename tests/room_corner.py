"""Photos of the corner of a room, papered with random blobs: enough for real structure from motion.

Each wall is a plane, so a photo is three homographies: quick, and the poses are exact.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FOCAL = 260.0
SIZE = (320, 240)  # width, height
DISTORTION = (-0.12, 0.03, 0.001, -0.001)  # k1, k2, p1, p2 of COLMAP's OPENCV
_TEXELS = 640  # of a wall of one unit


def corner_pose(i: int, count: int) -> np.ndarray:
    """cam_from_world [4, 4] of photo i of `count`: an arc around the corner, looking into it."""
    angle = np.radians(45 + 50 * (i / max(count - 1, 1) - 0.5))
    center = np.array([1.45 * np.cos(angle), 1.45 * np.sin(angle), 0.75 + 0.12 * np.sin(2.0 * i)])
    forward = np.array([0.3, 0.3, 0.32]) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ center
    return pose


def photograph(pose: np.ndarray, distortion: Sequence[float] = DISTORTION) -> np.ndarray:
    """What a camera with lens distortion sees from a pose [4, 4]: RGB [H, W, 3] uint8."""
    width, height = SIZE
    margin = 60  # of the pinhole picture, which the distorted one is looked up in
    K = np.array([[FOCAL, 0, width / 2 + margin - 0.5], [0, FOCAL, height / 2 + margin - 0.5], [0, 0, 1]])
    size = (width + 2 * margin, height + 2 * margin)
    pinhole = np.zeros((size[1], size[0], 3), np.uint8)
    for wall, (u, v) in enumerate([(0, 1), (1, 2), (2, 0)]):
        edges = np.zeros((3, 3))
        edges[u, 0] = edges[v, 1] = 1.0 / _TEXELS
        H = K @ np.c_[pose[:3, :3] @ edges[:, :2], pose[:3, 3]]
        seen = cv2.warpPerspective(_wallpaper(wall), H, size, flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.full((_TEXELS, _TEXELS), 255, np.uint8), H, size)
        pinhole[inside > 127] = seen[inside > 127]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - width / 2) / FOCAL, (y - height / 2) / FOCAL], axis=-1).reshape(-1, 1, 2)
    flat = cv2.undistortPoints(rays, np.eye(3), np.array([*distortion, 0.0])).reshape(height, width, 2)
    place = (flat * FOCAL + [width / 2, height / 2] + margin - 0.5).astype(np.float32)
    return np.asarray(cv2.remap(pinhole, place[..., 0], place[..., 1], cv2.INTER_LINEAR))


def write_photos(folder: Path, count: int = 5, suffix: str = ".jpg") -> list[str]:
    """Photographs the corner and returns the names of the photos, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"corner {i}{suffix}" for i in range(count)]
    for i, name in enumerate(names):
        Image.fromarray(photograph(corner_pose(i, count))).save(folder / name, quality=92)
    return names


@lru_cache
def _wallpaper(wall: int) -> np.ndarray:
    random = np.random.default_rng(wall)
    paper = np.zeros((_TEXELS, _TEXELS, 3), np.float32)
    for cells in (16, 40, 100):
        blobs = random.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        paper += cv2.resize(blobs, (_TEXELS, _TEXELS), interpolation=cv2.INTER_CUBIC) / 3
    return np.clip((paper - 127) * 1.8 + 127, 0, 255).astype(np.uint8)
