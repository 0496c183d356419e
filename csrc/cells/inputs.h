// The arguments of the cell ops, checked: shapes on every device, the numbers in lists that index memory on the CPU.
#pragma once

#include <limits>

#include "../intersect/lists.h"
#include "cells.h"

namespace fgs {

// The matrix as its user hands it over.
struct CellMatrix {
  Tensor values, gaussians, offsets, rows;
  Kind kind = ScalarType::Float;

  void check() {
    kind = floating_kind(values, "values");
    values = checked(values, "values", kind, {entries()}, "[E]");
    rows = checked(rows, "rows", kind.with(ScalarType::Int), {entries()}, "[E]");
    gaussians = checked(gaussians, "gaussians", kind.with(ScalarType::Int), {listed()}, "[K]");
    offsets = checked(offsets, "offsets", kind.with(ScalarType::Long), {listed() + 1}, "[K + 1]");
  }
  // cells and count: how many cells and Gaussians there are.
  void check_lists(int64_t cells, int64_t count) const {
    check_offsets(offsets, "offsets", entries(), "E");
    check_indices(rows, "rows", cells, "cells");
    check_indices(gaussians, "gaussians", count, "N");
  }

  int64_t entries() const { return rows.numel(); }
  int64_t listed() const { return gaussians.numel(); }

  // Uninitialised, beside the matrix.
  Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape) const {
    return torch::stable::new_empty(values, shape, kind.dtype);
  }

  template <class T>
  SparseCells<T> view() const {
    return {listed(), data<int32_t>(gaussians), data<int64_t>(offsets), data<int32_t>(rows), data<T>(values)};
  }
};

// Rows of channels, [N, C] or [cells, C].
inline void check_rows(const Tensor& t, const char* name, const char* layout) {
  check_shape(t, name, {kAny, kAny}, layout);
  STD_TORCH_CHECK(t.size(1) >= 1, name, " must have at least one channel, got ", shape_text(t));
}

inline Tensor checked_maps(const Tensor& maps, const CellMatrix& m) {
  return checked(maps, "maps", m.kind, {maps.size(0), maps.size(1)}, "[cells, C]");
}

// Features may be stored in 16 bits.
inline Tensor checked_features(const Tensor& t, const char* name, const CellMatrix& m) {
  const bool half = t.scalar_type() == ScalarType::Half && m.kind.dtype == ScalarType::Float;
  STD_TORCH_CHECK(half || t.scalar_type() == m.kind.dtype, name, " must have the dtype of values (",
                  torch::headeronly::toString(m.kind.dtype), ") or be float16 beside float32, got ",
                  torch::headeronly::toString(t.scalar_type()));
  return checked(t, name, m.kind.with(t.scalar_type()), {t.size(0), t.size(1)}, "[N, C]");
}

// The weights as rasterize and intersect leave them.
struct SlotWeights {
  Tensor weights, slot_tiles, gaussian_offsets;
  int64_t batch, width, height, cell;
  Kind kind = ScalarType::Float;

  void check() {
    STD_TORCH_CHECK(cell == 4 || cell == 8 || cell == 16, "cell must be 4, 8 or 16, got ", cell);
    checked_tiles(batch, width, height);
    STD_TORCH_CHECK(batch * cells_x() * cells_y() <= std::numeric_limits<int32_t>::max(), batch, " images of ", width,
                    " x ", height, " must have less than 2^31 cells of ", cell, " x ", cell, " pixels");
    kind = floating_kind(weights, "weights");
    weights = checked(weights, "weights", kind, {slots(), cells_per_tile()}, "[P, (16 / cell)²]");
    slot_tiles = checked(slot_tiles, "slot_tiles", kind.with(ScalarType::Int), {slots()}, "[P]");
    const int64_t total = gaussian_offsets.numel() - 1;
    STD_TORCH_CHECK(total >= 0 && total <= std::numeric_limits<int32_t>::max() && total == batch * gaussians(),
                    "gaussian_offsets must be [B * N + 1], got ", shape_text(gaussian_offsets), " for B = ", batch);
    gaussian_offsets =
        checked(gaussian_offsets, "gaussian_offsets", kind.with(ScalarType::Long), {total + 1}, "[B * N + 1]");
  }

  int64_t slots() const { return slot_tiles.numel(); }
  int64_t gaussians() const { return batch ? (gaussian_offsets.numel() - 1) / batch : 0; }
  int64_t cells_per_tile() const { return (kTile / cell) * (kTile / cell); }
  int64_t tiles_x() const { return (width + kTile - 1) / kTile; }
  int64_t tiles() const { return tiles_x() * ((height + kTile - 1) / kTile); }
  int64_t cells_x() const { return (width + cell - 1) / cell; }
  int64_t cells_y() const { return (height + cell - 1) / cell; }

  // Uninitialised, beside the weights.
  Tensor empty(int64_t count, ScalarType dtype) const { return torch::stable::new_empty(weights, {count}, dtype); }
};

}  // namespace fgs
