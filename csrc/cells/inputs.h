// The arguments of the cell ops, checked: shapes on every device, the numbers in lists that index memory on the CPU.
#pragma once

#include <limits>

#include "../intersect/lists.h"
#include "cells.h"

namespace fgs {

// The matrix as its user hands it over, for `count` Gaussians.
struct CellMatrix {
  Tensor weights, slot_tiles, gaussian_offsets;
  int64_t views, rows, columns, count;
  Kind kind = ScalarType::Float;

  void check() {
    kind = floating_kind(weights, "weights");
    check_shape(weights, "weights", {kAny, kAny}, "[P, R]");
    STD_TORCH_CHECK(per_tile() == 1 || per_tile() == 4 || per_tile() == 16,
                    "weights must have 1, 4 or 16 cells per slot, got ", shape_text(weights));
    weights = checked(weights, "weights", kind, {slots(), per_tile()}, "[P, R]");
    slot_tiles = checked(slot_tiles, "slot_tiles", kind.with(ScalarType::Int), {slots()}, "[P]");
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max(), kLongest = int64_t{1} << 24;
    STD_TORCH_CHECK(views >= 0 && rows > 0 && columns > 0 && rows <= kLongest && columns <= kLongest &&
                        views <= kMost / (rows * columns),
                    "there must be less than 2^31 cells, at most 2^24 a side, got ", views, " x ", rows, " x ", columns);
    STD_TORCH_CHECK(count >= 0 && count <= kMost, "there must be less than 2^31 Gaussians, got ", count);
    gaussian_offsets = checked(gaussian_offsets, "gaussian_offsets", kind.with(ScalarType::Long), {views * count + 1},
                               "[B * N + 1]");
  }
  void check_lists() const {
    check_offsets(gaussian_offsets, "gaussian_offsets", slots(), "P");
    const int64_t* offsets = data<int64_t>(gaussian_offsets);
    for (int64_t b = 0; b < views; ++b) {
      const int64_t first = offsets[b * count], last = offsets[(b + 1) * count];
      STD_TORCH_CHECK(all_in(data<int32_t>(slot_tiles) + first, last - first, b * grid().tiles, grid().tiles),
                      "slot_tiles must lie in [b * tiles, (b + 1) * tiles) for the Gaussians of image b = ", b);
    }
  }

  int64_t slots() const { return weights.size(0); }
  int64_t per_tile() const { return weights.size(1); }
  CellGrid grid() const {
    const auto narrow = [](int64_t n) { return static_cast<int32_t>(n); };
    const int32_t bits = per_tile() == 16 ? 2 : per_tile() == 4 ? 1 : 0;
    const int64_t tiles_x = ((columns - 1) >> bits) + 1, tiles_y = ((rows - 1) >> bits) + 1;
    return {narrow(views), narrow(rows), narrow(columns), bits, narrow(tiles_x), narrow(tiles_x * tiles_y)};
  }

  // Uninitialised, beside the matrix.
  Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape) const {
    return torch::stable::new_empty(weights, shape, kind.dtype);
  }

  template <class T>
  SlotWeights<T> view() const {
    return {data<T>(weights), data<int32_t>(slot_tiles), data<int64_t>(gaussian_offsets), slots(), count, grid()};
  }
};

// The same pairs by tile.
struct TilePairs {
  Tensor tile_offsets, pair_gaussians, pair_slots;

  void check(const CellMatrix& m) {
    const Kind numbers = m.kind.with(ScalarType::Int);
    const int64_t tiles = int64_t{m.grid().views} * m.grid().tiles;
    tile_offsets = checked(tile_offsets, "tile_offsets", m.kind.with(ScalarType::Long), {tiles + 1}, "[tiles + 1]");
    pair_gaussians = checked(pair_gaussians, "pair_gaussians", numbers, {m.slots()}, "[P]");
    pair_slots = checked(pair_slots, "pair_slots", numbers, {m.slots()}, "[P]");
  }
};

inline void check_features(const Tensor& t, const char* name) {
  check_shape(t, name, {kAny, kAny}, "[N, C]");
  STD_TORCH_CHECK(t.size(1) >= 1, name, " must have at least one channel, got ", shape_text(t));
}

inline void check_maps(const Tensor& maps) {
  check_shape(maps, "maps", {kAny, kAny, kAny, kAny}, "[B, h, w, C]");
  STD_TORCH_CHECK(maps.size(3) >= 1, "maps must have at least one channel, got ", shape_text(maps));
}

inline Tensor checked_maps(const Tensor& maps, const CellMatrix& m) {
  return checked(maps, "maps", m.kind, {m.views, m.rows, m.columns, maps.size(3)}, "[B, h, w, C]");
}

// Features may be stored in 16 bits.
inline Tensor checked_features(const Tensor& t, const char* name, const CellMatrix& m) {
  const bool half = t.scalar_type() == ScalarType::Half && m.kind.dtype == ScalarType::Float;
  STD_TORCH_CHECK(half || t.scalar_type() == m.kind.dtype, name, " must have the dtype of weights (",
                  torch::headeronly::toString(m.kind.dtype), ") or be float16 beside float32, got ",
                  torch::headeronly::toString(t.scalar_type()));
  return checked(t, name, m.kind.with(t.scalar_type()), {m.count, t.size(1)}, "[N, C]");
}

}  // namespace fgs
