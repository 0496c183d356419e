import math

import pytest
import torch
from random_scenes import RandomScene, random_scene
from torch import Tensor

from feature_gs.rasterizer.reference import TILE, intersect_reference

pytestmark = pytest.mark.usefixtures("one_thread")
Splats = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def project(scene: RandomScene) -> Splats:
    """means2d, conics, opacities, depths, radii of the scene."""
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, None, None)
    cameras = (scene.cam_from_world, scene.K, scene.width, scene.height, 0.2, math.inf, False)
    means2d, conics, opacities, _, depths, radii = torch.ops.feature_gs.project(*geometry, *cameras)
    return means2d, conics, opacities, depths, radii


def pairs_of(outputs: tuple[Tensor, ...], batch: int, width: int, height: int, count: int) -> Tensor:
    """The listed pairs as [B, tiles_y, tiles_x, N] bool."""
    offsets, gaussians = outputs[0], outputs[1].long()
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    tile = torch.repeat_interleave(torch.arange(batch * tiles_y * tiles_x), offsets.diff())
    listed = torch.zeros(batch * tiles_y * tiles_x, batch * count, dtype=torch.bool)
    assert not listed[tile, gaussians].any()
    listed[tile, gaussians] = True
    assert int(listed.sum()) == gaussians.numel(), "a pair is listed twice"
    listed = listed.unflatten(0, (batch, tiles_y, tiles_x)).unflatten(-1, (batch, count))
    own = torch.eye(batch, dtype=torch.bool)[:, None, None, :, None]
    assert not (listed & ~own).any(), "a tile lists a Gaussian of another camera"
    return (listed & own).any(dim=3)


def smallest_sigma(means2d: Tensor, conics: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Minimum [B, N] of the quadratic forms over a rectangle: 0 if the centre is inside, else on an edge."""
    a, b, c = conics.unbind(-1)

    def sigma(dx: Tensor, dy: Tensor) -> Tensor:
        return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy

    left, top = (low - means2d).unbind(-1)
    right, bottom = (high - means2d).unbind(-1)
    inside = (left <= 0) & (right >= 0) & (top <= 0) & (bottom >= 0)
    edges = []
    for dx in (left, right):
        edges.append(sigma(dx, torch.minimum(torch.maximum(-b * dx / c, top), bottom)))
    for dy in (top, bottom):
        edges.append(sigma(torch.minimum(torch.maximum(-b * dy / a, left), right), dy))
    return torch.where(inside, 0.0, torch.stack(edges).amin(dim=0))


SCENES = {
    "none": random_scene(0, 40, 30),
    "one": random_scene(1, 40, 30, kinds=False),
    "mixed": random_scene(700, 101, 77, batch=2),
    "sub-pixel": random_scene(300, 100, 80, scale=1e-3),
    "screen-filling": random_scene(200, 130, 70, scale=2.0),
    "many": random_scene(5000, 97, 50, scale=0.03, batch=2),
    "one pixel": random_scene(200, 1, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", SCENES)
def test_lists_exactly_the_tiles_that_the_ellipse_meets(kind: str, dtype: torch.dtype) -> None:
    scene = SCENES[kind].to(dtype)
    width, height, batch = scene.width, scene.height, scene.K.shape[0]
    splats = project(scene)
    outputs = torch.ops.feature_gs.intersect(*splats, width, height)
    listed = pairs_of(outputs, batch, width, height, scene.means.shape[0])
    means2d, conics, opacities, _, radii = (x.double() for x in splats)

    needed = intersect_reference(means2d, conics, opacities, radii, width, height)
    assert not (needed & ~listed).any(), "a contribution is missing"

    reach = torch.log(255 * opacities)
    margin = 0.05  # pixels: what is listed is within this of the rectangle of the tile's pixel centres
    for y in range(listed.shape[1]):
        for x in range(listed.shape[2]):
            low = torch.tensor([x * TILE + 0.5, y * TILE + 0.5], dtype=torch.float64)
            high = low + TILE - 1
            distance = smallest_sigma(means2d, conics, low - margin, high + margin)
            unneeded = listed[:, y, x] & ~((radii > 0) & (distance <= reach))
            assert not unneeded.any(), f"{int(unneeded.sum())} pairs of tile {x}, {y} do not meet it"


@pytest.mark.parametrize("kind", SCENES)
def test_tiles_are_sorted_by_depth_then_index(kind: str) -> None:
    scene = SCENES[kind].to(torch.float32)
    splats = list(project(scene))
    splats[3] = (splats[3] * 4).round() / 4  # many ties
    offsets, gaussians, *_ = torch.ops.feature_gs.intersect(*splats, scene.width, scene.height)
    depths = splats[3].flatten()
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        order = [(float(depths[g]), g) for g in gaussians[begin:end].tolist()]
        assert order == sorted(order)


@pytest.mark.parametrize("kind", SCENES)
def test_slots_are_the_pairs_by_gaussian(kind: str) -> None:
    scene = SCENES[kind].to(torch.float32)
    batch, count = scene.K.shape[0], scene.means.shape[0]
    outputs = torch.ops.feature_gs.intersect(*project(scene), scene.width, scene.height)
    tile_offsets, gaussians, slots, slot_tiles, gaussian_offsets = outputs
    pairs = gaussians.numel()
    tiles = -(-scene.width // TILE) * -(-scene.height // TILE)
    assert tile_offsets.shape == (batch * tiles + 1,) and gaussian_offsets.shape == (batch * count + 1,)
    assert (tile_offsets.dtype, gaussian_offsets.dtype) == (torch.int64, torch.int64)
    assert {t.dtype for t in (gaussians, slots, slot_tiles)} == {torch.int32}
    for offsets in (tile_offsets, gaussian_offsets):
        assert offsets[0] == 0 and offsets[-1] == pairs and (offsets.diff() >= 0).all()
    assert torch.equal(slots.sort().values, torch.arange(pairs, dtype=torch.int32))
    tile_of_pair = torch.repeat_interleave(torch.arange(batch * tiles), tile_offsets.diff())
    by_slot = slots.long().argsort()
    assert torch.equal(slot_tiles.long(), tile_of_pair[by_slot])
    owner = torch.repeat_interleave(torch.arange(batch * count), gaussian_offsets.diff())
    assert torch.equal(gaussians.long()[by_slot], owner)
    step = slot_tiles.diff()
    assert (step[owner.diff() == 0] > 0).all()


def test_one_splat_in_the_corner_of_four_tiles() -> None:
    # alpha = 0.5 exp(-d²/2) falls below 1/255 at d = sqrt(2 ln 127.5) = 3.11
    radius = math.sqrt(2 * math.log(127.5))
    for x, y, tiles in [
        (16.0, 16.0, [0, 1, 2, 3]),
        (16.5 + radius + 0.1, 16.5 + radius + 0.1, [3]),
        (15.5 - radius - 0.1, 8.0, [0]),
        (16.5 + radius - 0.1, 8.0, [1]),
        (15.5 + radius - 0.1, 8.0, [0, 1]),
        (
            15.5 + 0.8 * radius,
            15.5 + 0.8 * radius,
            [1, 2, 3],
        ),  # the first tile's corner is outside the circle
    ]:
        outputs = torch.ops.feature_gs.intersect(
            torch.tensor([[[x, y]]]),
            torch.tensor([[[1.0, 0.0, 1.0]]]),
            torch.tensor([[0.5]]),
            torch.tensor([[2.0]]),
            torch.tensor([[4]], dtype=torch.int32),
            32,
            32,
        )
        assert outputs[3].tolist() == tiles, (x, y)


def test_radius_zero_means_absent() -> None:
    means2d, conics, opacities, depths, radii = project(SCENES["mixed"].to(torch.float32))
    outputs = torch.ops.feature_gs.intersect(means2d, conics, opacities, depths, 0 * radii, 101, 77)
    assert outputs[1].numel() == 0 and not outputs[0].any() and not outputs[4].any()


def test_thread_counts_are_bit_equal() -> None:
    scene = SCENES["many"].to(torch.float32)
    splats = project(scene)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(torch.ops.feature_gs.intersect(*splats, scene.width, scene.height))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("position", "broken", "message"),
    [
        (0, torch.zeros(1, 5, 3), "means2d must be"),
        (1, torch.zeros(1, 4, 3), "conics must be"),
        (2, torch.zeros(1, 5, 1), "opacities must be"),
        (3, torch.zeros(1, 5).double(), "depths must have the dtype"),
        (4, torch.zeros(1, 5), "radii must have the dtype|radii must be int32"),
        (5, 0, "at least one pixel, got 0 x 30"),
        (6, -1, "at least one pixel, got 40 x -1"),
    ],
)
def test_wrong_inputs_are_named(position: int, broken: object, message: str) -> None:
    args: list[object] = [torch.zeros(1, 5, 2), torch.zeros(1, 5, 3), torch.zeros(1, 5), torch.zeros(1, 5)]
    args += [torch.zeros(1, 5, dtype=torch.int32), 40, 30]
    args[position] = broken
    with pytest.raises(RuntimeError, match=message):
        torch.ops.feature_gs.intersect(*args)
