"""Other kernels in the place of the CPU's, so that every test tests them as well.

FEATURE_GS_KERNELS=cuda python -m pytest                                the GPU's: inputs go there and back
FEATURE_GS_KERNELS=emulated python -m pytest tests/test_project.py ...  the same sources, compiled for the CPU

Without tensor cores, since tests ask for the precision of float32.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cuda_host.emulated import load
from torch import Tensor
from torch.utils import _pytree as pytree

from feature_gs.rasterizer import ops as _registrations  # noqa: F401  # the ops exist once it is imported

OPS = (
    *("project", "project_backward", "intersect", "rasterize", "rasterize_backward", "ssim", "ssim_backward"),
    *("blend_cells", "gather_cells", "accumulate_cells", "cell_products"),
)
TENSOR_CORES = {"rasterize": -1, "rasterize_backward": -3}  # which argument asks for them


@contextmanager
def kernels(kind: str) -> Iterator[None]:
    """Replaces the CPU's kernels of all ops while the context lasts.

    Args:
        kind: "cuda" or "emulated".
    """
    library = torch.library.Library("feature_gs", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are kernels already
        for name in OPS:
            kernel = _on_a_gpu(name) if kind == "cuda" else _emulated(name)
            library.impl(name, kernel, "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def _emulated(name: str) -> Callable[..., Any]:
    op = getattr(load().ops, name)
    return lambda *given: op(*_exact(name, given))


def _exact(name: str, given: tuple[Any, ...]) -> list[Any]:
    """The arguments of an op without tensor cores."""
    arguments = list(given)
    if name in TENSOR_CORES:
        arguments[TENSOR_CORES[name]] = False
    return arguments


def _on_a_gpu(name: str) -> Callable[..., Any]:
    """The op with its inputs brought to the GPU and everything it gives or changes brought back."""
    op = getattr(torch.ops.feature_gs, name)

    def run(*given: Any) -> Any:
        there = [value.cuda() if isinstance(value, Tensor) else value for value in _exact(name, given)]
        result = pytree.tree_map_only(Tensor, lambda tensor: tensor.cpu(), op(*there))
        if name == "accumulate_cells":
            given[0].copy_(there[0])
        return result

    return run
