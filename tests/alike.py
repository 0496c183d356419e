"""ALIKE-n (Zhao et al., IEEE Trans. Multimedia 2022) as a user would plug it in: dense local descriptors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders import Encoder, Grid, Option, whole_number


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to the input where there is a projection."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (out if self.downsample is None else out + self.downsample(x)).relu()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = (3, 16, 32, 64, 128)
        for level in range(1, 5):
            setattr(self, f"block{level}", Block(channels[level - 1], channels[level], residual=level > 1))
            setattr(self, f"conv{level}", nn.Conv2d(channels[level], 32, 1, bias=False))
        self.convhead2 = nn.Conv2d(128, 129, 1, bias=False)  # 128 of the descriptor, and a score

    def forward(self, x: Tensor) -> Tensor:  # [1, 3, h, w], whole multiples of 32 -> [1, 128, h, w]
        size, parts = x.shape[2:], []
        for level, pool in ((1, 1), (2, 2), (3, 4), (4, 4)):
            x = getattr(self, f"block{level}")(functional.max_pool2d(x, pool))
            part = getattr(self, f"conv{level}")(x).relu()
            parts.append(functional.interpolate(part, size, mode="bilinear", align_corners=True))
        descriptors: Tensor = self.convhead2(torch.cat(parts, 1))[:, :-1]
        return descriptors


class Alike(Encoder):
    """Descriptors of ALIKE-n, the mean of those in a cell, as unit vectors."""

    name = "alike"
    channels = 128
    patch = stride = 4
    normalisation = "colour / 255"
    licence = "BSD-3-Clause"
    origin = "https://github.com/Shiaoming/ALIKE"
    known_options = {"cell": Option(whole_number, 4, "side of a cell, pixels")}
    uses_weights = True

    def __init__(
        self, weights: Path, options: Mapping[str, Any] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(weights, options, device)
        self.network = Network().eval().to(self.device)
        self.network.load_state_dict(torch.load(weights, map_location=self.device, weights_only=True))

    def grid(self, width: int, height: int) -> Grid:
        return Grid.of_cells(width, height, self.settings["cell"])

    def encode(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [128, rows, columns]
        height, width = image.shape[:2]
        pixels = image.permute(2, 0, 1).float()[None].to(self.device) / 255
        padded = functional.pad(pixels, (0, -width % 32, 0, -height % 32), mode="reflect")
        features = self.network(padded)[..., :height, :width]
        cells = functional.avg_pool2d(
            functional.normalize(features), self.settings["cell"], ceil_mode=True, count_include_pad=False
        )
        return functional.normalize(cells)[0]
