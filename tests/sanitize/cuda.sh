#!/usr/bin/env bash
# Runs the CUDA kernels, compiled for the CPU, under AddressSanitizer and UBSan: make sanitize-cuda
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
[[ -x $python ]] || python=python
compiler=${CXX:-c++}

"$python" tests/cuda_host/build.py --sanitize
preload=
for library in libasan.so libubsan.so libstdc++.so; do
  preload+="$("$compiler" -print-file-name=$library) "
done
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 FEATURE_GS_EMULATED_SANITIZE=1

# A kernel that writes behind its shared memory must be caught, or nothing below means anything.
if LD_PRELOAD=$preload "$python" - <<'EOF' 2>build/sanitizer.log; then
import ctypes, sys
sys.path.insert(0, "tests")
from cuda_host.build import HOST, build
trials = ctypes.CDLL(str(build([HOST / "trials.cu"], sanitize=True)))
numbers = (ctypes.c_float * 64)()
trials.trial_outside_shared_memory(numbers, numbers, 1)
EOF
  echo 'the sanitizer did not see a write outside shared memory' >&2
  exit 1
fi
grep -q 'global-buffer-overflow' build/sanitizer.log || { cat build/sanitizer.log >&2; exit 1; }

LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider tests/test_cuda_host_*.py "$@"
