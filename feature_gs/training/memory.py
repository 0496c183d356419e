"""Memory: kept from one step to the next, and what to do where it does not suffice."""

import ctypes
import sys
from pathlib import Path

import torch

from feature_gs.training.config import TrainConfig

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_KEEP = 1 << 30  # bytes at the top of the heap


def keep_freed_memory() -> None:
    """Tells glibc's allocator not to hand freed memory back to the system at every step.

    Gradients of some megabytes are allocated and freed each step. By default each of them is fresh memory
    from the system, whose pages are cleared one by one at first touch. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEEP)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed. What the core asks torch for fails without torch's name for it."""
    said = str(error)
    of_the_core = "API call failed" in said and ("new_empty" in said or "empty_like" in said)
    return isinstance(error, torch.OutOfMemoryError) or of_the_core or "can't allocate memory" in said


def advice_on_memory(
    config: TrainConfig, device: torch.device, iteration: int, gaussians: int, folder: Path
) -> str:
    """The message to stop with when memory is full: what takes it, and what to lower.

    Args:
        config: The settings of the run.
        device: Whose memory.
        iteration: Steps done.
        gaussians: How many there are.
        folder: The model folder.
    """
    flags = [f"--densify_grad_threshold {2 * (config.densify_grad_threshold or 2e-4):g} (fewer Gaussians)"]
    if config.strategy == "mcmc":
        flags = [f"--cap_max {max(1, gaussians // 2)} (fewer Gaussians)"]
    flags += ["-r 2 (smaller photos)"]
    if config.data_device == "cuda":
        flags += ["--data_device cpu (photos stay in the main memory)"]
    if config.foundation_model:
        channels = max(1, (config.feature_dim or 64) // 4)
        flags += [f"--decoder linear --feature_dim {channels} (fewer channels)"]
    memory, elsewhere = "memory", ""
    if device.type == "cuda":
        memory, elsewhere = "GPU's memory", " FEATURE_GS_DEVICE=cpu trains on the CPU."
    return (
        f"iteration {iteration + 1}: the {memory} does not suffice for {gaussians:,} Gaussians.\n"
        f"  Lower what it has to hold: {', '.join(flags)}.\n"
        f"  Checkpoints in {folder / 'checkpoints'} are whole; --resume goes on from the newest."
        f"{elsewhere}"
    )
