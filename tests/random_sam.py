"""A small SAM with random weights, in a file of the official format."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from feature_gs.encoders import sam_weights
from feature_gs.encoders.sam_weights import SamModel
from feature_gs.encoders.timm_import import import_with_torchvision

NAME = "sam_vit_b"
SMALL = SamModel(sam_weights.MODELS[NAME].weights, width=16, depth=2, heads=1, global_blocks=(1,))


@cache
def random_sam(model: SamModel = SMALL) -> Any:
    """segment_anything's own `Sam`, its decoder that of all sizes, its image encoder that of `model`."""
    build: Any = import_with_torchvision("segment_anything.build_sam")
    torch.manual_seed(0)
    sam = build._build_sam(model.width, model.depth, model.heads, list(model.global_blocks))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # also what the package starts from zeros and ones
        for parameter in sam.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
        for (
            network
        ) in sam.mask_decoder.output_hypernetworks_mlps:  # masks and scores as large as trained ones
            network.layers[-1].weight.mul_(100)
        sam.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(0.1)
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(0.9)
    return sam


@cache
def sam_file(model: SamModel = SMALL) -> Path:
    """File with the weights of `random_sam`."""
    path = Path(mkdtemp(prefix="feature_gs_")) / "sam.pth"
    torch.save(random_sam(model).state_dict(), path)
    return path
