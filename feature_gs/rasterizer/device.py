"""Where the compiled core can work on this machine."""

import torch

from feature_gs.rasterizer.ops import build_info


def compute_device() -> torch.device:
    """The current CUDA device where there is one and the core was built for it, else the CPU.

    `CUDA_VISIBLE_DEVICES=` (empty) keeps a program on the CPU, `CUDA_VISIBLE_DEVICES=1` on the second GPU.
    """
    return torch.device("cuda" if build_info()["cuda"] and torch.cuda.is_available() else "cpu")
