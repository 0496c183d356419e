"""SAM's prompt encoder and mask decoder in PyTorch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from feature_gs.encoders.sam_weights import CELLS, CHANNELS, SIDE, load_parts
from feature_gs.encoders.timm_import import import_with_torchvision


class SamNetwork:
    """Prompts and features in, masks out, through the segment_anything package.

    Attributes:
        sam: The package's `Sam`, whose image encoder is an empty stand-in.
        prompts: How many prompts are best asked at a time; memory grows with them, 60 MB each.
    """

    def __init__(self, name: str, weights: Path | None, device: torch.device | str = "cpu") -> None:
        """Loads the light part of a checkpoint.

        Args:
            name: One of `sam_weights.MODELS`.
            weights: The checkpoint; None takes the one in torch's hub folder.
            device: Where to compute.

        Raises:
            UserError: The checkpoint is missing or wrong.
        """
        modeling: Any = import_with_torchvision("segment_anything.modeling")
        with torch.device("meta"):
            prompt_encoder = modeling.PromptEncoder(
                embed_dim=CHANNELS,
                image_embedding_size=(CELLS, CELLS),
                input_image_size=(SIDE, SIDE),
                mask_in_chans=16,
            )
            mask_decoder = modeling.MaskDecoder(
                num_multimask_outputs=3,
                transformer=modeling.TwoWayTransformer(
                    depth=2, embedding_dim=CHANNELS, mlp_dim=2048, num_heads=8
                ),
                transformer_dim=CHANNELS,
            )
        load_parts(name, weights, {"prompt_encoder": prompt_encoder, "mask_decoder": mask_decoder})
        self.sam: Any = modeling.Sam(_NoImageEncoder(), prompt_encoder, mask_decoder)
        self.sam.eval().requires_grad_(False).to(device)
        self.prompts = 4 if self.sam.device.type == "cpu" else 64

    def __call__(
        self,
        embedding: Tensor,  # [1, 256, 64, 64]
        points: Tensor | None,  # [B, n, 2]
        labels: Tensor | None,  # [B, n]
        boxes: Tensor | None,  # [B, 4]
        masks: Tensor | None,  # [B, 1, 256, 256]
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Masks of B prompts.

        Args:
            embedding: SAM's whole embedding of the picture.
            points: Pixels of SAM's input.
            labels: 1 or 0 per point.
            boxes: Pixels of SAM's input.
            masks: Logits of earlier masks.
            multimask: Three masks per prompt instead of one.

        Returns:
            Logits [B, k, 256, 256] and scores [B, k], k 3 or 1.
        """
        device = self.sam.device

        def there(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        asked = None if points is None else (there(points), there(labels))
        sparse, dense = self.sam.prompt_encoder(points=asked, boxes=there(boxes), masks=there(masks))
        logits, scores = self.sam.mask_decoder(
            image_embeddings=embedding.to(device),
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits, scores


class _NoImageEncoder(nn.Module):
    """Tells the package the size of the input, and encodes nothing."""

    img_size = SIDE
