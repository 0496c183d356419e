// Stands in for CUDA's 16-bit floats: stored as on the device, rounded to nearest even, calculated with as float.
#pragma once

#include <cuda_runtime.h>

#include "../../csrc/simd/half.h"

struct __half {
  fgs::Half bits{};
  __half() = default;
  __half(float x) : bits(fgs::to_half(x)) {}
  operator float() const { return fgs::to_float(bits); }
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
};
using half2 = __half2;

inline __half __float2half(float x) { return {x}; }
inline __half __float2half_rn(float x) { return {x}; }
inline float __half2float(__half x) { return x; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
