"""Networks of timm with random weights in files, so that encoders can be tested without a download."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from feature_gs.encoders.timm_import import import_timm

TINY = "test_vit"  # 64 channels, 6 blocks, patches of 16 pixels


def random_model(name: str) -> Any:
    """The same random network at every call, of any input size where timm can."""
    torch.manual_seed(0)
    timm = import_timm()
    try:
        model = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        model = timm.create_model(name, num_classes=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # also where timm starts from zeros or ones
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.eval()


@cache
def weights_of(name: str) -> Path:
    """File with the weights of `random_model(name)`."""
    path = Path(mkdtemp(prefix="feature_gs_")) / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in random_model(name).state_dict().items()}, path)
    return path


def random_photo(width: int, height: int, seed: int = 0) -> Tensor:  # [height, width, 3]
    """Coloured noise, smooth enough to survive resizing. uint8"""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (fine[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
