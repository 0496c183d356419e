#!/usr/bin/env bash
# Runs the CUDA kernels, compiled for the CPU, under AddressSanitizer and UBSan, which see what lies outside memory, and
# under ThreadSanitizer, which sees threads of a block that race: make sanitize-cuda
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
[[ -x $python ]] || python=python
compiler=${CXX:-c++}
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS='ignore_noninstrumented_modules=1 history_size=0'

# $1: what build.py calls the sanitizer; $2: a kernel of trials.cu that it must object to, or nothing below means
# anything; $3: in these words; $4: the libraries to load first.
run_under() {
  local library preload= log=build/sanitizer.log
  echo "--- under the $1 sanitizer"
  "$python" tests/cuda_host/build.py "--sanitize=$1" >/dev/null
  for library in $4; do preload+="$("$compiler" -print-file-name=$library) "; done
  export FEATURE_GS_EMULATED_SANITIZE=$1
  if LD_PRELOAD=$preload "$python" - "$1" "$2" >$log 2>&1 <<'EOF'; then
import ctypes, sys
sys.path.insert(0, "tests")
from cuda_host.build import HOST, build
trials = ctypes.CDLL(str(build([HOST / "trials.cu"], sanitize=sys.argv[1])))
numbers = (ctypes.c_float * 64)()
getattr(trials, "trial_" + sys.argv[2])(numbers, numbers, 1)
EOF
    echo "it did not object to $2" >&2
    exit 1
  fi
  grep -q "$3" $log || { cat $log >&2; exit 1; }
  # --capture=sys: what a sanitizer says must be seen
  LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider --capture=sys tests/test_cuda_host_*.py "${@:5}"
}

run_under address outside_shared_memory global-buffer-overflow 'libasan.so libubsan.so libstdc++.so' "$@"
# One test wants a race to be found by the emulator itself; another names one slot twice, which is a race by intent.
run_under thread reverse_without_barrier 'data race' libtsan.so \
  --deselect tests/test_cuda_host_emulator.py::test_missing_barrier_shows \
  --deselect tests/test_cuda_host_rasterize.py::test_lists_that_lead_outside_memory_are_not_followed "$@"
