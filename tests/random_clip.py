"""A small CLIP of open_clip with random numbers, in a file."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file

from feature_gs.encoders.maskclip import Sizes
from feature_gs.encoders.timm_import import import_with_torchvision

SMALL = Sizes(width=64, depth=3, heads=1, patch=16, side=4, channels=24)


@cache
def random_clip(quick_gelu: bool) -> Any:
    """Image tower of `SMALL`, text tower of two heads and two blocks."""
    import_with_torchvision("open_clip")
    from open_clip.model import CLIP

    torch.manual_seed(0)
    image = {"image_size": 64, "patch_size": 16, "width": 64, "layers": 3, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
    model = CLIP(SMALL.channels, image, text, quick_gelu=quick_gelu).eval().requires_grad_(False)
    for parameter in model.parameters():  # also where open_clip starts from zeros or ones
        parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    return model


@cache
def clip_file(quick_gelu: bool = True) -> Path:
    """The weights of `random_clip`."""
    path = Path(mkdtemp(prefix="feature_gs_")) / "clip.safetensors"
    save_file(
        {name: value.contiguous() for name, value in random_clip(quick_gelu).state_dict().items()}, path
    )
    return path
