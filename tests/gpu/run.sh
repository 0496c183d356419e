#!/usr/bin/env bash
# All that only a machine with an NVIDIA GPU can show: make test-gpu
# compute-sanitizer is of the CUDA toolkit; `pip install gsplat==1.5.3` adds gsplat's figures to ours.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=.venv/bin/python
[[ -x $python ]] || python=python3
"$python" -c 'import sys; from feature_gs.rasterizer.device import why_no_cuda; sys.exit(why_no_cuda() or None)'

echo '--- the whole suite, its ops on the GPU'
FEATURE_GS_KERNELS=cuda "$python" -m pytest -q --ignore-glob='*/test_cuda*' tests
echo '--- the GPU beside the CPU, whole trainings there, several GPUs'
"$python" -m pytest -q tests/test_cuda.py
"$python" -m pytest -q tests/test_{ops,cells}_contract.py -k cuda
echo '--- speed and memory'
mkdir -p build
"$python" benchmarks/gpu.py --json build/gpu.json "$@"
ops=(tests/test_{project,intersect,rasterize,cells,ssim}.py)
# Our kernels only, and not what torch tries out when it starts.
for options in 'memcheck --report-api-errors no' racecheck; do
  echo "--- compute-sanitizer $options"
  # shellcheck disable=SC2206
  sanitized=(compute-sanitizer --tool $options --kernel-name kernel_substring=fgs --error-exitcode 1 "$python" -m pytest -q)
  "${sanitized[@]}" tests/test_cuda.py -k 'picture or neighbours'  # on tensor cores
  FEATURE_GS_KERNELS=cuda "${sanitized[@]}" "${ops[@]}"
done
