"""Compiles the CUDA sources with nvcc, for which no GPU is needed, and lists what every kernel takes of one.

python tests/cuda_compile.py                         # all of csrc/**/*.cu, warnings are errors
python tests/cuda_compile.py csrc/ssim/ssim.cu       # some of them
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.utils.cpp_extension import COMMON_NVCC_FLAGS, include_paths

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("75", "80", "90", "120")


def flags() -> list[str]:
    """Those that setup.py builds with, and warnings as errors."""
    settings = runpy.run_path(str(ROOT / "setup.py"), run_name="settings")
    return [
        *COMMON_NVCC_FLAGS,
        *settings["NVCC_FLAGS"],
        *("-Werror=all-warnings", "-Xcompiler=-Werror,-fPIC", "-Xptxas=-v"),
        *(flag for path in include_paths() for flag in ("-isystem", path)),
        *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES),
    ]


def compile_source(nvcc: str, source: Path, folder: Path) -> tuple[Path, int, str]:
    """Compiles one file; its path, nvcc's exit status and output."""
    target = folder / (source.name + ".o")
    command = [nvcc, *flags(), "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    return source, done.returncode, done.stdout + done.stderr


def resources(output: str) -> dict[str, dict[str, str]]:
    """By kernel, then by architecture, what ptxas says: "registers/KB of shared memory +bytes spilled"."""
    found: dict[str, dict[str, str]] = {}
    entry = re.compile(
        r"Compiling entry function '(\S+)' for 'sm_(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
        re.DOTALL,
    )
    for name, arch, stored, loaded, registers, shared in entry.findall(output):
        spilled = int(stored) + int(loaded)
        found.setdefault(name, {})[arch] = f"{registers}/{int(shared or 0) / 1024:.1f}" + (
            f" +{spilled} B" if spilled else ""
        )
    return found


def readable(names: Sequence[str]) -> list[str]:
    """Kernels as the sources spell them, without their parameters."""
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    shown = []
    for name in done.stdout.splitlines():
        for noise in (
            r"\(anonymous namespace\)::|_NV_ANON_NAMESPACE::|_GLOBAL__N__\w+::",
            r"^void ",
            r"fgs::",
            r"\(\w+\)(?=\d)",  # casts of template arguments to their enumeration
        ):
            name = re.sub(noise, "", name)
        shown.append(re.sub(r"\(.*", "", name).replace("portable::", ""))
    return shown


def print_table(source: Path, found: dict[str, dict[str, str]]) -> int:
    """Prints the kernels of a file that are its own; how many of them spill registers."""
    own = {name: taken for name, taken in found.items() if "3fgs" in name}
    print(f"\n{source.relative_to(ROOT)}: registers/KB of shared memory, + bytes of registers spilled")
    print(f"  {'kernel':<64}" + "".join(f"{'sm_' + arch:>17}" for arch in ARCHITECTURES))
    for name, shown in sorted(zip(own, readable(list(own)), strict=True), key=lambda pair: pair[1]):
        print(f"  {shown[:63]:<64}" + "".join(f"{own[name].get(arch, '-'):>17}" for arch in ARCHITECTURES))
    return sum(any("+" in text for text in taken.values()) for taken in own.values())


def main(sources: Sequence[Path]) -> int:
    """Compiles; the exit status."""
    nvcc = shutil.which("nvcc", path=f"{os.environ['PATH']}{os.pathsep}/usr/local/cuda/bin")
    if nvcc is None:
        print("nvcc was not found: the CUDA sources were NOT compiled for a GPU on this machine.")
        return 0
    failed, spilling = [], 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, status, output in pool.map(lambda s: compile_source(nvcc, s, Path(folder)), sources):
            if status:
                failed.append(source)
                print(f"\n{source.relative_to(ROOT)} does not compile:\n{output}")
            else:
                spilling += print_table(source, resources(output))
    print(f"\n{len(sources)} files, {len(failed)} failed, {spilling} kernels spill registers")
    return 1 if failed or not sources else 0


if __name__ == "__main__":
    chosen = [Path(argument).resolve() for argument in sys.argv[1:]]
    sys.exit(main(chosen or sorted((ROOT / "csrc").rglob("*.cu"))))
