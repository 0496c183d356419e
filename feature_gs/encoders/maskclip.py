"""Dense features in CLIP's space of words, from CLIP itself.

After Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP", ECCV 2022, section 3.2: in the last block every
patch keeps its own value instead of a mixture of all, and takes the class token's way to the space of words.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders.clip_weights import VIT_B_16, fill_tower, image_state
from feature_gs.encoders.network import Architecture, NetworkEncoder
from feature_gs.encoders.options import Option, one_of, read_options, whole_number
from feature_gs.encoders.timm_import import import_with_torchvision


@dataclass(frozen=True)
class Sizes:
    """Of CLIP's image tower. The defaults are those of ViT-B/16.

    Attributes:
        width: Length of a token.
        depth: Its blocks.
        heads: Of its attention.
        patch: Side of a patch, pixels.
        side: Rows and columns of its position embeddings.
        channels: Length of an embedding.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    side: int = 14
    channels: int = 512


class MaskClip(NetworkEncoder):
    """512 channels per patch of 16 pixels, from CLIP ViT-B/16; nothing of it was trained to segment.

    Features keep their length; their direction is what words are compared with.
    """

    known_options: ClassVar[Mapping[str, Option]] = {
        "pretrained": Option(one_of(*VIT_B_16), "openai", f"whose CLIP: {' or '.join(VIT_B_16)}"),
        **NetworkEncoder.known_options,
        "size": Option(whole_number, 768, "long side of the input in pixels"),
    }

    def __init__(
        self,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
        sizes: Sizes | None = None,
    ) -> None:
        """Reads the options, then the weights.

        Args:
            weights: A file of CLIP as open_clip names its tensors; None takes the published one.
            options: Option -> value.
            device: Where to compute.
            sizes: Of the image tower in the file; None: ViT-B/16.

        Raises:
            UserError: An option is wrong, or the weights are missing, damaged or of another model.
        """
        clip = VIT_B_16[read_options("maskclip", options or {}, self.known_options)["pretrained"]]
        self._sizes = sizes or Sizes()
        tower = _image_tower(self._sizes, clip.quick_gelu)
        super().__init__(
            Architecture("maskclip", tower, clip.weights, None, "open_clip"), weights, options, device
        )

    def _prepare(self, architecture: Architecture) -> None:
        self.channels = self._sizes.channels
        self.patch = self.stride = self._sizes.patch
        self.sizing = (
            f"long side about {self.settings['size']} pixels, both sides whole multiples of {self.stride}"
        )

    def _load(self, path: Path) -> None:
        fill_tower(self.model, image_state(path), path, "an image tower of CLIP ViT-B/16")

    def _forward(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        tower = self.model
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([tower.class_embedding.view(1, 1, -1), patches], 1)
        tokens = tower.ln_pre(tokens + _positions(tower.positional_embedding, rows, columns))
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        width = tokens.shape[2]
        weight, bias = last.attn.in_proj_weight[-width:], last.attn.in_proj_bias[-width:]
        values = last.attn.out_proj(functional.linear(last.ln_1(tokens[:, 1:]), weight, bias))
        features: Tensor = tower.ln_post(values) @ tower.proj
        return features[0].T.reshape(-1, rows, columns)


def _image_tower(sizes: Sizes, quick_gelu: bool) -> Any:
    """A tower of open_clip without numbers."""
    transformer = import_with_torchvision("open_clip.transformer")
    with torch.device("meta"):
        return transformer.VisionTransformer(
            image_size=sizes.patch * sizes.side,
            patch_size=sizes.patch,
            width=sizes.width,
            layers=sizes.depth,
            heads=sizes.heads,
            mlp_ratio=4.0,
            output_dim=sizes.channels,
            act_layer=transformer.QuickGELU if quick_gelu else torch.nn.GELU,
        )


def _positions(embedding: Tensor, rows: int, columns: int) -> Tensor:  # [1 + side^2, W] -> [1 + r * c, W]
    """Learned positions, resized bicubically to the grid; that of the class token comes first."""
    side = math.isqrt(embedding.shape[0] - 1)
    grid = embedding[1:].T.reshape(1, -1, side, side)
    grid = functional.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:1], grid[0].flatten(1).T])
