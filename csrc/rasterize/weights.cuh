// The weights of small cells (1 or 2 pixels) for the products with features and their gradients: a warp lists the
// splats that its patch sees, one row of weights per splat. What the forward pass found out, the last splat of each
// pixel, spares the rules of stopping.
#pragma once

#include "tile.cuh"

namespace fgs {

// The feature cells of this warp's patch, counted row by row: rows of [B, cells_y, cells_x, C].
template <int kCell>
struct PatchCells {
  static constexpr int kAcross = kPatchWidth / kCell, kCount = kAcross * (kPatchHeight / kCell);
  int64_t first;       // the row of cell 0
  int64_t line;        // rows from one line of cells to the next
  int across, down;    // inside the image

  template <class T>
  __device__ PatchCells(const RasterizeInputs<T>& in, const Tile2D& tile, const PatchPixel<T>& pixel)
      : first((tile.camera * in.cells_y() + (tile.y0 + pixel.top) / kCell) * in.cells_x() +
              (tile.x0 + pixel.left) / kCell),
        line(in.cells_x()),
        across((tile.width - pixel.left + kCell - 1) / kCell),
        down((tile.height - pixel.top + kCell - 1) / kCell) {}

  // Whether the cell is in the image, and its row.
  __device__ __forceinline__ bool has(int cell) const { return cell % kAcross < across && cell / kAcross < down; }
  __device__ __forceinline__ int64_t row(int cell) const { return first + cell / kAcross * line + cell % kAcross; }
};

// One over the number of real pixels of the cell that this lane's pixel belongs to.
template <int kCell, class T>
__device__ __forceinline__ T share_of_pixel(const Tile2D& tile, const PatchPixel<T>& pixel) {
  const int w = smaller(tile.width - pixel.column / kCell * kCell, kCell);
  const int h = smaller(tile.height - pixel.row / kCell * kCell, kCell);
  return w > 0 && h > 0 ? T(1) / static_cast<T>(w * h) : T(0);
}

// The largest number of the warp, in every lane.
__device__ __forceinline__ int largest_of_warp(int value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// Walks along one pixel's list and puts out its weights in the cells.
template <class T, int kCell>
class WeightWalk {
  using Cells = PatchCells<kCell>;

 public:
  __device__ WeightWalk(const Tile2D& tile, const PatchPixel<T>& pixel, int32_t last)
      : x_(pixel.x), y_(pixel.y), share_(share_of_pixel<kCell>(tile, pixel)), last_(last) {}

  // The weight at this pixel of the splat at `place`, the next one from front to back.
  __device__ __forceinline__ T next(const Splat<T>& splat, int place) {
    const T raw = raw_alpha<T, T>(splat, x_ - splat.x, y_ - splat.y);
    if (!(place < last_ && raw >= T(kMinAlpha))) return T(0);
    const T w = t_ * min(raw, T(kMaxAlpha));
    t_ -= w;
    return w;
  }

  // Writes the mean weights of the patch's cells to row[0], row[1], ..., as operands of the product P.
  template <class P, class Weight>
  __device__ __forceinline__ void write(T w, Weight* row) const {
    const int lane = lane_of_warp();
    if constexpr (kCell == 1) {
      row[lane] = P::operand(w);
    } else {
      w += __shfl_xor_sync(kAllLanes, w, 1);
      w += __shfl_xor_sync(kAllLanes, w, kPatchWidth);
      const int cell = lane / (2 * kPatchWidth) * Cells::kAcross + lane % kPatchWidth / 2;
      if ((lane & (1 | kPatchWidth)) == 0) row[cell] = P::operand(share_ * w);
    }
  }

 private:
  T x_, y_, share_, t_ = T(1);
  int32_t last_;
};

}  // namespace fgs
