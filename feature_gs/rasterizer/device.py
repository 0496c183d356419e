"""Where the compiled core and networks can work on this machine."""

import os

import torch

from feature_gs.errors import UserError
from feature_gs.rasterizer.ops import build_info

VARIABLE = "FEATURE_GS_DEVICE"


def compute_device() -> torch.device:
    """The current CUDA device where there is one and the core was built for it, else the CPU.

    The environment variable FEATURE_GS_DEVICE=cpu or cuda decides otherwise; CUDA_VISIBLE_DEVICES says which
    of several GPUs.

    Raises:
        UserError: FEATURE_GS_DEVICE names something else, or a GPU that cannot be used; says why.
    """
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "cpu", "cuda"):
        raise UserError(f"{VARIABLE} must be cpu or cuda, got {wish!r}")
    lacking = why_no_cuda()
    if wish == "cuda" and lacking:
        raise UserError(f"{VARIABLE}=cuda: {lacking}. `feature-gs info` shows what was built.")
    return torch.device("cpu" if wish == "cpu" or lacking else "cuda")


def network_device() -> torch.device:
    """As `compute_device`, for networks, which need no kernels of the core."""
    if torch.cuda.is_available() and os.environ.get(VARIABLE) != "cpu":
        return torch.device("cuda")
    return torch.device("cpu")


def why_no_cuda() -> str:
    """What keeps the core from a GPU; empty where nothing does."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return "" if build_info()["cuda"] else "this build has no CUDA kernels"
