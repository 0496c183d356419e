"""An order of the Gaussians in which neighbours in space are neighbours in memory."""

import torch
from torch import Tensor

_BITS = 10  # per axis
_OUTLIERS = 0.01  # share of the coordinates, at either end, that may lie beyond the grid


@torch.no_grad()
def spatial_order(means: Tensor) -> Tensor:  # [N, 3]
    """The permutation that sorts the Gaussians along a Z-order curve (Morton, 1966).

    What a view draws side by side then lies side by side in memory, which makes every step faster.

    Args:
        means: Their centres. [N, 3]

    Returns:
        Row numbers, stable for Gaussians in one cell of the curve's grid. [N] int64
    """
    if not len(means):
        return torch.zeros(0, dtype=torch.int64, device=means.device)
    sample = means[:: max(1, len(means) // 65536)]
    low, high = torch.quantile(sample, means.new_tensor([_OUTLIERS, 1 - _OUTLIERS]), dim=0)
    side = (high - low).max().clamp_min(torch.finfo(means.dtype).tiny)
    top = 2**_BITS - 1
    place = ((means - low) / side * top).clamp(0, top).nan_to_num().long()
    code = torch.zeros_like(place[:, 0])
    for bit in range(_BITS):
        for axis in range(3):
            code |= ((place[:, axis] >> bit) & 1) << (3 * bit + axis)
    return torch.sort(code, stable=True).indices
