#!/usr/bin/env bash
# Runs the tests of the compiled ops under AddressSanitizer and UBSan: make sanitize
# Builds into build/sanitized and leaves the installed extension alone. Arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

python=$root/.venv/bin/python
[[ -x $python ]] || python=python
package=$root/build/sanitized/package
compiler=${CXX:-c++}

mkdir -p "$package"
FEATURE_GS_SANITIZE=1 FEATURE_GS_CUDA=0 "$python" setup.py -q build_ext --build-lib "$package"
# The package as it is in the source tree, but with the extension just built.
find feature_gs -name '*.py' -exec cp --parents {} "$package" \;

preload=
for library in libasan.so libubsan.so libstdc++.so; do
  preload+="$("$compiler" -print-file-name=$library) "
done
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH=$package PYTHONDONTWRITEBYTECODE=1

tests=()
for topic in project intersect rasterize cells cells_contract ssim ops_contract; do
  tests+=("$root/tests/test_$topic.py")
done
cd "$package" # before PYTHONPATH comes the current folder
LD_PRELOAD=$preload "$python" -c '
import sys
import torch
from feature_gs import _C
sys.exit(0 if "build/sanitized" in _C.__file__ else "the tests would run without the sanitizers")'
for simd in avx512 avx2 generic; do
  echo "--- instructions: at most $simd"
  FEATURE_GS_SIMD=$simd LD_PRELOAD=$preload \
    "$python" -m pytest -q -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider "${tests[@]}" "$@"
done
