"""The feature image as a sparse matrix: how much of each Gaussian lies in each cell of a view.

Rendering is linear in the features. With `A[r, n]` the blending weight of Gaussian n averaged over the pixels
of cell r, a feature image is `A F`, its gradient and lifting are `Aᵀ M`, and normal equations are both in
turn. `A` does not depend on the number of channels and is found once per view, next to the colours.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feature_gs.rasterizer.ops import ops


@dataclass(frozen=True)
class CellWeights:
    """The matrix `A` [B * h * w, N] of B views, listed Gaussian by Gaussian without its zeros.

    Attributes:
        values: Mean weight of a Gaussian over the pixels of a cell, > 0. [E]
        gaussians: The Gaussians that some cell sees, each once. [K] int32
        offsets: The entries of `gaussians[k]` are `offsets[k]` to `offsets[k + 1]`. [K + 1] int64
        rows: The cell of each entry, counted through views, rows and columns. [E] int32
        shape: Views, rows and columns of cells (B, h, w).
        count: Number of Gaussians, N.
    """

    values: Tensor  # [E]
    gaussians: Tensor  # [K]
    offsets: Tensor  # [K + 1]
    rows: Tensor  # [E]
    shape: tuple[int, int, int]
    count: int

    @classmethod
    def from_slots(
        cls,
        weights: Tensor,  # [P, R]
        slot_tiles: Tensor,  # [P]
        gaussian_offsets: Tensor,  # [B * N + 1]
        batch: int,
        count: int,
        width: int,
        height: int,
        cell: int,
    ) -> "CellWeights":
        """Lists what the ops `rasterize` and `intersect` put out; the gradient of `values` reaches `weights`.

        Args:
            weights: Mean weights by slot, R = (16 / cell)² cells each. [P, R]
            slot_tiles: Of `intersect`. [P]
            gaussian_offsets: Of `intersect`. [B * N + 1]
            batch: Views, B.
            count: Gaussians, N.
            width: Of the images, pixels.
            height: Of the images, pixels.
            cell: Side of a cell, pixels: 4, 8 or 16.

        Returns:
            The matrix.

        Raises:
            RuntimeError: The lists do not belong to such images.
        """
        with torch.no_grad():
            gaussians, offsets, rows, places = ops.compress_cells(
                weights, slot_tiles, gaussian_offsets, batch, width, height, cell
            )
        values = weights.flatten().index_select(0, places)
        shape = (batch, -(-height // cell), -(-width // cell))
        return cls(values, gaussians, offsets, rows, shape, count)

    def blend(self, features: Tensor) -> Tensor:  # [N, C]
        """The feature image `A F`: the mean over each cell's pixels of `Σ w f`, over a background of zero.

        Differentiable with respect to `features` and, through `values`, to what the weights depend on.

        Args:
            features: Any number of channels C >= 1; float16 is read as it is beside float32
                `values`, other precisions are converted. [N, C]

        Returns:
            The image. [B, h, w, C]

        Raises:
            ValueError: There is not one row of features per Gaussian.
            RuntimeError: There is no channel.
        """
        if features.dim() != 2 or features.shape[0] != self.count:
            raise ValueError(f"features must be [{self.count}, C], got {list(features.shape)}")
        if features.dtype != torch.float16 or self.values.dtype != torch.float32:
            features = features.to(self.values.dtype)
        lists = (self.gaussians, self.offsets, self.rows)
        maps = ops.blend_cells(features, self.values, *lists, math.prod(self.shape))
        return maps.unflatten(0, self.shape)

    def gather(self, maps: Tensor) -> Tensor:  # [B, h, w, C]
        """What the cells send back to the Gaussians: `Aᵀ M`, the gradient of `blend`. Carries no gradient.

        Args:
            maps: One row of C channels per cell, in the precision of `values`. [B, h, w, C]

        Returns:
            One row per Gaussian; 0 where no cell sees it. [N, C]

        Raises:
            ValueError: There is not one row per cell.
            RuntimeError: There is no channel, or the precision differs.
        """
        return ops.gather_cells(self._rows_of(maps), *self._detached(), self.count)

    def accumulate(
        self,
        sums: Tensor,  # [N, C]
        maps: Tensor,  # [B, h, w, C]
        rate: float = 1.0,
        floor: float | None = None,
    ) -> None:
        """Adds `rate Aᵀ M` to `sums` in place, touching only rows that some cell sees. No gradient.

        Args:
            sums: What is added to, contiguous, in the precision of `values` or float16. [N, C]
            maps: One row of C channels per cell, in the precision of `values`. [B, h, w, C]
            rate: Factor on what is added.
            floor: Divides row n by `floor + (Aᵀ 1)_n`, >= 0: the mean of the cells, less where there is
                little weight. None: the plain sum.

        Raises:
            ValueError: There is not one row of `maps` per cell or of `sums` per Gaussian, or floor < 0.
            RuntimeError: Channels or precisions differ, or `sums` is not contiguous.
        """
        if sums.dim() != 2 or sums.shape[0] != self.count:
            raise ValueError(f"sums must be [{self.count}, C], got {list(sums.shape)}")
        if floor is not None and floor < 0:
            raise ValueError(f"floor must be at least 0, got {floor}")
        plain = -1.0 if floor is None else floor
        ops.accumulate_cells(sums, self._rows_of(maps), rate, plain, *self._detached())

    def totals(self) -> Tensor:
        """The weight of each Gaussian over all cells, `Aᵀ 1`; 0 where none sees it. Carries no gradient.

        Returns:
            One number per Gaussian. [N]
        """
        return self.gather(self.values.new_ones(*self.shape, 1))[:, 0]

    def _rows_of(self, maps: Tensor) -> Tensor:
        if maps.dim() != 4 or tuple(maps.shape[:3]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"maps must be [{wanted}, C], got {list(maps.shape)}")
        return maps.detach().flatten(0, 2)

    def _detached(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.values.detach(), self.gaussians, self.offsets, self.rows


# ----------------------------------------------------------------------------- shapes and gradients for torch
@torch.library.register_fake("feature_gs::compress_cells")
def _compress_fake(weights: Tensor, slot_tiles: Tensor, *_: Any) -> tuple[Tensor, ...]:
    context = torch.library.get_ctx()
    listed, entries = context.new_dynamic_size(), context.new_dynamic_size()
    return (
        weights.new_empty(listed, dtype=torch.int32),
        weights.new_empty(listed + 1, dtype=torch.int64),
        weights.new_empty(entries, dtype=torch.int32),
        weights.new_empty(entries, dtype=torch.int64),
    )


@torch.library.register_fake("feature_gs::blend_cells")
def _blend_fake(features: Tensor, values: Tensor, *rest: Any) -> Tensor:
    return values.new_empty(rest[-1], features.shape[1])


@torch.library.register_fake("feature_gs::gather_cells")
def _gather_fake(maps: Tensor, *rest: Any) -> Tensor:
    return maps.new_empty(rest[-1], maps.shape[1])


@torch.library.register_fake("feature_gs::accumulate_cells")
def _accumulate_fake(*_: Any) -> None:
    return None


@torch.library.register_fake("feature_gs::cell_products")
def _products_fake(features: Tensor, maps: Tensor, *rest: Tensor) -> Tensor:
    return maps.new_empty(rest[-1].shape)


def _blend_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:5])


def _blend_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    features, values, *lists = ctx.saved_tensors
    g_features = g_values = None
    if grad is not None and ctx.needs_input_grad[0]:
        g_features = ops.gather_cells(grad, values, *lists, features.shape[0])
    if grad is not None and ctx.needs_input_grad[1]:
        g_values = ops.cell_products(features, grad, *lists)
    return (g_features, g_values, *(None,) * 4)


torch.library.register_autograd("feature_gs::blend_cells", _blend_backward, setup_context=_blend_setup)
