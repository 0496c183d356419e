"""Builds feature_gs._C, the compiled core. All other metadata is in pyproject.toml.

CUDA sources are built when nvcc and a CUDA torch are both present. FEATURE_GS_CUDA=1 insists (build hosts
need no
GPU), FEATURE_GS_CUDA=0 leaves them out. FEATURE_GS_SANITIZE=1 builds for AddressSanitizer and UBSan.
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths

ROOT = Path(__file__).parent
TORCH_TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11, the oldest supported


def use_cuda(sources: list[str]) -> bool:
    """Decides whether the CUDA sources are built, and says what was chosen and why."""
    wish = os.environ.get("FEATURE_GS_CUDA", "")
    has_nvcc = CUDA_HOME is not None and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")) is not None
    has_torch = torch.version.cuda is not None
    found = f"nvcc {'found' if has_nvcc else 'not found'}, torch {torch.__version__}"
    if wish not in ("", "0", "1"):
        sys.exit(f"feature_gs: FEATURE_GS_CUDA must be 0 or 1, got {wish!r}")
    if not sources:
        chosen, why = False, "this version has no CUDA sources"
    elif wish == "0":
        chosen, why = False, "FEATURE_GS_CUDA=0"
    elif wish == "1" and not (has_nvcc and has_torch):
        sys.exit(f"feature_gs: FEATURE_GS_CUDA=1 needs nvcc and a CUDA build of torch ({found})")
    else:
        chosen, why = has_nvcc and has_torch, found
    print(f"feature_gs: building {'CPU and CUDA' if chosen else 'CPU'} kernels ({why})", flush=True)
    return chosen


def extension() -> Extension:
    """The extension module with its sources and flags."""
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cpp"))
    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cu"))
    cuda = use_cuda(cuda_sources)
    cxx = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
    cxx += ["-fno-math-errno", "-fno-trapping-math"]
    cxx += [
        flag for path in include_paths() for flag in ("-isystem", path)
    ]  # no warnings from torch's headers
    link: list[str] = []
    if os.environ.get("FEATURE_GS_SANITIZE") == "1":
        sanitize = [
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
        ]
        cxx += [*sanitize, "-g1", "-O1"]  # line numbers only: full symbols take minutes
        link += sanitize
    else:
        cxx.append("-g0")  # Python's own flags ask for debug symbols, ten times the size of the code
    if not cuda:
        return CppExtension("feature_gs._C", sources, extra_compile_args={"cxx": cxx}, extra_link_args=link)
    flags = {
        "cxx": [*cxx, "-DFEATURE_GS_CUDA", "-DUSE_CUDA"],
        "nvcc": ["-O3", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-DUSE_CUDA"],
    }
    return CUDAExtension(
        "feature_gs._C", sources + cuda_sources, extra_compile_args=flags, extra_link_args=link
    )


class Build(BuildExtension):
    """Keeps the object files in build/, so that an editable install compiles only what changed."""

    def finalize_options(self) -> None:
        """Sets the folder of the object files, one of its own for sanitized ones."""
        super().finalize_options()
        sanitized = os.environ.get("FEATURE_GS_SANITIZE") == "1"
        self.build_temp = str(ROOT / "build" / ("sanitized" if sanitized else "objects"))


setup(ext_modules=[extension()], cmdclass={"build_ext": Build})
