"""The decoder of dense prediction transformers (DPT): tokens of four depths to one map at half resolution.

After Ranftl, Bochkovskiy, Koltun, "Vision Transformers for Dense Prediction", ICCV 2021, section 3, with
class-token read-out by projection and batch normalisation, as LSeg uses it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reassemble(nn.Module):
    """Tokens of one depth, the class token mixed in, as a picture of 1/4, 1/8, 1/16 or 1/32 of the input."""

    def __init__(self, width: int, channels: int, resample: nn.Module) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * width, width)
        self.project = nn.Conv2d(width, channels, 1)
        self.resample = resample

    def forward(
        self,
        tokens: Tensor,  # [1, 1 + rows * columns, width]
        rows: int,
        columns: int,
    ) -> Tensor:  # [1, channels, r * rows, r * columns]
        """The picture; the first token is that of the class."""
        patches = tokens[:, 1:]
        mixed = torch.cat([patches, tokens[:, :1].expand_as(patches)], -1)
        grid = functional.gelu(self.readout(mixed)).transpose(1, 2).unflatten(2, (rows, columns))
        resampled: Tensor = self.resample(self.project(grid))
        return resampled


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions, each after a ReLU and before a batch normalisation, added to the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, grid: Tensor) -> Tensor:  # [1, F, h, w] -> [1, F, h, w]
        """The sum."""
        inner = self.bn1(self.conv1(functional.relu(grid)))
        added: Tensor = self.bn2(self.conv2(functional.relu(inner))) + grid
        return added


class Fusion(nn.Module):
    """Adds a finer level to the coarser ones and doubles the resolution."""

    def __init__(self, features: int, coarsest: bool) -> None:
        super().__init__()
        self.skip = None if coarsest else ResidualUnit(features)
        self.unit = ResidualUnit(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, level: Tensor, coarser: Tensor | None) -> Tensor:  # [1, F, h, w] -> [1, F, 2h, 2w]
        """The fused picture. Without a skip unit (the coarsest level), `coarser` is None."""
        fused = level if self.skip is None or coarser is None else coarser + self.skip(level)
        larger = functional.interpolate(self.unit(fused), scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.out(larger)
        return out


class DptHead(nn.Module):
    """From tokens of four depths of a ViT with patches of 16 pixels to a map of half the input's size."""

    def __init__(self, width: int, levels: Sequence[int], features: int, channels: int) -> None:
        """Builds the head, random.

        Args:
            width: Length of a token.
            levels: Channels of the four reassembled pictures, the finest first.
            features: Channels inside the fusion.
            channels: Channels of the map.
        """
        super().__init__()
        first, second, third, fourth = levels
        resamplers = (
            nn.ConvTranspose2d(first, first, 4, stride=4),
            nn.ConvTranspose2d(second, second, 2, stride=2),
            nn.Identity(),
            nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
        )
        self.reassemble = nn.ModuleList(
            Reassemble(width, level, resample) for level, resample in zip(levels, resamplers, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(level, features, 3, padding=1, bias=False) for level in levels)
        self.fuse = nn.ModuleList(Fusion(features, coarsest=index == 3) for index in range(4))
        self.head = nn.Conv2d(features, channels, 1)

    def forward(
        self,
        depths: Sequence[Tensor],  # 4 x [1, 1 + rows * columns, width]
        rows: int,
        columns: int,
    ) -> Tensor:  # [1, channels, 8 * rows, 8 * columns]
        """The map.

        Args:
            depths: Tokens of the four depths, the shallowest first; class token first. [1, 1 + r * c, width]
            rows: Rows of patches, even.
            columns: Columns of patches, even.

        Returns:
            A map with two pixels of the input per cell. [1, channels, 8 * rows, 8 * columns]
        """
        fused: Tensor | None = None
        for index in (3, 2, 1, 0):
            picture = self.reassemble[index](depths[index], rows, columns)
            fused = self.fuse[index](self.narrow[index](picture), fused)
        out: Tensor = self.head(fused)
        return out
