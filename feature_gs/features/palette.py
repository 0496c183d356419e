"""Features as colours: one affine map per model, from the first three principal components to RGB."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feature_gs.features.decoders import Decoder, LinearDecoder, NoDecoder
from feature_gs.features.pca import PcaAccumulator
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import to_uint8

_PERCENTILES = (0.01, 0.99)  # of a principal component, shown as 0 and 1


@dataclass(frozen=True, eq=False)
class Palette:
    """The colours of decoded features x: rgb = x @ matrix + bias, clamped to [0, 1] when shown.

    It is fitted once per model and kept with it, so that a feature has one colour in all views.

    Attributes:
        matrix: [C, 3] float32
        bias: [3] float32
    """

    matrix: Tensor
    bias: Tensor

    def colors(self, features: Tensor) -> Tensor:  # [..., C]
        """Colours of decoded features, not clamped. [..., 3]"""
        return features.float() @ self.matrix.to(features.device) + self.bias.to(features.device)

    def of_gaussians(self, decoder: Decoder) -> tuple[Tensor, Tensor] | None:
        """The palette and a pointwise decoder in one map, from features as Gaussians carry them.

        Returns:
            Matrix [c, 3] and bias [3]; None for a decoder that is not pointwise (conv3x3).
        """
        if isinstance(decoder, NoDecoder):
            return self.matrix, self.bias
        if isinstance(decoder, LinearDecoder):
            weight, bias = decoder.weight.detach(), decoder.bias.detach()
            matrix = self.matrix.to(weight.device)
            return weight.t() @ matrix, bias @ matrix + self.bias.to(weight.device)
        return None


def fit_palette(samples: Tensor) -> Palette:  # [n, C]
    """Fits a palette: red, green and blue are the first three principal components.

    The 1st and 99th percentile of each become 0 and 1. With fewer than three channels the last component
    serves again. A component that does not vary, and everything where there is no sample, is grey (0.5).

    Args:
        samples: Decoded features, some thousands. [n, C]

    Returns:
        The palette.
    """
    rows = samples.detach().float().cpu()
    channels = rows.shape[1]
    if len(rows) == 0:
        return Palette(torch.zeros(channels, 3), torch.full((3,), 0.5))
    accumulator = PcaAccumulator()
    accumulator.add(rows)
    pca = accumulator.fit(min(3, channels))
    low, high = np.quantile(pca.project(rows).double().numpy(), _PERCENTILES, axis=0)
    spread = high - low
    varies = spread > 1e-6 * rows.abs().max().item()
    scale = np.where(varies, 1 / np.where(varies, spread, 1), 0)
    offset = np.where(varies, -low * scale, 0.5)
    chosen = [min(i, len(scale) - 1) for i in range(3)]
    matrix = (pca.components.double() * torch.from_numpy(scale))[:, chosen]
    bias = torch.from_numpy(offset)[chosen] - pca.mean.double() @ matrix
    return Palette(matrix.float(), bias.float())


def palette_picture(premultiplied: Tensor, alpha: Tensor) -> Picture:  # [H, W, 3], [H, W]
    """A picture of colours that fade to black where nothing is.

    Args:
        premultiplied: Colours times alpha, not clamped. [H, W, 3]
        alpha: Opacity in [0, 1]. [H, W]

    Returns:
        The picture. [H, W, 3] uint8
    """
    return to_uint8(premultiplied.clamp(min=0).minimum(alpha[..., None]))
