"""The feature image as a sparse matrix: how much of each Gaussian lies in each cell of a view.

Rendering is linear in the features. With `A[r, n]` the blending weight of Gaussian n averaged over the pixels of
cell r, a feature image is `A F`, its gradient and lifting are `Aᵀ M`, and normal equations are both in turn. `A` does
not depend on the number of channels and is found once per view, next to the colours.
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
        weights: Tensor,  # [P, (16 / cell)²]
        slot_tiles: Tensor,  # [P]
        gaussian_offsets: Tensor,  # [B * N + 1]
        batch: int,
        width: int,
        height: int,
        cell: int,
    ) -> "CellWeights":
        """Lists what the ops `rasterize` and `intersect` put out; the gradient of `values` reaches `weights`."""
        with torch.no_grad():
            gaussians, offsets, rows, places = ops.compress_cells(
                weights, slot_tiles, gaussian_offsets, batch, width, height, cell
            )
        values = weights.flatten().index_select(0, places)
        shape = (batch, -(-height // cell), -(-width // cell))
        return cls(values, gaussians, offsets, rows, shape, (len(gaussian_offsets) - 1) // batch)

    def blend(self, features: Tensor) -> Tensor:  # [N, C]
        """The feature image `A F`: the mean over each cell's pixels of `Σ w f`, over a background of zero.

        Differentiable with respect to `features` and, through `values`, to what the weights depend on.

        Args:
            features: Any number of channels C >= 1; float16 is read as it is, bfloat16 as float32. [N, C]

        Returns:
            The image. [B, h, w, C]

        Raises:
            RuntimeError: A shape or dtype is wrong.
        """
        if features.dtype != torch.float16 or self.values.dtype != torch.float32:
            features = features.to(self.values.dtype)
        return ops.blend_cells(features, *self._matrix(), math.prod(self.shape)).unflatten(0, self.shape)

    def gather(self, maps: Tensor) -> Tensor:  # [B, h, w, C]
        """What the cells send back to the Gaussians, `Aᵀ M`. Carries no gradient. [N, C]"""  # noqa: D415
        return ops.gather_cells(maps.detach().flatten(0, 2), *self._detached(), self.count)

    def accumulate(
        self,
        sums: Tensor,  # [N, C]
        maps: Tensor,  # [B, h, w, C]
        rate: float = 1.0,
        floor: float | None = None,
    ) -> None:
        """Adds `rate Aᵀ M` to `sums` in place, touching only rows that some cell sees. No gradient.

        Args:
            sums: What is added to, contiguous, in the dtype of `values` or float16. [N, C]
            maps: One row of C channels per cell. [B, h, w, C]
            rate: Factor on what is added.
            floor: Divides row n by `floor + (Aᵀ 1)_n`, >= 0: the cells' mean, less where there is little weight.
                None: the plain sum.
        """
        rows = maps.detach().flatten(0, 2)
        ops.accumulate_cells(sums, rows, rate, -1.0 if floor is None else floor, *self._detached())

    def totals(self) -> Tensor:
        """Each Gaussian's weight over all cells, `Aᵀ 1`; 0 where it is not seen. Carries no gradient. [N]"""  # noqa: D415
        return self.gather(self.values.new_ones(*self.shape, 1))[:, 0]

    def _matrix(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.values, self.gaussians, self.offsets, self.rows

    def _detached(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, *lists = self._matrix()
        return (values.detach(), *lists)


# ------------------------------------------------------------------------------- shapes and gradients for torch
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
def _products_fake(features: Tensor, maps: Tensor, gaussians: Tensor, offsets: Tensor, rows: Tensor) -> Tensor:
    return maps.new_empty(rows.shape)


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
