// The Z-order curve: numbers that are near on it belong to places that are near each other.
#pragma once

#include <cstdint>

namespace fgs {

// Interleaves the low 24 bits of x and y.
inline uint64_t morton(uint64_t x, uint64_t y) {
  uint64_t code = 0;
  for (int bit = 0; bit < 24; ++bit) code |= (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1);
  return code;
}

}  // namespace fgs
