// Stands in for CUDA's bfloat16: the upper half of a float, rounded to nearest even, calculated with as float.
#pragma once

#include <cuda_runtime.h>

struct __nv_bfloat16 {
  uint16_t bits{};
  __nv_bfloat16() = default;
  __nv_bfloat16(float x) {
    const uint32_t whole = cuda_host::same_bits<uint32_t>(x);
    const bool nan = (whole & 0x7FFFFFFFu) > 0x7F800000u;
    bits = static_cast<uint16_t>(nan ? 0x7FFFu : (whole + 0x7FFFu + (whole >> 16 & 1u)) >> 16);
  }
  operator float() const { return cuda_host::same_bits<float>(static_cast<uint32_t>(bits) << 16); }
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __float2bfloat16(float x) { return {x}; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {x}; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
