"""Principal components of features, from sums that are gathered map by map."""

import math
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_gs.files import atomic_write

_ROWS = 1 << 14  # cells converted to float64 at a time
_ENOUGH_CELLS = 4096  # of one map


@dataclass(frozen=True, eq=False)
class Pca:
    """The directions in which features vary most, float32.

    Attributes:
        mean: The mean feature. [C]
        components: Orthonormal columns, the largest variance first. [C, k]
        variances: Variance along each of them, over all features (divided by their number). [k]
        total_variance: Variance over all C directions together.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    total_variance: float

    @property
    def explained(self) -> float:
        """The share of the variance that the components hold, 0 to 1; 1 if nothing varies."""
        if self.total_variance <= 0:
            return 1.0
        return min(1.0, self.variances.double().sum().item() / self.total_variance)

    def project(self, x: Tensor) -> Tensor:  # [..., C] -> [..., k]
        """Coordinates along the components: (x - mean) components, float32."""
        return (x.float() - self.mean) @ self.components

    def reconstruct(self, y: Tensor) -> Tensor:  # [..., k] -> [..., C]
        """The feature at coordinates `y`: y components^T + mean."""
        return y @ self.components.T + self.mean


class PcaAccumulator:
    """Gathers the sums that a PCA needs; its memory does not grow with the number of features.

    All sums are float64 and taken about the mean of the first batch, so that a mean far from zero costs no
    precision.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift = torch.zeros(0, dtype=torch.float64)
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._products = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, x: Tensor) -> None:  # [n, C]
        """Takes in some features.

        Args:
            x: Any floating-point type. [n, C]

        Raises:
            ValueError: The number of channels is another.
        """
        channels = x.shape[-1]
        if x.ndim != 2 or (self.count and channels != len(self._sum)):
            raise ValueError(f"expected features [n, {len(self._sum) or 'C'}], got {list(x.shape)}")
        for rows in x.detach().cpu().split(_ROWS):
            if len(rows) == 0:
                continue
            values = rows.double()
            if self.count == 0:
                self._shift = values.mean(dim=0)
                self._sum = values.new_zeros(channels)
                self._products = values.new_zeros(channels, channels)
            values = values - self._shift
            self._sum += values.sum(dim=0)
            self._products.addmm_(values.T, values)
            self.count += len(values)

    def fit(self, k: int) -> Pca:
        """The first `k` components; the sign of each makes its largest entry positive.

        Where the features span fewer than `k` directions, the rest are orthonormal all the same and have
        variance 0.

        Args:
            k: Number of components, 1 to C.

        Raises:
            ValueError: `k` is out of range or no features were added.
        """
        if self.count == 0:
            raise ValueError("a PCA needs at least one feature")
        if not 1 <= k <= len(self._sum):
            raise ValueError(f"expected 1 to {len(self._sum)} components, got {k}")
        offset = self._sum / self.count
        covariance = self._products / self.count - torch.outer(offset, offset)
        variances, vectors = torch.linalg.eigh(covariance)  # ascending
        components = vectors.flip(1)[:, :k]
        largest = components.gather(0, components.abs().argmax(dim=0, keepdim=True))
        components = components * torch.where(largest < 0, -1.0, 1.0)
        return Pca(
            mean=(self._shift + offset).float(),
            components=components.float().contiguous(),
            variances=variances.flip(0)[:k].clamp_min(0).float(),
            total_variance=max(0.0, covariance.trace().item()),
        )


def fit_pca(maps: Iterable[Tensor], k: int) -> Pca:
    """PCA over all cells of some maps, which are looked at one after the other.

    Args:
        maps: Features [C, h, w] each, of one number of channels.
        k: Number of components, 1 to C.

    Raises:
        ValueError: There are no maps, their channels differ, or `k` is out of range.
    """
    sums = PcaAccumulator()
    for features in maps:
        sums.add(features.flatten(1).T)
    return sums.fit(k)


def thinned(features: Tensor) -> Tensor:  # [C, h, w]
    """A regular part of a map's cells, some 4,000 at most: enough for statistics over many maps."""
    step = math.ceil(math.sqrt(features.shape[1] * features.shape[2] / _ENOUGH_CELLS))
    return features[:, ::step, ::step]


def save_pca(path: Path, pca: Pca) -> None:
    """Writes a PCA as .npz with `mean`, `components`, `variances` and `total_variance`."""
    with atomic_write(path) as temporary:
        np.savez(
            temporary,
            mean=pca.mean.numpy(),
            components=pca.components.numpy(),
            variances=pca.variances.numpy(),
            total_variance=np.float64(pca.total_variance),
        )


def load_pca(path: Path) -> Pca | None:
    """Reads what `save_pca` wrote; None if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, components, variances = (
                torch.from_numpy(stored[key].astype(np.float32))
                for key in ("mean", "components", "variances")
            )
            total = float(stored["total_variance"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    shapes_fit = components.ndim == 2 and components.shape == (len(mean), len(variances))
    return Pca(mean, components, variances, total) if shapes_fit else None
