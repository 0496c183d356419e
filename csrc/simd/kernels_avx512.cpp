// Kernels compiled for AVX512. The standard headers come first, so that nothing of theirs is compiled for it.
#if defined(__x86_64__)

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <type_traits>

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593: its own intrinsics warn
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")
#define FGS_ISA avx512

#include "pack_avx512.h"
#include "make_kernels.h"

namespace fgs {

const Kernels<float> kAvx512Kernels = make_kernels<Float16Pack>("avx512");

}  // namespace fgs

#endif
