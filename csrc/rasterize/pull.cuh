// dL/dw by what is made of the weights besides colour and depth: nothing; the averages over large cells; or features of
// cells of 1 or 2 pixels that may move geometry. One number per splat and cell, which every pixel of the cell adds.
#pragma once

#include "products.cuh"

namespace fgs {

enum class Pull { kNone, kCells, kFeatures };

template <class T>
constexpr int kBackwardBatch = 128 / sizeof(T);  // splats

// Working memory while a batch is prepared, and what stays while it is walked through.
template <class T, Pull kPull>
struct PullStage {};
template <class T, Pull kPull>
struct PullMemory {};

template <class T, Pull kPull>
struct WeightPull {
  __device__ WeightPull(const RasterizeInputs<T>&, const RasterizeGrads<T>&, const Tile2D&, const PatchPixel<T>&) {}
  __device__ void fetch(int) const {}
  __device__ void put(PullMemory<T, kPull>&, int) const {}
  __device__ void prepare(PullStage<T, kPull>&, PullMemory<T, kPull>&, unsigned, int) const {}
  __device__ T operator()(const PullMemory<T, kPull>&, int, int) const { return T(0); }
};

// The gradients of the averages lie in a row per slot; a block reads them ahead of the batch they belong to.
template <class T>
struct PullMemory<T, Pull::kCells> {
  T grads[2][kBackwardBatch<T>][kBlocks];  // of the splats' cells, over the cells' pixels
};

template <class T>
struct WeightPull<T, Pull::kCells> {
  static constexpr int kRead = kBackwardBatch<T> * kBlocks / kTileThreads;

  const RasterizeInputs<T>& in;
  const RasterizeGrads<T>& g;
  const Tile2D& tile;
  int cell;  // of this lane's pixel
  T fetched[kRead];

  __device__ WeightPull(const RasterizeInputs<T>& in_, const RasterizeGrads<T>& g_, const Tile2D& tile_,
                        const PatchPixel<T>& pixel)
      : in(in_), g(g_), tile(tile_), cell(pixel.row / in_.cell * (kTile / in_.cell) + pixel.column / in_.cell) {}

  __device__ void fetch(int back) {
    const int cells = in.cells_per_tile();
#pragma unroll
    for (int k = 0; k < kRead; ++k) {
      const int at = k * kTileThreads + static_cast<int>(threadIdx.x);
      const int place = back - 1 - at / cells, of_tile = at % cells;
      fetched[k] = T(0);
      if (at >= kBackwardBatch<T> * cells || place < 0) continue;
      const int32_t slot = tile.slot(in, place);
      const int pixels = pixels_of_cell(tile, in.cell, of_tile);
      if (slot >= 0 && pixels)
        fetched[k] = g.weights[static_cast<int64_t>(slot) * cells + of_tile] / static_cast<T>(pixels);
    }
  }
  __device__ void put(PullMemory<T, Pull::kCells>& to, int batch) const {
    const int cells = in.cells_per_tile();
#pragma unroll
    for (int k = 0; k < kRead; ++k) {
      const int at = k * kTileThreads + static_cast<int>(threadIdx.x);
      if (at < kBackwardBatch<T> * cells) to.grads[batch][at / cells][at % cells] = fetched[k];
    }
  }
  __device__ void prepare(PullStage<T, Pull::kCells>&, PullMemory<T, Pull::kCells>&, unsigned, int) const {}
  __device__ __forceinline__ T operator()(const PullMemory<T, Pull::kCells>& from, int batch, int i) const {
    return from.grads[batch][i][cell];
  }
};

// f · dL/dfeatures of every splat of a batch with every pixel it may reach, a few channels at a time.
template <class T>
constexpr int kPullChannels = 64 / sizeof(T);

template <class T>
struct PullStage<T, Pull::kFeatures> {
  alignas(16) T grads[kPatches][kWarp][kPullChannels<T> + kWide<T>];
  alignas(16) T features[kBackwardBatch<T>][kPullChannels<T>];
};

template <class T>
struct PullMemory<T, Pull::kFeatures> {
  T products[kPatches][kBackwardBatch<T>][kWarp];
};

template <class T>
struct WeightPull<T, Pull::kFeatures> {
  const RasterizeInputs<T>& in;
  const RasterizeGrads<T>& g;
  const Tile2D& tile;
  const PatchPixel<T>& pixel;
  T share;  // one over the pixels of this lane's cell

  __device__ WeightPull(const RasterizeInputs<T>& in_, const RasterizeGrads<T>& g_, const Tile2D& tile_,
                        const PatchPixel<T>& pixel_)
      : in(in_), g(g_), tile(tile_), pixel(pixel_) {
    share = in.cell == 1 ? T(1) : share_of_pixel<2>(tile, pixel);
  }

  __device__ void fetch(int) const {}
  __device__ void put(PullMemory<T, Pull::kFeatures>&, int) const {}

  // The row of dL/dfeatures of the pixel of some lane, -1 outside the image.
  __device__ __forceinline__ int64_t grad_row(int lane) const {
    const int64_t x = tile.x0 + pixel.left + lane % kPatchWidth, y = tile.y0 + pixel.top + lane / kPatchWidth;
    return x < in.width && y < in.height ? (tile.camera * in.cells_y() + y / in.cell) * in.cells_x() + x / in.cell : -1;
  }

  // All threads of the block; every warp for the splats `hits` of its own.
  __device__ void prepare(PullStage<T, Pull::kFeatures>& stage, PullMemory<T, Pull::kFeatures>& memory, unsigned hits,
                          int back) const {
    constexpr int kAtOnce = kPullChannels<T>;
    const int warp = warp_of_block(), lane = lane_of_warp();
    for (int64_t begin = 0; begin < in.channels; begin += kAtOnce) {
      __syncthreads();  // the stage is free
      for (int k = threadIdx.x; k < kBackwardBatch<T> * kAtOnce; k += kTileThreads) {
        const int64_t channel = begin + k % kAtOnce;
        const int place = back - 1 - k / kAtOnce;
        const int32_t n = place < 0 ? -1 : tile.gaussian(in, place);
        stage.features[k / kAtOnce][k % kAtOnce] =
            n >= 0 && channel < in.channels ? in.features[n * in.channels + channel] : T(0);
      }
      for (int k = lane; k < kWarp * kAtOnce; k += kWarp) {
        const int64_t channel = begin + k % kAtOnce, row = grad_row(k / kAtOnce);
        stage.grads[warp][k / kAtOnce][k % kAtOnce] =
            row >= 0 && channel < in.channels ? g.features[row * in.channels + channel] : T(0);
      }
      __syncthreads();
      T grad[kAtOnce];
      read<kAtOnce>(stage.grads[warp][lane], grad);
      for (unsigned left = hits; left;) {
        const int i = take_first(left);
        T feature[kAtOnce];
        read<kAtOnce>(stage.features[i], feature);
        T sum = begin ? memory.products[warp][i][lane] : T(0);
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) sum = fma(feature[k], grad[k], sum);
        memory.products[warp][i][lane] = sum;
      }
    }
    __syncthreads();
  }
  __device__ __forceinline__ T operator()(const PullMemory<T, Pull::kFeatures>& from, int, int i) const {
    return share * from.products[warp_of_block()][i][lane_of_warp()];
  }

 private:
  template <int kCount>
  static __device__ __forceinline__ void read(const T* from, T (&to)[kCount]) {
#pragma unroll
    for (int k = 0; k < kCount; k += kWide<T>) {
      const Chunk<T> chunk = *reinterpret_cast<const Chunk<T>*>(from + k);
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) to[k + j] = chunk.at[j];
    }
  }
};

}  // namespace fgs
