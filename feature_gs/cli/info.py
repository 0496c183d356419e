"""`feature-gs info`: versions, backend, and what is missing for what."""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

import torch

from feature_gs import __version__

# Import name: (name at the registry, what needs it).
_OPTIONAL = {
    "imageio_ffmpeg": ("imageio[ffmpeg]", "videos"),
    "torchmetrics": ("torchmetrics", "LPIPS"),
}


def main(argv: list[str] | None = None) -> int:
    """Prints what is there and what is missing; heavy packages are looked up, not imported."""
    argparse.ArgumentParser(prog="feature-gs info", description=main.__doc__).parse_args(argv)
    build = build_info()
    facts = {
        "feature_gs": __version__,
        "backend": _backend(build),
        "SIMD": build["simd"] if build else "-",
        "compiler": build["compiler"] if build else "-",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    for name, value in facts.items():
        print(f"{name:<12}{value}")
    lacks = missing(build)
    print("\nMissing:" if lacks else "\nNothing is missing.")
    for what, mend in lacks:
        print(f"  {what}\n      {mend}")
    return 0


def build_info() -> dict[str, Any] | None:
    """What the compiled core says of itself (cuda, architectures, simd, compiler); None without one."""
    if importlib.util.find_spec("feature_gs._C") is None:
        return None
    return dict(importlib.import_module("feature_gs._C").build_info())


def missing(build: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Pairs of (what is missing for what, how to get it), the gravest first."""
    lacks = []
    if build is None:
        lacks.append(
            (
                "the compiled core: everything that renders",
                "pip install -e . --no-build-isolation, or make demo",
            )
        )
    elif not build["cuda"]:
        lacks.append(("CUDA kernels: training and rendering on a GPU (the CPU does it too)", _cuda_hint()))
    for module, (package, purpose) in _OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            lacks.append((f"{package}: {purpose}", f"pip install '{package}'"))
    if build is not None:
        lacks += _missing_weights()
    return lacks


def _backend(build: dict[str, Any] | None) -> str:
    if build is None:
        return "not built"
    if not build["cuda"]:
        return "cpu"
    return f"cpu and cuda ({build['architectures']})"


def _cuda_hint() -> str:
    if torch.version.cuda is None:
        return "install a CUDA build of torch and nvcc, then build again"
    return f"install nvcc {torch.version.cuda}, then FEATURE_GS_CUDA=1 pip install -e . --no-build-isolation"


def _missing_weights() -> list[tuple[str, str]]:
    from feature_gs.evaluation.lpips import WEIGHTS_URL, default_weights  # needs the compiled core

    path = default_weights()
    if path.is_file():
        return []
    return [("VGG-16 weights: LPIPS in `feature-gs evaluate`", f"{WEIGHTS_URL}\n      into {path.parent}")]
