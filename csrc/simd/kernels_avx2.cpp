// Kernels compiled for AVX2. The standard headers come first, so that nothing of theirs is compiled for it.
#if defined(__x86_64__)

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <type_traits>

#pragma GCC target("avx2,fma,f16c")
#define FGS_ISA avx2

#include "pack_avx2.h"
#include "make_kernels.h"

namespace fgs {

const Kernels<float> kAvx2Kernels = make_kernels<Float8Pack>("avx2");

}  // namespace fgs

#endif
