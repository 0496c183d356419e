// Stands in for CUDA's 16-bit floats: stored as on the device, rounded to nearest even. As in every file that is built
// beside torch, nothing converts to or from them unasked.
#pragma once

#include <cuda_runtime.h>

#include "../../csrc/simd/half.h"

struct __half {
  fgs::Half bits;
};

inline __half __float2half_rn(float x) { return {fgs::to_half(x)}; }
inline float __half2float(__half x) { return fgs::to_float(x.bits); }
