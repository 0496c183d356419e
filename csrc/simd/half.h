// 16-bit floats (IEEE binary16) as they lie in memory. Packs load and store them; arithmetic is in float.
#pragma once

#include <cstdint>
#include <cstring>

namespace fgs {

enum class Half : uint16_t {};

// Plain conversions, rounding to nearest even, for where the processor has no instruction for them.
inline float to_float(Half half) {
  const uint32_t bits = static_cast<uint16_t>(half), sign = (bits & 0x8000u) << 16, rest = bits & 0x7FFFu;
  uint32_t result;
  if (rest >= 0x7C00u) {
    result = sign | 0x7F800000u | (rest & 0x3FFu) << 13;  // infinity, NaN
  } else if (rest >= 0x400u) {
    result = sign | ((rest << 13) + (112u << 23));
  } else {  // zero and subnormal numbers: multiples of 2^-24
    const float magnitude = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&result, &magnitude, sizeof result);
    result |= sign;
  }
  float value;
  std::memcpy(&value, &result, sizeof value);
  return value;
}

inline Half to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7FFFFFFFu;
  if (bits > 0x7F800000u) return Half(sign | 0x7E00u);   // NaN
  if (bits >= 0x477FF000u) return Half(sign | 0x7C00u);  // 65520 and more: infinity
  if (bits < 0x38800000u) {                              // below the smallest normal number
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;  // whose last bit is worth 2^-24: the addition rounds
    std::memcpy(&bits, &magnitude, sizeof bits);
    return Half(sign | (bits - 0x3F000000u));
  }
  bits -= 112u << 23;
  return Half(sign | ((bits + 0xFFFu + (bits >> 13 & 1u)) >> 13));
}

}  // namespace fgs
