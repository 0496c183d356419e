"""The feature image as a sparse matrix: how much of each Gaussian lies in each cell of a view.

Rendering is linear in the features. With `A[r, n]` the blending weight of Gaussian n averaged over the pixels
of cell r, a feature image is `A F`, its gradient and lifting are `Aᵀ M`, and normal equations are both in
turn. `A` does not depend on the number of channels and is found once per view, next to the colours.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feature_gs.rasterizer.ops import ops


@dataclass(frozen=True)
class CellWeights:
    """The matrix `A` [B * h * w, N] of B views, as the ops `rasterize` and `intersect` leave it.

    Attributes:
        weights: Mean weight of a Gaussian over the pixels of a cell, >= 0, by slot, a pair of Gaussian and
            tile: R cells each, those of the slot's tile row by row. [P, R], R = (16 / cell)²
        lists: Which Gaussian and which tile a slot belongs to: what `intersect` puts out (tile_offsets,
            pair_gaussians, pair_slots, slot_tiles, gaussian_offsets).
        shape: Views, rows and columns of cells (B, h, w).
        count: Number of Gaussians, N.
    """

    weights: Tensor  # [P, R]
    lists: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # [B * tiles + 1], [P], [P], [P], [B * N + 1]
    shape: tuple[int, int, int]
    count: int

    def blend(self, features: Tensor) -> Tensor:  # [N, C]
        """The feature image `A F`: the mean over each cell's pixels of `Σ w f`, over a background of zero.

        Differentiable with respect to `features` and `weights`.

        Args:
            features: Any number of channels C >= 1; float16 is read as it is beside float32
                `weights`, other precisions are converted. [N, C]

        Returns:
            The image. [B, h, w, C]

        Raises:
            ValueError: There is not one row of features per Gaussian.
            RuntimeError: There is no channel.
        """
        if features.dim() != 2 or features.shape[0] != self.count:
            raise ValueError(f"features must be [{self.count}, C], got {list(features.shape)}")
        if features.dtype != torch.float16 or self.weights.dtype != torch.float32:
            features = features.to(self.weights.dtype)
        return ops.blend_cells(features, self.weights, *self.lists, *self.shape)

    def gather(self, maps: Tensor) -> Tensor:  # [B, h, w, C]
        """What the cells send back to the Gaussians: `Aᵀ M`, the gradient of `blend`. Carries no gradient.

        Args:
            maps: One row of C channels per cell, in the precision of `weights`. [B, h, w, C]

        Returns:
            One row per Gaussian; 0 where no cell sees it. [N, C]

        Raises:
            ValueError: There is not one row per cell.
            RuntimeError: There is no channel, or the precision differs.
        """
        return ops.gather_cells(self._checked(maps), *self._by_gaussian(), self.count)

    def accumulate(
        self,
        sums: Tensor,  # [N, C]
        maps: Tensor,  # [B, h, w, C]
        rate: float = 1.0,
        floor: float | None = None,
    ) -> None:
        """Adds `rate Aᵀ M` to `sums` in place, touching only rows that some cell sees. No gradient.

        Args:
            sums: What is added to, contiguous, in the precision of `weights` or float16. [N, C]
            maps: One row of C channels per cell, in the precision of `weights`. [B, h, w, C]
            rate: Factor on what is added.
            floor: Divides row n by `floor + (Aᵀ 1)_n`, >= 0: the mean of the cells, less where there is
                little weight. None: the plain sum.

        Raises:
            ValueError: There is not one row of `maps` per cell or of `sums` per Gaussian, or floor < 0.
            RuntimeError: Channels or precisions differ, or `sums` is not contiguous.
        """
        if sums.dim() != 2 or sums.shape[0] != self.count:
            raise ValueError(f"sums must be [{self.count}, C], got {list(sums.shape)}")
        if floor is not None and not floor >= 0:
            raise ValueError(f"floor must be at least 0, got {floor}")
        plain = -1.0 if floor is None else floor
        ops.accumulate_cells(sums, self._checked(maps), rate, plain, *self._by_gaussian())

    def totals(self) -> Tensor:
        """The weight of each Gaussian over all cells, `Aᵀ 1`; 0 where none sees it. Carries no gradient.

        Returns:
            One number per Gaussian. [N]
        """
        return self.gather(self.weights.new_ones(*self.shape, 1))[:, 0]

    def _checked(self, maps: Tensor) -> Tensor:
        if maps.dim() != 4 or tuple(maps.shape[:3]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"maps must be [{wanted}, C], got {list(maps.shape)}")
        return maps.detach()

    def _by_gaussian(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weights.detach(), *self.lists[3:]


# ----------------------------------------------------------------------------- shapes and gradients for torch
@torch.library.register_fake("feature_gs::blend_cells")
def _blend_fake(features: Tensor, weights: Tensor, *rest: Any) -> Tensor:
    return weights.new_empty(*rest[-3:], features.shape[1])


@torch.library.register_fake("feature_gs::gather_cells")
def _gather_fake(maps: Tensor, *rest: Any) -> Tensor:
    return maps.new_empty(rest[-1], maps.shape[3])


@torch.library.register_fake("feature_gs::accumulate_cells")
def _accumulate_fake(*_: Any) -> None:
    return None


@torch.library.register_fake("feature_gs::cell_products")
def _products_fake(features: Tensor, maps: Tensor, weights: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


def _blend_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, weights, *lists = inputs[:7]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(features, weights, *lists[3:])


def _blend_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    features, *matrix = ctx.saved_tensors
    g_features = g_weights = None
    if grad is not None and ctx.needs_input_grad[0]:
        g_features = ops.gather_cells(grad, *matrix, features.shape[0])
    if grad is not None and ctx.needs_input_grad[1]:
        g_weights = ops.cell_products(features, grad, *matrix)
    return (g_features, g_weights, *(None,) * 8)


torch.library.register_autograd("feature_gs::blend_cells", _blend_backward, setup_context=_blend_setup)
