"""Analytic solids: where a ray meets them, and a chart that unrolls their surface onto flat faces."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray
NEAR = 1e-4  # metres; nearer hits are the surface that the ray started from


def dot(a: Array, b: Array) -> Array:  # [..., d], [..., d]
    """Scalar products [...] of vectors."""
    return np.einsum("...i,...i->...", a, b)


class Shape(Protocol):
    """A closed surface. Each of its faces is charted by u and v in [0, 1]."""

    @property
    def bounds(self) -> tuple[Array, float]:
        """Centre [3] and radius of a sphere around the shape."""

    @property
    def face_sizes(self) -> list[tuple[float, float]]:
        """Length in metres of each face along u and along v."""

    def intersect(self, origins: Array, directions: Array) -> Array:  # [..., 3], [..., 3]
        """Distance [...] along each ray to the first hit, in lengths of its direction; inf where none."""

    def chart(self, points: Array) -> tuple[Array, Array, Array]:  # [n, 3]
        """Face, u and v of points on the surface, each [n]."""

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:  # [n], [n]
        """Points [n, 3] of a face, and their unit normals [n, 3]. The inverse of `chart`."""


@dataclass(frozen=True)
class Sphere:
    """A sphere; its one face is the cylindrical equal-area map."""

    center: Array  # [3]
    radius: float

    @property
    def bounds(self) -> tuple[Array, float]:
        """See Shape."""
        return self.center, self.radius

    @property
    def face_sizes(self) -> list[tuple[float, float]]:
        """See Shape."""
        return [(2 * np.pi * self.radius, np.pi * self.radius)]

    def intersect(self, origins: Array, directions: Array) -> Array:  # [..., 3], [..., 3]
        """See Shape."""
        offset = origins - self.center.astype(origins.dtype)
        a, b = dot(directions, directions), dot(offset, directions)
        root = b * b - a * (dot(offset, offset) - self.radius**2)
        with np.errstate(invalid="ignore"):
            t = (-b - np.sqrt(root)) / a
        return np.where(t > NEAR, t, np.inf)

    def chart(self, points: Array) -> tuple[Array, Array, Array]:  # [n, 3]
        """See Shape."""
        x, y, z = ((points - self.center) / self.radius).T
        u = np.arctan2(y, x) / (2 * np.pi) % 1.0
        return np.zeros(len(points), dtype=np.int64), u, (z + 1) / 2

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:  # [n], [n]
        """See Shape."""
        z = 2 * v - 1
        ring = np.sqrt(np.clip(1 - z * z, 0, 1))
        normals = np.stack([ring * np.cos(2 * np.pi * u), ring * np.sin(2 * np.pi * u), z], axis=-1)
        return self.center + self.radius * normals, normals


@dataclass(frozen=True)
class Box:
    """A box turned by `yaw` about the vertical; faces -x, +x, -y, +y, -z, +z. `inward`: seen from inside."""

    center: Array  # [3]
    half: Array  # [3]
    yaw: float = 0.0
    inward: bool = False

    @property
    def _rotation(self) -> Array:
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    @property
    def bounds(self) -> tuple[Array, float]:
        """See Shape."""
        return self.center, float(np.linalg.norm(self.half))

    @property
    def face_sizes(self) -> list[tuple[float, float]]:
        """See Shape."""
        x, y, z = 2 * self.half
        return [(y, z), (y, z), (x, z), (x, z), (x, y), (x, y)]

    def intersect(self, origins: Array, directions: Array) -> Array:  # [..., 3], [..., 3]
        """See Shape."""
        rotation = self._rotation.astype(origins.dtype)
        origins = (origins - self.center.astype(origins.dtype)) @ rotation
        directions = directions @ rotation
        inverse = 1.0 / np.where(np.abs(directions) < 1e-12, 1e-12, directions)
        center, half = -origins * inverse, self.half.astype(origins.dtype) * np.abs(inverse)
        first, last = center - half, center + half  # where a ray passes the three pairs of planes
        enter = np.maximum(np.maximum(first[..., 0], first[..., 1]), first[..., 2])
        leave = np.minimum(np.minimum(last[..., 0], last[..., 1]), last[..., 2])
        t = leave if self.inward else enter
        return np.where((enter <= leave) & (t > NEAR), t, np.inf)

    def chart(self, points: Array) -> tuple[Array, Array, Array]:  # [n, 3]
        """See Shape."""
        local = (points - self.center) @ self._rotation / self.half
        axis = np.abs(local).argmax(axis=-1)
        rows = np.arange(len(points))
        face = 2 * axis + (local[rows, axis] > 0)
        u = local[rows, np.where(axis == 0, 1, 0)]
        v = local[rows, np.where(axis == 2, 1, 2)]
        return face, (u + 1) / 2, (v + 1) / 2

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:  # [n], [n]
        """See Shape."""
        axis, sign = face // 2, 2.0 * (face % 2) - 1
        local = np.empty((len(u), 3))
        local[:, axis] = sign
        local[:, 1 if axis == 0 else 0] = 2 * u - 1
        local[:, 1 if axis == 2 else 2] = 2 * v - 1
        normals = np.zeros_like(local)
        normals[:, axis] = -sign if self.inward else sign
        return self.center + local * self.half @ self._rotation.T, normals @ self._rotation.T


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder; faces side, bottom and top."""

    center: Array  # [3]
    radius: float
    half_height: float

    @property
    def bounds(self) -> tuple[Array, float]:
        """See Shape."""
        return self.center, float(np.hypot(self.radius, self.half_height))

    @property
    def face_sizes(self) -> list[tuple[float, float]]:
        """See Shape."""
        cap = (2 * self.radius, 2 * self.radius)
        return [(2 * np.pi * self.radius, 2 * self.half_height), cap, cap]

    def intersect(self, origins: Array, directions: Array) -> Array:  # [..., 3], [..., 3]
        """See Shape."""
        offset = origins - self.center.astype(origins.dtype)
        flat_offset, flat = offset[..., :2], directions[..., :2]
        a, b = np.maximum(dot(flat, flat), 1e-18), dot(flat_offset, flat)
        root = b * b - a * (dot(flat_offset, flat_offset) - self.radius**2)
        inverse = 1.0 / np.where(np.abs(directions[..., 2]) < 1e-12, 1e-12, directions[..., 2])
        middle, half = -offset[..., 2] * inverse, self.half_height * np.abs(inverse)
        root = np.sqrt(np.where(root < 0, np.nan, root))
        enter = np.maximum((-b - root) / a, middle - half)
        leave = np.minimum((-b + root) / a, middle + half)
        with np.errstate(invalid="ignore"):
            return np.where((enter <= leave) & (enter > NEAR), enter, np.inf)

    def chart(self, points: Array) -> tuple[Array, Array, Array]:  # [n, 3]
        """See Shape."""
        x, y, z = ((points - self.center) / [self.radius, self.radius, self.half_height]).T
        side = np.abs(np.hypot(x, y) - 1) * self.radius < np.abs(np.abs(z) - 1) * self.half_height
        face = np.where(side, 0, np.where(z < 0, 1, 2))
        u = np.where(side, np.arctan2(y, x) / (2 * np.pi) % 1.0, (x + 1) / 2)
        return face, u, np.where(side, (z + 1) / 2, (y + 1) / 2)

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:  # [n], [n]
        """See Shape. Of a cap's square chart, the corners lie outside the disc."""
        zero = np.zeros_like(u)
        if face == 0:
            angle = 2 * np.pi * u
            normals = np.stack([np.cos(angle), np.sin(angle), zero], axis=-1)
            local = normals + np.stack([zero, zero, 2 * v - 1], axis=-1)
        else:
            sign = 2.0 * face - 3
            normals = np.stack([zero, zero, zero + sign], axis=-1)
            local = np.stack([2 * u - 1, 2 * v - 1, zero + sign], axis=-1)
        return self.center + local * [self.radius, self.radius, self.half_height], normals
