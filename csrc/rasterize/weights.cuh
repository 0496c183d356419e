// The weights of small cells (1 or 2 pixels) for the products with features and their gradients: a warp lists the
// splats that its patch sees, one row of weights per splat. What the forward pass found out, the last splat of each
// pixel, spares the rules of stopping.
#pragma once

#include "tile.cuh"

namespace fgs {

// The feature cells of a patch, counted row by row.
template <int kCell>
struct PatchCells {
  static constexpr int kAcross = kPatchWidth / kCell, kCount = kAcross * (kPatchHeight / kCell);

  // Where the cell's features lie in [B, cells_y, cells_x, C], in rows of C; -1 outside the image.
  template <class T>
  static __device__ __forceinline__ int64_t row(const RasterizeInputs<T>& in, const Tile2D& tile,
                                                const PatchPixel<T>& pixel, int cell) {
    const int64_t x = (tile.x0 + pixel.left) / kCell + cell % kAcross;
    const int64_t y = (tile.y0 + pixel.top) / kCell + cell / kAcross;
    return x < in.cells_x() && y < in.cells_y() ? (tile.camera * in.cells_y() + y) * in.cells_x() + x : -1;
  }

  // One over the number of real pixels of the cell that this lane's pixel belongs to.
  template <class T>
  static __device__ __forceinline__ T scale(const Tile2D& tile, const PatchPixel<T>& pixel) {
    const int x = pixel.column / kCell * kCell, y = pixel.row / kCell * kCell;
    const int w = tile.width - x < kCell ? tile.width - x : kCell, h = tile.height - y < kCell ? tile.height - y : kCell;
    return w > 0 && h > 0 ? T(1) / static_cast<T>(w * h) : T(0);
  }
};

// How the number of the last splat, over the lanes of a warp, is found.
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
      : x_(pixel.x), y_(pixel.y), scale_(Cells::template scale<T>(tile, pixel)), last_(last) {}

  // The weight at this pixel of the splat at `place`, the next one from front to back.
  __device__ __forceinline__ T next(const Splat<T>& splat, int place) {
    const T raw = raw_alpha<T, T>(splat, x_ - splat.x, y_ - splat.y);
    if (!(place < last_ && raw >= T(kMinAlpha))) return T(0);
    const T w = t_ * min(raw, T(kMaxAlpha));
    t_ -= w;
    return w;
  }

  // Writes the mean weights of the patch's cells to row[0], row[1], ..., as operands of the product P.
  template <class P>
  __device__ __forceinline__ void write(T w, T* row) const {
    const int lane = lane_of_warp();
    if constexpr (kCell == 1) {
      row[lane] = P::operand(w);
    } else {
      w += __shfl_xor_sync(kAllLanes, w, 1);
      w += __shfl_xor_sync(kAllLanes, w, kPatchWidth);
      const int cell = lane / (2 * kPatchWidth) * Cells::kAcross + lane % kPatchWidth / 2;
      if ((lane & (1 | kPatchWidth)) == 0) row[cell] = P::operand(scale_ * w);
    }
  }

 private:
  T x_, y_, scale_, t_ = T(1);
  int32_t last_;
};

}  // namespace fgs
