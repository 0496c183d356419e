"""Compiles the CUDA sources with the host's C++ compiler into ops that run on the CPU.

    python tests/cuda_host/build.py                        # all of csrc/**/*.cu
    python tests/cuda_host/build.py csrc/ssim/ssim.cu      # some of them
    python tests/cuda_host/build.py --sanitize=address     # under AddressSanitizer and UBSan
    python tests/cuda_host/build.py --sanitize=thread      # under ThreadSanitizer

Prints the path of the library; loading it registers `torch.ops.feature_gs_emulated`. Without names of
sources, the kernels that test the emulator itself are compiled as well.
"""

import fcntl
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "tests" / "cuda_host"
SANITIZE = {
    "": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread", "-fno-omit-frame-pointer"],  # finds threads that race
}


def op_sources(kernels: Sequence[Path] | None = None) -> list[Path]:
    """The sources of the ops: their table and their CUDA kernels, all of them by default."""
    if kernels is None:
        kernels = sorted((ROOT / "csrc").rglob("*.cu"))
    return [ROOT / "csrc" / "ops.cpp", *(path.resolve() for path in kernels)]


def compiler_flags() -> list[str]:
    """The flags every file is compiled with."""
    target = runpy.run_path(str(ROOT / "setup.py"), run_name="settings")["TORCH_TARGET"]
    return [
        *("-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
        *("-Wno-unknown-pragmas", "-DUSE_CUDA", f"-DTORCH_TARGET_VERSION={target}"),
        *(flag for path in include_paths() for flag in ("-isystem", path)),
        *("-I", str(HOST)),
    ]


def ninja_file(sources: Sequence[Path], folder: Path, library: Path, sanitize: str) -> str:
    """The rules that make `library`, with its object files in `folder`."""
    link = ["-shared", "-Wl,-Bsymbolic", *SANITIZE[sanitize]]
    # The emulator keeps the order of what ThreadSanitizer sees as threads; it is not watched itself.
    host = ["-DCUDA_HOST_THREAD_SANITIZER"] if sanitize == "thread" else SANITIZE[sanitize]
    torch_libraries = [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu"]
    lines = [
        f"flags = {' '.join(compiler_flags())}",
        f"cxx = {os.environ.get('CXX', 'c++')}",
        "rule compile",
        "  command = $cxx $flags $more -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx {' '.join(link)} $in {' '.join(torch_libraries)} -o $out",
    ]
    objects = []
    for source in (*sources, *sorted(HOST.glob("*.cpp"))):
        name = folder / (str(source.relative_to(ROOT)).replace("/", "-") + ".o")
        objects.append(str(name))
        lines.append(f"build {name}: compile {source}")
        is_host = source.parent == HOST and source.suffix == ".cpp"
        more = host if is_host else [*SANITIZE[sanitize], "-include", str(HOST / "library.h")]
        lines.append(f"  more = {' '.join(more)}")
    return "\n".join([*lines, f"build {library}: link {' '.join(objects)}", f"default {library}", ""])


def build(sources: Sequence[Path], *, sanitize: str = "") -> Path:
    """Compiles what is out of date.

    Args:
        sources: What is compiled, besides the emulator; `op_sources()` for the ops.
        sanitize: "address" for AddressSanitizer and UBSan, "thread" for ThreadSanitizer.

    Returns:
        The library.

    Raises:
        RuntimeError: The sources do not compile; with the compiler's messages.
    """
    folder = ROOT / "build" / f"emulated{'-' if sanitize else ''}{sanitize}"
    folder.mkdir(parents=True, exist_ok=True)
    which = hashlib.sha256("\n".join(map(str, sources)).encode()).hexdigest()[:8]
    library = folder / f"{which}.so"
    ninja = shutil.which("ninja", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert ninja is not None, "ninja is missing: pip install ninja"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs may start at once
        rules = folder / "build.ninja"
        rules.write_text(ninja_file(sources, folder, library, sanitize))
        done = subprocess.run([ninja, "-C", folder, "-f", rules, "--quiet"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the CUDA sources do not compile for the CPU:\n{done.stdout}{done.stderr}")
    return library


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    wish = next((argument for argument in sys.argv[1:] if argument.startswith("--sanitize=")), "=")
    print(build(op_sources(paths or None), sanitize=wish.partition("=")[2]))
    if not paths:
        print(build([HOST / "trials.cu"], sanitize=wish.partition("=")[2]))
