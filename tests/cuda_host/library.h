// Included before everything else by build.py: what a .cu file registers for CUDA in feature_gs becomes an op for the
// CPU in feature_gs_emulated.
#pragma once

#include <torch/csrc/stable/library.h>

#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(ns, m) STABLE_TORCH_LIBRARY_FRAGMENT(feature_gs_emulated, m)
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, k, m) _STABLE_TORCH_LIBRARY_IMPL(feature_gs_emulated, CPU, m, C10_UID)
