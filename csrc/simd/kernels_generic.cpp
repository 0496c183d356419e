// Kernels in plain C++, and the choice between the tables.
#define FGS_ISA generic

#include <cstdlib>
#include <cstring>

#include "make_kernels.h"
#include "pack_generic.h"

namespace fgs {

const Kernels<float> kGenericKernels = make_kernels<GenericPack<float, 8>>("generic");
const Kernels<double> kDoubleKernels = make_kernels<GenericPack<double, 8>>("generic");

namespace {

const Kernels<float>& choose() {
#if defined(__x86_64__)
  const char* wish = std::getenv("FEATURE_GS_SIMD");
  const bool generic = wish && std::strcmp(wish, "generic") == 0;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !generic;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      !(wish && std::strcmp(wish, "avx2") == 0);
  if (avx512) return kAvx512Kernels;
  if (avx2) return kAvx2Kernels;
#endif
  return kGenericKernels;
}

}  // namespace

const Kernels<float>& kernels(float) {
  static const Kernels<float>& chosen = choose();
  return chosen;
}

const Kernels<double>& kernels(double) { return kDoubleKernels; }

}  // namespace fgs
