"""LSeg: every pixel in CLIP's space of words.

After Li et al., "Language-driven Semantic Segmentation", ICLR 2022: a ViT-L/16 and a DPT head, trained so
that a pixel's feature points where CLIP ViT-B/32 puts the word for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders.dpt import DptHead
from feature_gs.encoders.lightning import read_lightning
from feature_gs.encoders.lseg_checkpoint import load_network
from feature_gs.encoders.network import Architecture, NetworkEncoder, scale_factors
from feature_gs.encoders.options import Option, whole_number, yes_or_no
from feature_gs.encoders.picture import network_input
from feature_gs.encoders.timm_import import import_timm
from feature_gs.encoders.weights import Published

CHECKPOINT = Published(
    url="https://drive.google.com/file/d/1ayk6NXURI_vIPlym16f_RG3ffxBWHxvb/view",
    file="demo_e200.ckpt",
    license="MIT (that of github.com/isl-org/lang-seg; none is given for the weights)",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_WINDOW = 240  # cells along what the network sees at once: the 480 pixels that it was trained on
_STRIDE = 160  # cells between windows, at most
_UNIT = 32  # pixels: both sides of a window are multiples


@dataclass(frozen=True)
class Sizes:
    """Of the network. The defaults are those of the public checkpoint.

    Attributes:
        width: Length of the ViT's tokens.
        depth: Its blocks.
        heads: Of its attention.
        side: Rows and columns of its position embeddings.
        taps: The four blocks, from 0, whose output the head takes.
        levels: Channels of the head's four levels.
        features: Channels inside the head.
        channels: Channels of the map.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    side: int = 24
    taps: tuple[int, ...] = (5, 11, 17, 23)
    levels: tuple[int, ...] = (256, 512, 1024, 1024)
    features: int = 256
    channels: int = 512


class Network(nn.Module):
    """A picture to features, two pixels per cell."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        import_timm()
        from timm.models.vision_transformer import VisionTransformer

        self.taps = sizes.taps
        self.vit: Any = VisionTransformer(
            img_size=16 * sizes.side,
            patch_size=16,
            embed_dim=sizes.width,
            depth=sizes.depth,
            num_heads=sizes.heads,
            num_classes=0,
        )
        self.vit.norm = nn.Identity()  # the head takes the blocks' own outputs
        self.dpt = DptHead(sizes.width, sizes.levels, sizes.features, sizes.channels)

    def forward(self, pixels: Tensor) -> Tensor:  # [1, 3, h, w] -> [1, C, h / 2, w / 2]
        """Features; h and w are multiples of 32."""
        rows, columns = pixels.shape[2] // 16, pixels.shape[3] // 16
        patches = self.vit.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.vit.cls_token, patches], 1) + self._positions(rows, columns)
        depths = []
        for index, block in enumerate(self.vit.blocks):
            tokens = block(tokens)
            if index in self.taps:
                depths.append(tokens)
        features: Tensor = self.dpt(depths, rows, columns)
        return features

    def _positions(self, rows: int, columns: int) -> Tensor:  # [1, 1 + rows * columns, width]
        """The learned positions, resized bilinearly to the grid."""
        embedding = self.vit.pos_embed
        side = math.isqrt(embedding.shape[1] - 1)
        grid = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        grid = functional.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class LSeg(NetworkEncoder):
    """512 channels at half the input's resolution, averaged over sizes and mirrored copies.

    Like the evaluation of LSeg that Feature 3DGS teaches with, but at the photo's own aspect: the photo is
    resized so that its long side is `size` times each of `scales`, seen through windows of at most 480 pixels
    that overlap by a third or more, and averaged. Features keep their length; their direction is what words
    are compared with.
    """

    known_options: ClassVar[Mapping[str, Option]] = {
        "size": Option(whole_number, 520, "long side of the input in pixels"),
        "flip": Option(yes_or_no, True, "average with the map of the mirrored photo"),
        "scales": Option(
            scale_factors, (0.75, 1.0, 1.25, 1.75), "average over these multiples of size, such as 0.5,1,2"
        ),
    }

    def __init__(
        self,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
        sizes: Sizes | None = None,
    ) -> None:
        """Reads the options, then the checkpoint.

        Args:
            weights: demo_e200.ckpt; None looks in the documented folder.
            options: Option -> value.
            device: Where to compute.
            sizes: Of the network in the checkpoint; None: those of the public one.

        Raises:
            UserError: An option is wrong, or the checkpoint is missing, damaged or another one.
        """
        self._sizes = sizes or Sizes()
        with torch.device("meta"):  # the checkpoint brings the numbers
            network = Network(self._sizes)
        super().__init__(Architecture("lseg", network, CHECKPOINT, None, "lseg"), weights, options, device)

    def _prepare(self, architecture: Architecture) -> None:
        self.channels = self._sizes.channels
        self.patch, self.stride = 16, 2
        self.sizing = (
            f"long side about {self.settings['size']} pixels, both sides even, the photo's aspect; seen "
            f"through windows of at most {2 * _WINDOW} pixels"
        )

    def _load(self, path: Path) -> None:
        load_network(self.model, read_lightning(path), path)

    def _input(self, image: Tensor, rows: int, columns: int) -> Tensor:  # [H, W, 3] -> [3, h, w]
        return network_input(image, 2 * columns, 2 * rows)

    def _forward(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        total = pixels.new_zeros(self.channels, rows, columns)
        windows = pixels.new_zeros(rows, columns)
        for top in window_starts(rows):
            for left in window_starts(columns):
                down, across = slice(top, top + _WINDOW), slice(left, left + _WINDOW)
                seen = pixels[..., 2 * top : 2 * (top + _WINDOW), 2 * left : 2 * (left + _WINDOW)]
                total[:, down, across] += self._window(seen)
                windows[down, across] += 1
        return total / windows

    def _window(self, pixels: Tensor) -> Tensor:  # [1, 3, h, w] -> [C, h / 2, w / 2]
        """Features of a picture of even sides, mirrored at its lower right edges up to whole units."""
        height, width = pixels.shape[2:]
        whole = pixels[:, :, mirrored(height, _UNIT).to(pixels.device)]
        whole = whole[..., mirrored(width, _UNIT).to(pixels.device)]
        features: Tensor = self.model(whole)[0, :, : height // 2, : width // 2]
        return features


def window_starts(cells: int) -> list[int]:
    """First cells of the windows along a side: evenly spread, together the whole side."""
    beyond = max(0, cells - _WINDOW)
    count = math.ceil(beyond / _STRIDE)
    return [0, *(round(beyond * index / count) for index in range(1, count + 1))]


def mirrored(length: int, unit: int) -> Tensor:  # [ceil(length / unit) * unit]
    """Indices that continue 0 to length - 1 by going back and forth, up to a multiple of `unit`."""
    indices = torch.arange(math.ceil(length / unit) * unit).remainder(2 * length)
    return torch.minimum(indices, 2 * length - 1 - indices)
