"""SAM's image encoder as a teacher."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders.base import Encoder, Grid
from feature_gs.encoders.sam_weights import CHANNELS, DEVIATION, MEAN, MODELS, PATCH, SIDE, load_parts
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.encoders.weights import file_sha256
from feature_gs.errors import UserError

_SHORTEST = PATCH // 2  # pixels of the input; a map of less than half a cell is no map


def sam_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a photo inside SAM's input: the long side is 1024, the other rounded as SAM does.

    Raises:
        UserError: The photo is more than 128 times as long as wide.
    """
    scale = SIDE / max(width, height)
    inside = int(width * scale + 0.5), int(height * scale + 0.5)
    if min(inside) < _SHORTEST:
        raise UserError(
            f"a photo of {width} x {height} pixels would be {inside[0]} x {inside[1]} in SAM's input, less "
            f"than half a cell of {PATCH} pixels. Crop it."
        )
    return inside


def sam_grid(width: int, height: int) -> Grid:
    """The cells of SAM's 64 x 64 that show something of a photo of that size.

    A photo begins in SAM's upper left corner; what lies to the right of it or below is padding. Where the
    photo's edge cuts a cell, that cell belongs to the map: SAM saw the photo in its upper or left part and
    padding in the rest.
    """
    inside = sam_size(width, height)
    rows, columns = math.ceil(inside[1] / PATCH), math.ceil(inside[0] / PATCH)
    return Grid(rows, columns, inside[0] / PATCH / width, inside[1] / PATCH / height)


class SamEncoder(Encoder):
    """The image encoder of Segment Anything (Kirillov et al. 2023), through the segment_anything package.

    The map is the part of SAM's embedding that shows the photo; the padding is left out. What SAM gave for
    the padding is averaged over all photos encoded: `findings` hands it on to those who decode.

    Attributes:
        model: The network, on `device`, in evaluation mode.
    """

    channels = CHANNELS
    patch = stride = PATCH
    sizing = f"long side {SIDE} pixels, padded to a square at the right and below"
    normalisation = f"(colour - mean {MEAN}) / deviation {DEVIATION}"
    uses_weights: ClassVar[bool] = True

    def __init__(
        self,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(weights, options, device)
        published = MODELS[self.name].weights
        self.licence = published.license
        self.origin = published.url
        self.model = _build(self.name)
        path = load_parts(self.name, weights, {"image_encoder": self.model})
        self.model.eval().requires_grad_(False).to(self.device)
        self._weights = {"weights": path.name, "weights_sha256": file_sha256(path)}
        self._padding = torch.zeros(CHANNELS, dtype=torch.float64)  # sum over the cells of padding so far
        self._padded = 0  # their number

    def grid(self, width: int, height: int) -> Grid:
        """See `sam_grid`."""
        return sam_grid(width, height)

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [256, 64, 64]
        """SAM's whole embedding of a photo, padding included.

        Args:
            image: RGB. [H, W, 3] uint8

        Returns:
            What `SamPredictor.set_image` computes, bit for bit, on the CPU. [256, 64, 64] float32
        """
        sam_size(image.shape[1], image.shape[0])
        transforms: Any = import_with_torchvision("segment_anything.utils.transforms")
        resized = torch.from_numpy(transforms.ResizeLongestSide(SIDE).apply_image(image.cpu().numpy()))
        pixels = resized.permute(2, 0, 1).to(self.device)
        mean, deviation = (
            torch.tensor(value, device=self.device).view(3, 1, 1) for value in (MEAN, DEVIATION)
        )
        pixels = (pixels - mean) / deviation
        padded = functional.pad(pixels, (0, SIDE - pixels.shape[2], 0, SIDE - pixels.shape[1]))
        return self.model(padded[None])[0].cpu()

    def encode(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [256, rows, columns]
        """The part of `embed` that shows the photo."""
        embedding = self.embed(image)
        grid = self.grid(image.shape[1], image.shape[0])
        for padding in (embedding[:, grid.rows :], embedding[:, : grid.rows, grid.columns :]):
            self._padding += padding.double().sum((1, 2))
            self._padded += padding[0].numel()
        return embedding[:, : grid.rows, : grid.columns].contiguous()

    def findings(self) -> dict[str, Any]:
        """The mean feature of the cells beside the photos; nothing where all photos were square."""
        if self._padded == 0:
            return {}
        return {"padding": [float(f"{value:.4g}") for value in self._padding / self._padded]}

    def describe(self) -> dict[str, Any]:
        """Also names the weights and their SHA-256."""
        return {**super().describe(), **self._weights}


class SamVitB(SamEncoder):
    """The smallest SAM: 12 blocks, 768 wide."""

    name = "sam_vit_b"


class SamVitL(SamEncoder):
    """The middle one: 24 blocks, 1024 wide."""

    name = "sam_vit_l"


class SamVitH(SamEncoder):
    """The largest: 32 blocks, 1280 wide."""

    name = "sam_vit_h"


def _build(name: str) -> nn.Module:
    """The image encoder as the segment_anything package builds it, without memory for its weights."""
    modeling: Any = import_with_torchvision("segment_anything.modeling")
    model = MODELS[name]
    with torch.device("meta"):
        return modeling.ImageEncoderViT(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=model.width,
            depth=model.depth,
            num_heads=model.heads,
            mlp_ratio=4,
            out_chans=CHANNELS,
            qkv_bias=True,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=model.global_blocks,
        )
