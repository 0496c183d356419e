"""Sparse matrices of cell weights for the tests of what is done with them."""

import math

import torch
from torch import Tensor

from feature_gs.rasterizer.cells import CellWeights


def dense(cells: CellWeights) -> Tensor:
    """The matrix with its zeros. [B * h * w, N]"""  # noqa: D415
    columns = torch.repeat_interleave(cells.gaussians.long(), cells.offsets.diff())
    matrix = cells.values.new_zeros(math.prod(cells.shape), cells.count)
    return matrix.index_put((cells.rows.long(), columns), cells.values, accumulate=True)


def random_cells(count: int, shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 0) -> CellWeights:
    """Half of the Gaussians in random order, the first seen by all cells, some by none, others by a few."""
    rng = torch.Generator().manual_seed(seed)
    cells, listed = math.prod(shape), count // 2
    gaussians = torch.randperm(count, generator=rng)[:listed].int()
    lengths = torch.randint(0, 6, (listed,), generator=rng).clamp(max=cells)
    lengths[:1] = cells
    rows = [torch.randperm(cells, generator=rng)[:length].int() for length in lengths.tolist()]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.rand(int(offsets[-1]), generator=rng).to(dtype)
    return CellWeights(values, gaussians, offsets, torch.cat(rows), shape, count)


def lists_of(cells: CellWeights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return cells.values, cells.gaussians, cells.offsets, cells.rows
