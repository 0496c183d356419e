"""A small ray tracer for solids with baked light: pictures, true depth and true labels.

Light is computed once, on the surfaces: two lamps with soft shadows plus light from all around, darkened in
corners. A view then needs one ray per sample. All but a faint highlight looks the same from everywhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from feature_gs.scenes.camera import Camera
from feature_gs.scenes.solids import Shape, dot

Array = np.ndarray
SAMPLES = 3  # per pixel and axis; odd, so that the middle one goes through the pixel's centre
AMBIENT = np.array([0.20, 0.22, 0.26])
BOUNCED = np.array([0.05, 0.04, 0.03])  # what comes back from where ambient light is blocked
AMBIENT_REACH = 0.8  # metres; farther things do not darken a corner


@dataclass(frozen=True)
class Solid:
    """A shape with its looks.

    Attributes:
        label: Name of what it is.
        shape: Its surface.
        texture: Maps (face, u [n], v [n], points [n, 3]) to linear RGB albedo [n, 3] in [0, 1].
        texel: Size of a texel of the baked texture in metres.
        light_texel: Size of a texel of the baked light in metres.
        gloss: Strength of the highlight, 0 for none.
    """

    label: str
    shape: Shape
    texture: Callable[[int, Array, Array, Array], Array]
    texel: float = 0.0025
    light_texel: float = 0.02
    gloss: float = 0.0


@dataclass(frozen=True)
class Lamp:
    """A rectangle that shines: its centre, two half edges, and linear RGB irradiance at 1 metre."""

    center: Array  # [3]
    edges: Array  # [2, 3]
    power: Array  # [3]

    def samples(self, side: int) -> Array:
        """A grid of side x side points on the lamp, [side * side, 3]."""
        steps = (np.arange(side) + 0.5) / side * 2 - 1
        a, b = np.meshgrid(steps, steps)
        return self.center + a.reshape(-1, 1) * self.edges[0] + b.reshape(-1, 1) * self.edges[1]


@dataclass(frozen=True)
class BakedSolid:
    """A solid and the light that leaves each of its faces: linear RGB images, float32, v downwards."""

    solid: Solid
    faces: list[Array]  # of [v, u, 3]


def bake(solids: list[Solid], lamps: list[Lamp]) -> list[BakedSolid]:
    """Computes the light that leaves every surface."""
    faces = [(solid, face) for solid in solids for face in range(len(solid.shape.face_sizes))]
    grids = [_face_grid(solid, face, solid.light_texel) for solid, face in faces]
    points = np.concatenate([grid[2] for grid in grids]).astype(np.float32)
    normals = np.concatenate([grid[3] for grid in grids]).astype(np.float32)
    ends = np.cumsum([len(grid[2]) for grid in grids])
    light = np.split(_irradiance(points, normals, solids, lamps), ends[:-1])

    baked: dict[int, list[Array]] = {}
    for (solid, face), grid, arriving in zip(faces, grids, light, strict=True):
        u, v, texels, _ = _face_grid(solid, face, solid.texel)
        albedo = solid.texture(face, u.ravel(), v.ravel(), texels).reshape(*u.shape, 3)
        arriving = arriving.reshape(*grid[0].shape, 3).astype(np.float32)
        arriving = cv2.resize(arriving, u.shape[::-1], interpolation=cv2.INTER_LINEAR)
        baked.setdefault(id(solid), []).append((albedo * arriving).astype(np.float32))
    return [BakedSolid(solid, baked[id(solid)]) for solid in solids]


def render(camera: Camera, solids: list[BakedSolid], lamps: list[Lamp]) -> tuple[Array, Array, Array]:
    """Renders a view.

    Args:
        camera: The view; `camera.center` lies outside all solids.
        solids: The scene, which encloses the camera.
        lamps: What highlights reflect.

    Returns:
        Picture uint8 [H, W, 3], z-depth at pixel centres in metres [H, W], and the index of the solid at
        pixel centres [H, W].
    """
    pose, K = camera.cam_from_world.numpy().astype(np.float64), camera.K.numpy().astype(np.float64)
    rotation = pose[:3, :3]
    origin = -rotation.T @ pose[:3, 3]
    x = (np.arange(camera.width * SAMPLES) + 0.5) / SAMPLES
    y = (np.arange(camera.height * SAMPLES) + 0.5) / SAMPLES
    # z = 1 in the camera, so that the distance along a ray is z-depth
    rays = np.empty((len(y), len(x), 3))
    rays[..., 0] = (x - K[0, 2]) / K[0, 0]
    rays[..., 1] = ((y - K[1, 2]) / K[1, 1])[:, None]
    rays[..., 2] = 1.0
    rays = (rays @ rotation).astype(np.float32)
    origin = origin.astype(np.float32)

    depth = np.full(rays.shape[:2], np.inf, dtype=np.float32)
    index = np.zeros(rays.shape[:2], dtype=np.uint8)
    windows = [_window(camera, baked.solid.shape) for baked in solids]
    for i, (baked, window) in enumerate(zip(solids, windows, strict=True)):
        t = baked.solid.shape.intersect(origin, rays[window])
        nearer = t < depth[window]
        depth[window][nearer] = t[nearer]
        index[window][nearer] = i

    linear = np.zeros((*depth.shape, 3), dtype=np.float32)
    for i, (baked, window) in enumerate(zip(solids, windows, strict=True)):
        hit = index[window] == i
        if hit.any():
            linear[window][hit] = _look(baked, origin, rays[window][hit], depth[window][hit], lamps)
    linear = cv2.resize(np.minimum(linear, 1.0), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    picture = (255 * linear ** (1 / 2.2)).round().astype(np.uint8)
    middle = slice(SAMPLES // 2, None, SAMPLES)
    return picture, depth[middle, middle], index[middle, middle]


def _face_grid(solid: Solid, face: int, texel: float) -> tuple[Array, Array, Array, Array]:
    """At the texel centres of a face: u, v [rows, columns], points, normals [rows * columns, 3].

    A face that looks straight down is hardly ever seen: 4 x 4 texels.
    """
    looks_down = solid.shape.surface(face, np.full(1, 0.5), np.full(1, 0.5))[1][0, 2] < -0.99
    sizes = solid.shape.face_sizes[face]
    columns, rows = (4 if looks_down else max(2, int(np.ceil(length / texel))) for length in sizes)
    u, v = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return u, v, *solid.shape.surface(face, u.ravel(), v.ravel())


def _irradiance(points: Array, normals: Array, solids: list[Solid], lamps: list[Lamp]) -> Array:
    """Light that arrives at points [n, 3] with normals [n, 3]: linear RGB [n, 3]."""
    light = np.zeros_like(points)
    start = points + 2e-3 * normals
    for lamp in lamps:
        samples = lamp.samples(4)
        for sample in samples:
            towards = sample.astype(np.float32) - start
            lit = np.flatnonzero(dot(towards, normals) > 0)
            lit = lit[~_blocked(start[lit], towards[lit], solids)]
            towards = towards[lit]
            strength = dot(towards, normals[lit]) / dot(towards, towards) ** 1.5
            light[lit] += strength[:, None] * lamp.power / len(samples)

    axes = np.eye(3, dtype=np.float32)
    tangent = np.cross(normals, np.where(np.abs(normals[:, 2:]) < 0.9, axes[2], axes[0]))
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    bitangent = np.cross(normals, tangent)
    count = 32
    for i in range(count):  # cosine-weighted directions on a golden-angle spiral
        radius, angle = math.sqrt((i + 0.5) / count), i * math.pi * (3 - math.sqrt(5))
        direction = radius * (math.cos(angle) * tangent + math.sin(angle) * bitangent)
        direction += math.sqrt(1 - radius**2) * normals
        blocked = _blocked(start, AMBIENT_REACH * direction, solids)
        light += np.where(blocked[:, None], BOUNCED, AMBIENT) / count
    return light


def _blocked(origins: Array, directions: Array, solids: list[Solid]) -> Array:  # [n, 3], [n, 3]
    """Whether a solid lies between each origin and origin + direction, [n]."""
    blocked = np.zeros(len(origins), dtype=bool)
    squared_lengths = dot(directions, directions)
    for solid in solids:
        center, radius = solid.shape.bounds
        offset = center.astype(origins.dtype) - origins
        along = np.clip(dot(offset, directions) / squared_lengths, 0, 1)
        apart2 = dot(offset, offset) - along * (2 * dot(offset, directions) - along * squared_lengths)
        near = np.flatnonzero((apart2 < radius**2) & ~blocked)
        blocked[near] = solid.shape.intersect(origins[near], directions[near]) < 1 - 1e-9
    return blocked


def _window(camera: Camera, shape: Shape) -> tuple[slice, slice]:
    """Rows and columns of the samples that a shape can cover."""
    pose, K = camera.cam_from_world.numpy().astype(np.float64), camera.K.numpy().astype(np.float64)
    center, radius = shape.bounds
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    corners = pose[:3, :3] @ center + pose[:3, 3] + radius * signs  # of a cube in the camera's own axes
    if corners[:, 2].min() < 1e-3:
        return slice(None), slice(None)
    pixels = corners[:, :2] / corners[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]
    low = np.clip(np.floor(pixels.min(axis=0) * SAMPLES), 0, None).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0) * SAMPLES) + 1, 0, None).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _look(baked: BakedSolid, origin: Array, rays: Array, depth: Array, lamps: list[Lamp]) -> Array:
    """Linear RGB [n, 3] that comes back along rays [n, 3] from their hits at depth [n]."""
    points = origin + depth[:, None] * rays
    faces, u, v = baked.solid.shape.chart(points)
    colors = np.empty((len(points), 3), dtype=np.float32)
    for face in np.unique(faces):
        chosen = faces == face
        colors[chosen] = _bilinear(baked.faces[face], u[chosen], v[chosen])
        if baked.solid.gloss:
            normals = baked.solid.shape.surface(int(face), u[chosen], v[chosen])[1]
            colors[chosen] += baked.solid.gloss * _highlight(points[chosen], normals, rays[chosen], lamps)
    return colors


def _bilinear(image: Array, u: Array, v: Array) -> Array:
    rows, columns = image.shape[:2]
    x, y = np.clip(u * columns - 0.5, 0, columns - 1), np.clip(v * rows - 0.5, 0, rows - 1)
    left, top = np.minimum(x.astype(int), columns - 2), np.minimum(y.astype(int), rows - 2)
    a, b = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    upper = image[top, left] * (1 - a) + image[top, left + 1] * a
    lower = image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b


def _highlight(points: Array, normals: Array, rays: Array, lamps: list[Lamp]) -> Array:
    mirrored = rays - 2 * dot(rays, normals)[:, None] * normals
    mirrored /= np.linalg.norm(mirrored, axis=-1, keepdims=True)
    light = np.zeros((len(points), 3))
    for lamp in lamps:
        towards = lamp.center - points
        distance = np.linalg.norm(towards, axis=-1)
        cosine = np.maximum(dot(mirrored, towards) / distance, 0)
        light += (cosine**40 / distance**2)[:, None] * lamp.power
    return light
