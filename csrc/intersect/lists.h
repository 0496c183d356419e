// Checks of what indexes memory: sizes and lists that the ops did not make for each other are refused, not followed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../checks.h"
#include "intersect.h"

namespace fgs {

// The tiles of `batch` images, which must have pixels, and no more tiles than there are 32-bit numbers for.
inline int64_t checked_tiles(int64_t batch, int64_t width, int64_t height) {
  constexpr int64_t kLongest = int64_t{1} << 24;  // pixels
  STD_TORCH_CHECK(width > 0 && height > 0, "the image must have at least one pixel, got ", width, " x ", height);
  STD_TORCH_CHECK(width <= kLongest && height <= kLongest, "the image must have at most ", kLongest,
                  " pixels a side, got ", width, " x ", height);
  const int64_t tiles = ((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile);
  STD_TORCH_CHECK(batch >= 0 && batch <= std::numeric_limits<int32_t>::max() / tiles, batch, " images of ", width,
                  " x ", height, " must have less than 2^31 tiles of ", kTile, " x ", kTile, " pixels");
  return batch * tiles;
}

// Offsets [runs + 1] that cut `end` places into runs. `end_name` is how the message spells it, e.g. "P".
inline void check_offsets(const Tensor& offsets, const char* name, int64_t end, const char* end_name) {
  const int64_t *first = data<int64_t>(offsets), *last = first + offsets.numel() - 1;
  STD_TORCH_CHECK(*first == 0 && *last == end && std::is_sorted(first, last + 1), name, " must rise from 0 to ",
                  end_name, " = ", end);
}

// Whether all of `count` numbers lie in [first, first + size), for 0 <= first, size and first + size < 2^31.
inline bool all_in(const int32_t* numbers, int64_t count, int64_t first, int64_t size) {
  uint32_t largest = 0;  // those below `first` wrap around to the largest numbers
  for (int64_t k = 0; k < count; ++k)
    largest = std::max(largest, static_cast<uint32_t>(numbers[k]) - static_cast<uint32_t>(first));
  return count == 0 || largest < size;
}

// Numbers that are used as indices below `limit`. `limit_name` is how the message spells it, e.g. "N".
inline void check_indices(const Tensor& indices, const char* name, int64_t limit, const char* limit_name) {
  const int64_t size = std::min<int64_t>(limit, std::numeric_limits<int32_t>::max());
  STD_TORCH_CHECK(all_in(data<int32_t>(indices), indices.numel(), 0, size), name, " must lie in [0, ", limit_name,
                  ") = [0, ", limit, ")");
}

}  // namespace fgs
