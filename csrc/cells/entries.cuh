// The matrix of cells (cells.h) as lists of entries: one for each Gaussian, or one for each cell.
#pragma once

#include "../cuda/lists.h"
#include "cells.h"

namespace fgs {

// A row to add and its weight; row -1: nothing to add.
template <class T>
struct Entry {
  int32_t row;
  T weight;
};

struct Range {
  int64_t begin, end;
};

// A run of `count` places, within them whatever the offsets say.
__device__ __forceinline__ Range run(const int64_t* offsets, int64_t i, int64_t count) {
  const int64_t begin = ::min(::max(offsets[i], int64_t{0}), count);
  return {begin, ::min(::max(offsets[i + 1], begin), count)};
}

// The matrix by Gaussian: a list for each, of the cells of its slots, in one range of slots for each view.
template <class T>
struct GaussianLists {
  static constexpr bool kHasSegments = true;
  SlotWeights<T> a;

  __host__ __device__ int64_t lists() const { return a.count; }
  __device__ int32_t ranges() const { return a.grid.views; }
  __device__ int entries_bits() const { return a.grid.per_tile_bits(); }  // of a place in a range, here a slot
  __host__ __device__ int64_t segment() const { return 256 >> a.grid.across_bits; }  // slots
  __device__ int64_t row(int64_t n) const { return n; }
  __device__ Range range(int64_t n, int32_t view) const { return run(a.offsets, view * a.count + n, a.slots); }
  __device__ Entry<T> entry(int64_t, int32_t view, int64_t e) const {
    const T weight = a.weights[e];
    if (weight == T(0)) return {-1, T(0)};
    const int64_t tile = a.slot_tiles[e >> entries_bits()] - int64_t{view} * a.grid.tiles;
    if (tile < 0 || tile >= a.grid.tiles) return {-1, T(0)};
    const int32_t c = static_cast<int32_t>(e) & (a.grid.per_tile() - 1);
    return {a.grid.cell(view, static_cast<int32_t>(tile), c), weight};
  }
  // The view and Gaussian that a slot is of, view * count + n; -1 if it is of none.
  __device__ int64_t owner(int64_t slot) const {
    const int64_t i = first_above(a.offsets, a.grid.views * a.count + 1, slot) - 1;
    return i < a.grid.views * a.count ? i : -1;
  }
};

// The matrix by cell: a list for each cell of each tile, of the Gaussians of the tile.
template <class T>
struct TileLists {
  static constexpr bool kHasSegments = false;
  const T* weights;  // [slots, per_tile]
  const int64_t* tile_offsets;
  const int32_t *pair_gaussians, *pair_slots;
  int64_t slots, count;
  CellGrid grid;

  __host__ __device__ int64_t lists() const { return (int64_t{grid.views} * grid.tiles) << grid.per_tile_bits(); }
  __device__ int32_t ranges() const { return 1; }
  __device__ int entries_bits() const { return 0; }
  __device__ int32_t tile(int64_t list) const { return static_cast<int32_t>(list >> grid.per_tile_bits()); }
  __device__ int32_t in_tile(int64_t list) const { return static_cast<int32_t>(list) & (grid.per_tile() - 1); }
  __device__ int64_t row(int64_t list) const {
    return grid.cell(tile(list) / grid.tiles, tile(list) % grid.tiles, in_tile(list));
  }
  __device__ Range range(int64_t list, int32_t) const { return run(tile_offsets, tile(list), slots); }
  __device__ Entry<T> entry(int64_t list, int32_t, int64_t pair) const {
    const int64_t slot = pair_slots[pair];
    const T weight = slot >= 0 && slot < slots ? weights[(slot << grid.per_tile_bits()) + in_tile(list)] : T(0);
    const int64_t gaussian = pair_gaussians[pair] - tile(list) / grid.tiles * count;
    return {weight != T(0) && gaussian >= 0 && gaussian < count ? static_cast<int32_t>(gaussian) : -1, weight};
  }
};

}  // namespace fgs
