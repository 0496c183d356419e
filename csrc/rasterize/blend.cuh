// Colour, alpha, depth and the weights of large cells: a block blends one tile front to back, a lane per pixel with its
// state in registers (contract: rasterize.h).
#pragma once

#include "tile.cuh"

namespace fgs {

template <class T>
constexpr int kBlendBatch = 1024 / sizeof(T);  // splats staged in shared memory at a time

template <class T>
struct PixelState {
  T t = T(1), weight = T(0), r = T(0), g = T(0), b = T(0), z = T(0), median = T(0);
  int32_t last = 0;
  bool alive;

  // The splat's weight here; `place` is that just behind it in the list.
  __device__ __forceinline__ T blend(const Record<T>& splat, int32_t place, T x, T y) {
    const T raw = raw_alpha<T, T>(splat.splat, x - splat.splat.x, y - splat.splat.y);
    const bool reached = alive && raw >= T(kMinAlpha);
    T w = t * min(raw, T(kMaxAlpha));
    const T next = t - w;
    const bool goes_on = next > T(kMinTransmittance);
    const bool blended = reached && goes_on;
    alive = alive && (goes_on || !reached);
    w = select(blended, w, T(0));
    weight += w;
    r = fma(w, splat.color[0], r);
    g = fma(w, splat.color[1], g);
    b = fma(w, splat.color[2], b);
    z = fma(w, splat.depth, z);
    if (blended && t >= T(0.5) && next < T(0.5)) median = splat.depth;
    t = select(blended, next, t);
    last = blended ? place : last;
    return w;
  }

  __device__ void write(const RasterizeInputs<T>& in, const RasterizeOutputs<T>& out, int64_t at) const {
    const T* bg = in.background;
    out.color[3 * at] = bg ? fma(t, bg[0], r) : r;
    out.color[3 * at + 1] = bg ? fma(t, bg[1], g) : g;
    out.color[3 * at + 2] = bg ? fma(t, bg[2], b) : b;
    out.alpha[at] = T(1) - t;
    out.depth[at] = weight > T(0) ? z / weight : T(0);
    out.median_depth[at] = median;
    out.transmittance[at] = t;
    out.last[at] = last;
  }
};

// Σ over the 4x4 pixels of each half of a patch, in all lanes of the half.
template <class T>
__device__ __forceinline__ T sum_over_half(T value) {
#pragma unroll
  for (int step : {1, 2, kPatchWidth, 2 * kPatchWidth}) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Writes the rows of weights of places first .. first + count - 1 of the list: sums over 4x4 blocks [count][kBlocks]
// averaged over the cells. Without sums, zeros.
template <class T>
__device__ void write_cell_weights(const RasterizeInputs<T>& in, const Tile2D& tile, const T (*sums)[kBlocks],
                                   int first, int count, T* weights) {
  const int cells = in.cells_per_tile(), side = in.cell / kBlock;  // of a cell, in blocks
  const int across = kTile / in.cell;
  for (int k = threadIdx.x; k < count * cells; k += kTileThreads) {
    const int place = k / cells, cell = k % cells;
    const int32_t slot = tile.slot(in, first + place);
    if (slot < 0) continue;
    T sum = T(0);
    const int pixels = pixels_of_cell(tile, in.cell, cell);
    if (sums && pixels) {
      const int corner = cell / across * side * (kTile / kBlock) + cell % across * side;
      for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) sum += sums[place][corner + y * (kTile / kBlock) + x];
      sum *= T(1) / static_cast<T>(pixels);
    }
    weights[static_cast<int64_t>(slot) * cells + cell] = sum;
  }
}

template <class T, bool kPooled>
__global__ void __launch_bounds__(kTileThreads) blend_kernel(RasterizeInputs<T> in, RasterizeOutputs<T> out) {
  constexpr int kBatch = kBlendBatch<T>;
  __shared__ Chunk<T> records[kBatch * kChunks<T>];
  __shared__ T sums[kPooled ? kBatch : 1][kBlocks];
  const Tile2D tile(in, blockIdx.x);
  const int patch = warp_of_block(), lane = lane_of_warp();
  const PatchPixel<T> pixel(in, tile, patch);
  const PatchTest<T> test(tile, pixel);
  [[maybe_unused]] const int block = (pixel.row / kBlock) * (kTile / kBlock) + pixel.column / kBlock;
  PixelState<T> state;
  state.alive = pixel.inside;
  int first = 0;
  for (; first < tile.count && __syncthreads_or(state.alive); first += kBatch) {
    const int here = smaller(tile.count - first, kBatch);
    for (int k = threadIdx.x; k < here * kChunks<T>; k += kTileThreads)
      records[k] = tile.chunk(in, first + k / kChunks<T>, k % kChunks<T>);
    if constexpr (kPooled)
      for (int k = threadIdx.x; k < here * kBlocks; k += kTileThreads) sums[k / kBlocks][k % kBlocks] = T(0);
    __syncthreads();
    for (int group = 0; group < here && __any_sync(kAllLanes, state.alive); group += kWarp) {
      const int mine = group + lane;
      const bool reached = mine < here && test(load_record(records + mine * kChunks<T>));
      for (unsigned hits = __ballot_sync(kAllLanes, reached); hits;) {
        const int i = group + take_first(hits);
        const T w = state.blend(load_record(records + i * kChunks<T>), first + i + 1, pixel.x, pixel.y);
        if constexpr (kPooled) {
          const T sum = sum_over_half(w);
          if ((lane & ~kBlock) == 0) sums[i][block] = sum;
        }
      }
    }
    if constexpr (kPooled) {
      __syncthreads();
      write_cell_weights(in, tile, sums, first, here, out.weights);
    }
  }
  if constexpr (kPooled)
    for (; first < tile.count; first += kBatch)
      write_cell_weights<T>(in, tile, nullptr, first, smaller(tile.count - first, kBatch), out.weights);
  if (pixel.inside) state.write(in, out, pixel.index);
}

}  // namespace fgs
