"""Smooth camera paths through given poses.

Centres follow a cubic spline, rotations a cubic spline of unit quaternions: both pass through every given
pose with continuous velocity, and every pose on the way is a rigid one. Frames are spread evenly over the
way travelled, whatever the spacing of the given poses.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from feature_gs.scenes import Camera

Array = NDArray[np.float64]

# A turn on the spot counts as way travelled: a radian weighs this share of the cameras' spread.
_TURN_WEIGHT = 0.25
# A path is closed when the way from its end to its start is at most this times a long step within it.
_CLOSING_GAP = 1.25
_SAMPLES_PER_SEGMENT = 64


class PosePath:
    """A smooth curve through rigid poses.

    Attributes:
        knots: Parameter of each given pose, increasing from 0. Consecutive poses that coincide are one knot.
            A closed path has one more knot than poses, its length, where it is back at the first pose.
        closed: Whether the curve is periodic.
    """

    def __init__(self, cam_from_world: Array, *, closed: bool) -> None:  # [n, 4, 4]
        centers, quats = _centers_and_quats(cam_from_world)
        self._turn_radius = _turn_radius(centers)
        kept = self._distinct(centers, quats, closed)
        centers, quats = centers[kept], quats[kept]
        self.closed = closed and len(kept) > 2
        if self.closed:
            centers, quats = np.append(centers, centers[:1], 0), np.append(quats, quats[:1], 0)
        quats = _same_hemisphere(quats)
        # Centripetal spacing of the knots keeps a spline from looping where a long step meets a short one.
        steps = np.sqrt(step_lengths(centers, quats, self._turn_radius))
        self.knots = np.append(0.0, np.cumsum(steps))
        self._fixed = (centers[0], quats[0]) if len(kept) == 1 else None
        if self._fixed is None:
            self._fit(centers, quats)

    def _distinct(self, centers: Array, quats: Array, closed: bool) -> NDArray[np.intp]:
        steps = step_lengths(centers, quats, self._turn_radius)
        smallest = 1e-4 * self._turn_radius
        kept = np.append(0, 1 + np.flatnonzero(steps > smallest))
        if closed and len(kept) > 1:
            ends = [kept[-1], 0]
            if step_lengths(centers[ends], quats[ends], self._turn_radius)[0] <= smallest:
                kept = kept[:-1]
        return kept

    def _fit(self, centers: Array, quats: Array) -> None:
        if not self.closed:
            self._center = CubicSpline(self.knots, centers, bc_type="natural")
            self._quat = CubicSpline(self.knots, quats, bc_type="natural")
            return
        centers[-1] = centers[0]
        self._center = CubicSpline(self.knots, centers, bc_type="periodic")
        # After one turn the quaternion may arrive as its own negative: two turns are always periodic.
        sign = 1.0 if float(quats[-1] @ quats[0]) > 0 else -1.0
        two_turns = np.concatenate([quats[:-1], sign * quats[:-1], quats[:1]])
        knots = np.concatenate([self.knots[:-1], self.knots[-1] + self.knots])
        self._quat = CubicSpline(knots, two_turns, bc_type="periodic")

    def at(self, u: Array) -> Array:  # [m] -> [m, 4, 4]
        """Poses at parameters `u`, as cam_from_world; a closed path wraps around.

        Args:
            u: Parameters, from 0 to `knots[-1]`. [m]

        Returns:
            Rigid transforms. [m, 4, 4] float64
        """
        centers, quats = self._sample(np.atleast_1d(np.asarray(u, dtype=np.float64)))
        rotations = np.swapaxes(Rotation.from_quat(quats).as_matrix(), 1, 2)
        poses = np.tile(np.eye(4), (len(centers), 1, 1))
        poses[:, :3, :3] = rotations
        poses[:, :3, 3] = -np.einsum("mij,mj->mi", rotations, centers)
        return poses

    def _sample(self, u: Array) -> tuple[Array, Array]:
        if self._fixed is not None:
            center, quat = self._fixed
            return np.tile(center, (len(u), 1)), np.tile(quat, (len(u), 1))
        if self.closed:
            u = np.mod(u, self.knots[-1])
        return self._center(u), self._quat(u)

    def even_parameters(self, count: int) -> Array:  # [count]
        """Parameters of `count` poses spread evenly over the way travelled.

        An open path starts and ends at its ends; a closed one leaves out the end, which is the start again.
        """
        if self._fixed is not None:
            return np.zeros(count)
        ends = np.arange(len(self.knots))
        fine = np.interp(
            np.linspace(0, len(self.knots) - 1, (len(self.knots) - 1) * _SAMPLES_PER_SEGMENT + 1),
            ends,
            self.knots,
        )
        centers, quats = self._center(fine), self._quat(fine)
        quats /= np.linalg.norm(quats, axis=1, keepdims=True)
        way = np.append(0.0, np.cumsum(step_lengths(centers, quats, self._turn_radius)))
        wanted = np.linspace(0.0, way[-1], count, endpoint=not self.closed)
        return np.interp(wanted, way, fine)


def step_lengths(centers: Array, quats: Array, turn_radius: float) -> Array:  # [n, 3], [n, 4] -> [n - 1]
    """Way from each pose to the next: the distance of the centres or, if larger, turn_radius x angle."""
    distance = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    difference = np.minimum(
        np.linalg.norm(quats[1:] - quats[:-1], axis=1), np.linalg.norm(quats[1:] + quats[:-1], axis=1)
    )
    angle = 4 * np.arcsin(np.minimum(difference / 2, 1))
    return np.maximum(distance, turn_radius * angle)


def is_closed(cam_from_world: Array) -> bool:  # [n, 4, 4]
    """Whether poses, in their order, go around: the way from last to first is like the other ways."""
    if len(cam_from_world) < 4:
        return False
    centers, quats = _centers_and_quats(cam_from_world)
    radius = _turn_radius(centers)
    steps = step_lengths(centers, quats, radius)
    gap = step_lengths(centers[[-1, 0]], quats[[-1, 0]], radius)[0]
    return bool(gap <= _CLOSING_GAP * np.quantile(steps, 0.9))


def interpolate_path(
    cameras: Sequence[Camera], num_views: int, *, closed: bool | Literal["auto"] = "auto"
) -> list[Camera]:
    """Cameras on a smooth path through the given ones, taken in the order of their names.

    Size and intrinsics of every new camera are those of the first given one, so that the frames make a video.

    Args:
        cameras: The poses to pass through; at least one. A single one is repeated.
        num_views: Number of cameras wanted, at least 1.
        closed: Whether the path returns to its start; "auto" closes it when the gap from the last to the
            first camera is like the gaps between the others.

    Returns:
        `num_views` cameras named "00000.png", "00001.png" and so on, evenly spaced along the path.

    Raises:
        ValueError: No camera, or `num_views` below 1.
    """
    ordered = _by_name(cameras)
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
    poses = _poses(ordered)
    path = PosePath(poses, closed=is_closed(poses) if closed == "auto" else closed)
    return _cameras_at(ordered[0], path.at(path.even_parameters(num_views)))


def between_views(cameras: Sequence[Camera], steps: int = 3) -> list[Camera]:
    """Cameras at t = 1/steps, 2/steps ... between each view and the next by name, without the views.

    Centres are interpolated linearly and rotations by SLERP; size and intrinsics are those of the first view.

    Args:
        cameras: The given views, at least two.
        steps: Parts into which each gap is divided.

    Returns:
        (number of views - 1) x (steps - 1) cameras named "00000.png", "00001.png" and so on.

    Raises:
        ValueError: Fewer than two cameras.
    """
    ordered = _by_name(cameras)
    if len(ordered) < 2:
        raise ValueError("there is nothing between fewer than two cameras")
    centers, quats = _centers_and_quats(_poses(ordered))
    views = np.arange(len(ordered))
    t = (views[:-1, None] + np.arange(1, steps) / steps).ravel()
    rotations = Slerp(views, Rotation.from_quat(quats))(t).as_matrix().swapaxes(1, 2)
    between = np.stack([np.interp(t, views, centers[:, axis]) for axis in range(3)], axis=1)
    poses = np.tile(np.eye(4), (len(t), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = -np.einsum("mij,mj->mi", rotations, between)
    return _cameras_at(ordered[0], poses)


def _by_name(cameras: Sequence[Camera]) -> list[Camera]:
    if not cameras:
        raise ValueError("a path needs at least one camera")
    return sorted(cameras, key=lambda camera: camera.name)


def _poses(cameras: Sequence[Camera]) -> Array:  # [n, 4, 4]
    return np.stack([camera.cam_from_world.numpy() for camera in cameras]).astype(np.float64)


def _cameras_at(first: Camera, poses: Array) -> list[Camera]:
    return [
        replace(first, name=f"{index:05d}.png", cam_from_world=torch.from_numpy(pose).float())
        for index, pose in enumerate(poses)
    ]


def _centers_and_quats(cam_from_world: Array) -> tuple[Array, Array]:  # [n, 4, 4] -> [n, 3], [n, 4]
    rotations = np.swapaxes(cam_from_world[:, :3, :3], 1, 2)
    centers = -np.einsum("nij,nj->ni", rotations, cam_from_world[:, :3, 3])
    return centers, _same_hemisphere(Rotation.from_matrix(rotations).as_quat())


def _turn_radius(centers: Array) -> float:
    spread = float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    turns_on_the_spot = spread <= 1e-5 * float(np.abs(centers).max())  # but for float32 rounding
    return 1.0 if turns_on_the_spot else _TURN_WEIGHT * spread


def _same_hemisphere(quats: Array) -> Array:
    """Signs chosen so that each quaternion is the one nearest to its predecessor."""
    flips = np.where(np.einsum("ni,ni->n", quats[1:], quats[:-1]) < 0, -1.0, 1.0)
    return quats * np.append(1.0, np.cumprod(flips))[:, None]
