"""The CUDA kernels as ops on CPU tensors, run by the emulator of this folder."""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cuda_host.build import ROOT, build, op_sources

IN_ORDER, BACKWARDS, SHUFFLED = 0, 1, 2  # and on: other shuffles


class Emulated:
    """The emulated ops, and how they are run.

    `emulated.ops.ssim(...)` is `torch.ops.feature_gs.ssim(...)` through its CUDA kernel.
    """

    def __init__(self, library: Path):
        torch.ops.load_library(library)
        self.ops: Any = torch.ops.feature_gs_emulated
        self._library = ctypes.CDLL(str(library))
        self._library.cuda_host_set_order.argtypes = [ctypes.c_uint64]

    @contextmanager
    def order(self, order: int) -> Iterator[None]:
        """Runs the threads of a block, and the blocks, in another order than others do."""
        self._library.cuda_host_set_order(order)
        yield
        self._library.cuda_host_set_order(SHUFFLED)

    @contextmanager
    def capability(self, capability: int) -> Iterator[None]:
        """Runs as on a device of this compute capability, e.g. 75."""
        self._library.cuda_host_set_capability(capability)
        yield
        self._library.cuda_host_set_capability(90)

    def waits(self) -> int:
        """How often the host has waited for the device since this was last asked."""
        return int(self._library.cuda_host_waits())


SANITIZE = os.environ.get("FEATURE_GS_EMULATED_SANITIZE", "")  # see tests/sanitize/cuda.sh


@functools.cache
def load() -> Emulated:
    """Compiles what changed, and loads it.

    The environment variable FEATURE_GS_EMULATED_SOURCES, e.g. "csrc/ssim/ssim.cu csrc/cells/cells.cu", leaves
    out all other sources.
    """
    names = os.environ.get("FEATURE_GS_EMULATED_SOURCES")
    sources = op_sources([ROOT / name for name in names.split()] if names else None)
    return Emulated(build(sources, sanitize=SANITIZE))
