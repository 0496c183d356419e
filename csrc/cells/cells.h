// cells: the feature image as a sparse matrix A [cells, N], cells = B * h * w. A[r, n] is the share of Gaussian n in
// cell r: its blending weight averaged over the cell's pixels. Rendering features is A F; lifting and gradients are
// Aᵀ M. A does not depend on the number of channels and is listed once per view, for any use of it.
//
//   compress_cells: weights [P, R] by slot, as rasterize puts them out (R = (16 / cell)² cells of the slot's tile), and
//     slot_tiles [P] and gaussian_offsets [B * N + 1] of intersect
//     -> gaussians [K] int32: the Gaussians that some cell sees, each once, rising
//        offsets [K + 1] int64: the entries of gaussians[k] are offsets[k] .. offsets[k + 1]
//        rows [E] int32: the cell of each entry
//        places [E] int64: where its value stands in `weights`: values = weights.flatten()[places]
//
//   blend_cells:      features [N, C] -> maps [cells, C] = A F
//   gather_cells:     maps [cells, C] -> [N, C] = Aᵀ M
//   accumulate_cells: sums [N, C] += rate Aᵀ M in place; with floor >= 0 row n is divided by floor + (Aᵀ 1)_n. Rows of
//                     Gaussians that are not listed are not even read.
//   cell_products:    features, maps -> [E], F[n, :] · M[r, :] of each entry: dL/dvalues of blend_cells
//
// features and sums may be float16 beside float32 values; then they are rounded once, when stored.
//
// Lists that lead outside memory are refused; on CUDA, where looking would mean waiting, all but compress_cells skip the
// entries that do. Every sum runs in the order of the entries (on CUDA in parts of fixed size, summed in order): the
// same bits for any number of threads and in every run.
#pragma once

#include <cstdint>

namespace fgs {

template <class T>
struct SparseCells {
  int64_t count;             // listed Gaussians
  const int32_t* gaussians;  // [count]
  const int64_t* offsets;    // [count + 1]
  const int32_t* rows;       // [entries]
  const T* values;           // [entries]
};

}  // namespace fgs
