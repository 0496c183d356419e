// cells: the feature image as a matrix A [cells, N], cells = B * h * w. A[r, n] is the share of Gaussian n in cell r: its
// blending weight averaged over the cell's pixels. Rendering features is A F; lifting and gradients are Aᵀ M. A does not
// depend on the number of channels. It is read where rasterize and intersect left it, most of its zeros left out:
//
//   weights [P, R] by slot (a pair of Gaussian and tile), for the R = (16 / cell)² cells of the slot's tile, row by row
//   tile_offsets, pair_gaussians, pair_slots, slot_tiles, gaussian_offsets: the lists of intersect
//
//   blend_cells:      features [N, C] -> maps [B, h, w, C] = A F
//   gather_cells:     maps [B, h, w, C] -> [N, C] = Aᵀ M
//   accumulate_cells: sums [N, C] += rate Aᵀ M in place; with floor >= 0 row n is divided by floor + (Aᵀ 1)_n. Rows of
//                     Gaussians that no cell sees are not even read.
//   cell_products:    features, maps -> [P, R]: F[n, :] · M[r, :] where there is weight, else 0: dL/dweights of blend_cells
//
// features and sums may be float16 beside float32 weights; then they are rounded once, when stored. sums and maps must not
// overlap. Blending may go by tile (tile_offsets, pair_gaussians, pair_slots) or by Gaussian (slot_tiles,
// gaussian_offsets), which must tell of the same pairs; the others go by Gaussian.
//
// Lists that lead outside memory are refused; on CUDA, where looking would mean waiting, what they lead to is skipped, and
// what offsets that do not rise give is unspecified.
// Every sum runs in a fixed order (on CUDA in parts of fixed size, summed in order): the same bits for any number of
// threads and in every run.
#pragma once

#include <cstdint>

#include "../math/host_device.h"

namespace fgs {

// The cells of some views, and which of them are in which tile.
struct CellGrid {
  int32_t views, rows, columns;
  int32_t across_bits;     // a tile is 1 << across_bits cells wide and high: 1, 2 or 4
  int32_t tiles_x, tiles;  // of a view

  FGS_HD int32_t across() const { return 1 << across_bits; }
  FGS_HD int32_t per_tile_bits() const { return 2 * across_bits; }
  FGS_HD int32_t per_tile() const { return 1 << per_tile_bits(); }
  FGS_HD int64_t cells() const { return int64_t{views} * rows * columns; }

  // From the first cell of a tile to the c-th.
  FGS_HD int32_t step(int32_t c) const { return (c >> across_bits) * columns + (c & (across() - 1)); }
  // The c-th cell of a view's tile; -1 outside of the image.
  FGS_HD int32_t cell(int32_t view, int32_t tile, int32_t c) const {
    const int32_t tile_y = tile / tiles_x, tile_x = tile - tile_y * tiles_x;
    const int32_t y = (tile_y << across_bits) + (c >> across_bits), x = (tile_x << across_bits) + (c & (across() - 1));
    return y < rows && x < columns ? (view * rows + y) * columns + x : -1;
  }
};

// The matrix by Gaussian.
template <class T>
struct SlotWeights {
  const T* weights;           // [slots, per_tile]
  const int32_t* slot_tiles;  // [slots]
  const int64_t* offsets;     // [views * count + 1]
  int64_t slots, count;       // count: Gaussians
  CellGrid grid;
};

// The cells of one tile: the first one, and a bit for each that is inside the image.
struct TileCells {
  int32_t first;
  uint32_t inside;
};

}  // namespace fgs
