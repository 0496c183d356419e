"""Builds feature_gs._C, the compiled core. All other metadata is in pyproject.toml.

CUDA sources are built when nvcc and a CUDA torch are both present. FEATURE_GS_CUDA=1 insists (build hosts
need no GPU), FEATURE_GS_CUDA=0 leaves them out. They are built for the architectures in TORCH_CUDA_ARCH_LIST,
e.g. "8.0;9.0+PTX"; without it for the GPUs of this machine; without those for all that this nvcc knows of
CUDA_ARCHITECTURES. FEATURE_GS_SANITIZE=1 builds for AddressSanitizer and UBSan.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths

ROOT = Path(__file__).parent
TORCH_TARGET = "0x020b000000000000"  # the stable ABI of torch 2.11, the oldest supported
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# float32 on a GPU: denormals are 0, division and square root are off by one or two units in the last place
NVCC_FLAGS = (
    *("-ftz=true", "-prec-div=false", "-prec-sqrt=false"),
    *("-O3", "-std=c++20", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-DUSE_CUDA"),
    "-Xcompiler=-Wall,-Wextra,-fvisibility=hidden",
)


def find_nvcc() -> str | None:
    """The compiler of the CUDA toolkit that torch would use."""
    return CUDA_HOME and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin"))


def use_cuda(sources: list[str]) -> bool:
    """Decides whether the CUDA sources are built, and says what was chosen and why."""
    wish = os.environ.get("FEATURE_GS_CUDA", "")
    has_nvcc = find_nvcc() is not None
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


def choose_architectures() -> str:
    """The GPUs to build for, as torch spells them; says which and leaves them where torch looks for them."""
    wish, nvcc = os.environ.get("TORCH_CUDA_ARCH_LIST"), find_nvcc()
    found = sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
    if wish:
        chosen, why = wish, "TORCH_CUDA_ARCH_LIST"
    elif found:
        chosen, why = ";".join(f"{major}.{minor}" for major, minor in found), "the GPUs of this machine"
    else:
        known = subprocess.run(
            [nvcc or "nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True
        )
        codes = known.stdout.split()
        names = [name for name in CUDA_ARCHITECTURES if f"sm_{name.replace('.', '')}" in codes]
        chosen, why = ";".join(names) + "+PTX", "no GPU here: all"
    os.environ["TORCH_CUDA_ARCH_LIST"] = chosen
    print(f"feature_gs: building for compute capability {chosen} ({why})", flush=True)
    return chosen


def extension() -> Extension:
    """The extension module with its sources and flags."""
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cpp"))
    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cu"))
    cuda = use_cuda(cuda_sources)
    cxx = ["-O3", "-std=c++20", "-Wall", "-Wextra", "-fvisibility=hidden"]
    cxx += [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-fno-math-errno", "-fno-trapping-math"]
    quiet = [
        flag for path in include_paths() for flag in ("-isystem", path)
    ]  # no warnings from torch's headers
    cxx += quiet
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
        "cxx": [*cxx, "-DFEATURE_GS_CUDA", f'-DFEATURE_GS_CUDA_ARCHITECTURES="{choose_architectures()}"'],
        "nvcc": [*NVCC_FLAGS, *quiet],
    }
    return CUDAExtension(
        "feature_gs._C", sources + cuda_sources, extra_compile_args=flags, extra_link_args=link
    )


def apart(sources: Sequence[str], objects: Sequence[str]) -> list[str]:
    """The object files of `sources`, where ssim.cpp and ssim.cu would share one."""
    return [
        f"{Path(name).with_suffix('')}.cu.o" if source.endswith(".cu") else name
        for source, name in zip(sources, objects, strict=True)
    ]


class Build(BuildExtension):
    """Keeps the object files in build/, so that an editable install compiles only what changed."""

    def finalize_options(self) -> None:
        """Sets the folder of the object files, one of its own for sanitized ones."""
        super().finalize_options()
        sanitized = os.environ.get("FEATURE_GS_SANITIZE") == "1"
        self.build_temp = str(ROOT / "build" / ("sanitized" if sanitized else "objects"))

    def build_extensions(self) -> None:
        """Builds, with object files named apart."""
        name_objects = self.compiler.object_filenames

        def object_filenames(sources: Sequence[str], *args: Any, **options: Any) -> list[str]:
            return apart(sources, name_objects(sources, *args, **options))

        self.compiler.object_filenames = object_filenames
        super().build_extensions()


if __name__ == "__main__":
    setup(ext_modules=[extension()], cmdclass={"build_ext": Build})
