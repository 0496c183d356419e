"""Fixtures shared by all tests."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# Tests say themselves what they run on a GPU (test_cuda.py); all others are the CPU's, wherever they run.
os.environ["FEATURE_GS_DEVICE"] = "cpu"

import feature_gs  # noqa: F401  # isort: skip  before torch, which reads the environment when it loads
import cuda_host.emulated
import pytest
import torch
from cuda_host.emulated import SHUFFLED, Emulated
from kernels import kernels
from torch import Tensor
from torch.utils import _pytree as pytree

from feature_gs.rasterizer.device import why_no_cuda


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public test scenes beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"test scenes are not at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def chosen_kernels() -> Iterator[None]:
    """Those that FEATURE_GS_KERNELS names, see kernels.py; the CPU's own without it."""
    kind = os.environ.get("FEATURE_GS_KERNELS", "")
    with kernels(kind) if kind else nullcontext():
        yield


@pytest.fixture
def checked_lists() -> None:
    """Leaves out tests of what only the CPU's kernels do: looking at every number of a list."""
    if os.environ.get("FEATURE_GS_KERNELS"):
        pytest.skip("on a GPU, where looking would mean waiting, what leads outside memory is skipped")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one."""
    if request.param == "cuda" and why_no_cuda():
        pytest.skip(f"no GPU to test: {why_no_cuda()}")
    return torch.device(request.param)


@pytest.fixture
def opcheck(device: torch.device) -> Callable[..., Any]:
    """Torch's opcheck of an op on each device: called with the op and arguments on the CPU."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

    return lambda op, args: torch.library.opcheck(op, pytree.tree_map_only(Tensor, moved, args))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch on one thread, where many small operations are fastest, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def emulated() -> Iterator[Emulated]:
    """The CUDA kernels on CPU tensors, threads in shuffled order; memory that nothing wrote holds NaN."""
    emulated = cuda_host.emulated.load()
    filled = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills what torch.empty() gives
    with emulated.order(SHUFFLED):
        yield emulated
    torch.use_deterministic_algorithms(filled)
