"""Matrices of cell weights for the tests of what is done with them."""

import math

import torch
from torch import Tensor

from feature_gs.rasterizer.cells import CellWeights


def cells_of_slots(cells: CellWeights) -> Tensor:
    """The cell that each number of `weights` is of; -1 outside of the image. [P, R] int64"""  # noqa: D415
    _, rows, columns = cells.shape
    tiles, across = cells.lists[3].long(), math.isqrt(cells.weights.shape[1])
    down, wide = -(-rows // across), -(-columns // across)
    view, y, x = tiles // (down * wide), tiles % (down * wide) // wide, tiles % wide
    place = torch.arange(across**2)
    y, x = across * y[:, None] + place // across, across * x[:, None] + place % across
    return torch.where((y < rows) & (x < columns), (view[:, None] * rows + y) * columns + x, -1)


def gaussians_of_slots(cells: CellWeights) -> Tensor:
    """The Gaussian of each slot. [P] int64"""  # noqa: D415
    owners = torch.repeat_interleave(cells.lists[4].diff())
    return owners % max(cells.count, 1)


def seen(cells: CellWeights) -> Tensor:
    """Which Gaussians some cell sees. [N] bool"""  # noqa: D415
    return (dense(cells) != 0).any(0)


def dense(cells: CellWeights) -> Tensor:
    """The matrix with its zeros. [B * h * w, N]"""  # noqa: D415
    matrix = cells.weights.new_zeros(math.prod(cells.shape), cells.count)
    rows, columns = cells_of_slots(cells), gaussians_of_slots(cells)[:, None]
    inside = rows >= 0
    places = (rows[inside], columns.expand(rows.shape)[inside])
    return matrix.index_put(places, cells.weights.detach()[inside], accumulate=True)


def cells_from(
    slot_tiles: list[Tensor],
    shape: tuple[int, int, int],
    count: int,
    across: int,
    dtype: torch.dtype,
    rng: torch.Generator,
) -> CellWeights:
    """A third of the numbers are 0, and so are some whole slots.

    Args:
        slot_tiles: The rising tiles of each view's Gaussians, those of the first view first.
        shape: Views, rows and columns of cells.
        count: Gaussians.
        across: Cells of a tile in each direction.
        dtype: Of the weights.
        rng: Where they come from.
    """
    lengths = torch.tensor([len(tiles) for tiles in slot_tiles], dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tiles = torch.cat([*slot_tiles, torch.zeros(0, dtype=torch.int64)]).int()
    order = tiles.argsort(stable=True)
    all_tiles = shape[0] * -(-shape[1] // across) * -(-shape[2] // across)
    tile_offsets = torch.searchsorted(tiles[order].long(), torch.arange(all_tiles + 1))
    owners = torch.repeat_interleave(lengths)[order].int()
    weights = torch.rand(len(tiles), across**2, generator=rng)
    weights *= torch.rand(weights.shape, generator=rng) > 1 / 3
    weights *= torch.rand(len(tiles), 1, generator=rng) > 1 / 5
    cells = CellWeights(weights, (tile_offsets, owners, order.int(), tiles, offsets), shape, count)
    weights[cells_of_slots(cells) < 0] = 0
    return CellWeights(weights.to(dtype), cells.lists, shape, count)


def random_cells(
    count: int, shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 0, across: int = 2
) -> CellWeights:
    """One Gaussian is in all tiles of a view, half are in none, the others in a few."""
    rng = torch.Generator().manual_seed(seed)
    tiles = -(-shape[1] // across) * -(-shape[2] // across)
    slot_tiles = []
    for view in range(shape[0]):
        lengths = torch.randint(0, 4, (count,), generator=rng).clamp(max=tiles)
        lengths[torch.randperm(count, generator=rng)[: count // 2]] = 0
        if count:
            lengths[(7 * view) % count] = tiles
        for length in lengths.tolist():
            chosen = torch.randperm(tiles, generator=rng)[:length].sort().values
            slot_tiles.append(view * tiles + chosen)
    return cells_from(slot_tiles, shape, count, across, dtype, rng)


def by_gaussian(cells: CellWeights) -> tuple[Tensor, Tensor, Tensor]:
    """What the ops that sum by Gaussian take of the matrix."""
    return cells.weights, cells.lists[3], cells.lists[4]
