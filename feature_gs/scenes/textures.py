"""Procedural textures in linear RGB, as functions of a surface's chart or of space."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Texture = Callable[[int, Array, Array, Array], Array]


def srgb(code: str) -> Array:
    """Linear RGB [3] of a colour as written on the web, "e8b04a"."""
    return (np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255) ** 2.2


def mix(a: Array, b: Array, amount: Array) -> Array:
    """Blends from a to b by amount [n]; a and b are [3] or [n, 3]."""
    return a + (b - a) * amount[:, None]


def step(x: Array, edge: float, width: float) -> Array:
    """0 below an edge, 1 above it, smooth over a width."""
    t = np.clip((x - edge) / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def noise(points: Array, seed: int, octaves: int = 4) -> Array:  # [n, 3]
    """Smooth noise in about [0, 1] at points [n, 3]: the coarsest octave varies over 1, the next over 1/2."""
    total = np.zeros(len(points))
    for octave in range(octaves):
        scaled = points * 2**octave + 17.3 * octave
        cell = np.floor(scaled).astype(np.int64)
        x, y, z = ((scaled - cell) ** 2 * (3 - 2 * (scaled - cell))).T
        c = {
            (i, j, k): _random(cell + np.array([i, j, k]), seed + octave)
            for i in (0, 1)
            for j in (0, 1)
            for k in (0, 1)
        }
        edges = {(j, k): c[0, j, k] + (c[1, j, k] - c[0, j, k]) * x for j in (0, 1) for k in (0, 1)}
        near, far = (edges[0, k] + (edges[1, k] - edges[0, k]) * y for k in (0, 1))
        total += (near + (far - near) * z) * 0.5**octave
    return total / (2 - 0.5 ** (octaves - 1))


def _random(cells: Array, seed: int) -> Array:
    """A number in [0, 1) for each integer cell [n, 3]."""
    a, b, c = cells.astype(np.uint32).T
    h = a * np.uint32(73856093) ^ b * np.uint32(19349663) ^ c * np.uint32(83492791)
    h = h ^ np.uint32(seed * 2654435761 % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return (h ^ (h >> np.uint32(16))).astype(np.float64) / 2**32


def planks(plank: float, length: float, dark: str, light: str) -> Texture:
    """Wooden floor boards of a width and length in metres, along x."""

    def texture(face: int, u: Array, v: Array, points: Array) -> Array:
        row = np.floor(points[:, 1] / plank)
        shifted = points[:, 0] / length + row * 0.381966
        board = np.stack([np.floor(shifted), row, 0 * row], axis=-1)
        tone = _random(board.astype(np.int64), 5)
        grain = noise(points * [3.0, 45.0, 1.0] + 9 * board, 6)
        wood = mix(srgb(dark), srgb(light), np.clip(0.55 * grain + 0.55 * tone, 0, 1))
        across, along = points[:, 1] / plank % 1, shifted % 1
        gap = np.minimum(np.minimum(across, 1 - across) * plank, np.minimum(along, 1 - along) * length)
        return wood * (0.35 + 0.65 * step(gap, 0.004, 0.006))[:, None]

    return texture


def crate(face: int, u: Array, v: Array, points: Array) -> Array:
    """Boards in a frame with a diagonal brace."""
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    frame = (edge < 0.14) | (np.abs(u - v) < 0.09)
    across = np.where(frame, v * 1.0, u * 5 % 1)
    grain = noise(np.stack([u * 30, v * 3, u * 0 + face], axis=-1), 11)
    wood = mix(srgb("8a5a2b"), srgb("d9a766"), np.clip(grain + 0.15 * frame, 0, 1))
    seam = np.minimum(np.abs(edge - 0.14), np.where(frame, 1.0, np.minimum(across, 1 - across) * 0.2))
    return wood * (0.4 + 0.6 * step(np.minimum(seam, edge + 0.02), 0.012, 0.02))[:, None]


def globe(face: int, u: Array, v: Array, points: Array) -> Array:
    """Seas, lands by height, ice at the poles and a grid of meridians."""
    latitude, longitude = 2 * v - 1, 2 * np.pi * u
    ring = np.sqrt(np.clip(1 - latitude**2, 0, 1))
    unit = np.stack([ring * np.cos(longitude), ring * np.sin(longitude), latitude], axis=-1)
    height = noise(unit * 1.7 + 4.2, 21, octaves=5)
    sea = mix(srgb("0b3f86"), srgb("2f8fcf"), step(height, 0.42, 0.2))
    land = mix(srgb("3f8f3a"), srgb("c9a25a"), step(height, 0.62, 0.12))
    color = mix(sea, land, step(height, 0.52, 0.015))
    color = mix(color, srgb("f4f7fa"), step(np.abs(latitude) + 0.1 * height, 0.96, 0.03))
    lines = np.minimum(np.abs((u * 12 + 0.5) % 1 - 0.5) * ring / 2, np.abs((v * 8 + 0.5) % 1 - 0.5) / 4)
    return color * (0.75 + 0.25 * step(lines, 0.01, 0.012))[:, None]


def beach_ball(face: int, u: Array, v: Array, points: Array) -> Array:
    """Six coloured gores and white ends."""
    palette = np.stack([srgb(c) for c in ("e63946", "f7f3e8", "f4a300", "1d7cc4", "f7f3e8", "2a9d57")])
    color = palette[np.floor((u + 0.02 * np.sin(2 * np.pi * v)) * 6).astype(int) % 6]
    return mix(color, srgb("f7f3e8"), step(np.abs(2 * v - 1), 0.95, 0.02))


def marble(light: str, dark: str, scale: float, seed: int) -> Texture:
    """Stone with veins; scale in veins per metre."""

    def texture(face: int, u: Array, v: Array, points: Array) -> Array:
        vein = np.abs(noise(points * scale, seed, octaves=5) - 0.5) * 2
        return mix(srgb(dark), srgb(light), step(vein, 0.1, 0.2) * (0.75 + 0.25 * noise(points * 60, seed)))

    return texture


def puzzle_cube(face: int, u: Array, v: Array, points: Array) -> Array:
    """A shuffled cube of 3 x 3 stickers on each face."""
    palette = np.stack([srgb(c) for c in ("d62828", "f28c1e", "f9f9f4", "ffd500", "1f9d55", "1557c0")])
    i, j = np.clip(np.floor(u * 3), 0, 2), np.clip(np.floor(v * 3), 0, 2)
    sticker = np.floor(_random(np.stack([i, j, 0 * i + face], axis=-1).astype(np.int64), 31) * 6).astype(int)
    edge = np.maximum(np.abs(u * 3 % 1 - 0.5), np.abs(v * 3 % 1 - 0.5))
    return mix(palette[sticker], srgb("15171a"), step(edge, 0.43, 0.03))


def spiral(colors: tuple[str, str], turns: float, bands: int) -> Texture:
    """Two-coloured bands that wind around a cylinder."""

    def texture(face: int, u: Array, v: Array, points: Array) -> Array:
        angle = u if face == 0 else np.arctan2(v - 0.5, u - 0.5) / (2 * np.pi)
        phase = np.abs(((angle * bands + v * turns) if face == 0 else angle * bands) % 1 - 0.5)
        return mix(srgb(colors[0]), srgb(colors[1]), step(phase, 0.25, 0.03))

    return texture


def zigzag(base: str, bands: tuple[str, ...], teeth: int) -> Texture:
    """Rows of zigzag around a pot; a dark mouth on top."""

    def texture(face: int, u: Array, v: Array, points: Array) -> Array:
        clay = mix(srgb(base), 0.6 * srgb(base), noise(points * 35, 41))
        if face != 0:
            return mix(0.12 * srgb(base), clay, step(np.hypot(u - 0.5, v - 0.5), 0.42, 0.02))
        wave = np.abs((u * teeth) % 1 - 0.5) * 0.14
        for i, band in enumerate(bands):
            away = np.abs(v - wave - (0.14 + 0.72 * i / max(len(bands) - 1, 1) - 0.03))
            clay = mix(clay, srgb(band), 1 - step(away, 0.035, 0.012))
        return clay

    return texture


def book(cover: str, ink: str) -> Texture:
    """A bound book lying flat: cover with a framed emblem, three sides of pages, a spine on -x."""

    def texture(face: int, u: Array, v: Array, points: Array) -> Array:
        if face in (1, 2, 3):
            sheet = _random(np.stack([v * 40, 0 * v, 0 * v], axis=-1).astype(int), 51)
            page = mix(srgb("cbbf9f"), srgb("f4ecd6"), sheet)
            return mix(page, srgb(cover), step(np.abs(v - 0.5), 0.4, 0.04))
        cloth = srgb(cover) * (0.85 + 0.3 * noise(points * 120, 52, 2))[:, None]
        if face == 0:
            return mix(cloth, srgb(ink), 1 - step(np.abs(np.abs(u - 0.5) - 0.3), 0.03, 0.01))
        edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
        petals = 0.04 * np.cos(6 * np.arctan2(v - 0.5, u - 0.5))
        emblem = np.abs(np.hypot(u - 0.5, (v - 0.5) * 1.3) - 0.18 - petals)
        lines = np.minimum(np.abs(edge - 0.09), emblem)
        return mix(cloth, srgb(ink), 1 - step(lines, 0.016, 0.01))

    return texture


def rug(face: int, u: Array, v: Array, points: Array) -> Array:
    """A round woven rug: rings, petals and a fringe of dots."""
    x, y = u - 0.5, v - 0.5
    if face == 0:
        x, y = 0.5 * np.cos(2 * np.pi * u), 0.5 * np.sin(2 * np.pi * u)
    radius, angle = np.hypot(x, y) * 2, np.arctan2(y, x)
    petals = radius + 0.035 * np.cos(16 * angle)
    color = np.broadcast_to(srgb("8c2f39"), (len(u), 3))
    for edge, code in (
        (0.30, "e9d8a6"),
        (0.34, "14505c"),
        (0.56, "e9d8a6"),
        (0.60, "bb4a2e"),
        (0.78, "e9d8a6"),
        (0.82, "8c2f39"),
    ):
        color = mix(color, srgb(code), step(petals, edge, 0.012))
    dots = ((0.45, 20, "d9a441"), (0.69, 28, "f0e3bd"), (0.91, 36, "e9d8a6"), (0.17, 8, "e9d8a6"))
    for ring, count, code in dots:
        around = ((angle / (2 * np.pi) * count) % 1 - 0.5) / count * 2 * np.pi * ring
        color = mix(color, srgb(code), 1 - step(np.hypot(around, radius - ring), 0.028, 0.012))
    weave = 0.85 + 0.3 * noise(points * [160, 160, 1], 61, 2)
    return color * weave[:, None]


def wallpaper(face: int, u: Array, v: Array, points: Array) -> Array:
    """Walls with a skirting board, panelling, striped paper and a painting; a plain ceiling."""
    if face >= 4:
        return np.broadcast_to(srgb("efeae0"), (len(u), 3))
    height = points[:, 2]
    along = points[:, 1 if face < 2 else 0]
    stripes = np.abs(along * 4 % 1 - 0.5)
    flower = noise(np.stack([along * 9, height * 9, 0 * u + face], -1), 71, 3)
    paper = mix(srgb("7fa8a0"), srgb("95bab0"), step(stripes, 0.25, 0.03))
    paper = mix(paper, srgb("d9e4d4"), step(flower, 0.62, 0.03))
    panel = np.minimum(np.abs(along * 2.2 % 1 - 0.5) * 2, 1) * 0.22
    wood = (
        srgb("e8e1d0") * (0.72 + 0.28 * step(np.minimum(panel, np.abs(height - 0.62)), 0.03, 0.02))[:, None]
    )
    color = mix(wood, paper, step(height, 0.7, 0.01))
    color = mix(srgb("6b4a33") * np.ones((len(u), 1)), color, step(height, 0.12, 0.01))
    side = np.maximum(np.abs(along + 0.2) / 0.62, np.abs(height - 1.25) / 0.4)
    art = noise(np.stack([along * 3, height * 5, 0 * u + 7 * face], -1), 72 + face, 3)
    canvas = mix(srgb("1f3b57"), srgb("e9a23b"), step(art + 0.25 * (height - 1.25), 0.45, 0.15))
    canvas = mix(canvas, srgb("d1495b"), step(art, 0.6, 0.05))
    color = mix(canvas, color, step(side, 0.88, 0.02))
    return mix(srgb("3a2a1c") * np.ones((len(u), 1)), color, step(np.abs(side - 0.94), 0.06, 0.015))
