// What the CUDA kernels over a tile share: its list, its splats in shared memory, and which of them reach a patch.
//
// A warp works on a patch of 8x4 pixels, one lane per pixel; eight patches, two by four, are a tile. The lists are not
// checked before: pairs that lead outside memory are taken for splats that reach nothing.
#pragma once

#include <cuda_pipeline.h>

#include "../cuda/block.h"
#include "../math/blend.h"
#include "rasterize.h"

namespace fgs {

constexpr int kPatchWidth = 8, kPatchHeight = 4;
constexpr int kPatches = kTile * kTile / kWarp;
constexpr int kTileThreads = kTile * kTile;

// What a thread reads at once.
template <class T>
struct alignas(16) Chunk {
  T at[16 / sizeof(T)];
};

template <class T>
__device__ __forceinline__ void add_chunk(Chunk<T>& sum, const Chunk<T>& more) {
#pragma unroll
  for (int k = 0; k < static_cast<int>(16 / sizeof(T)); ++k) sum.at[k] += more.at[k];
}

// A splat's record, in chunks: the numbers of Record, side by side.
constexpr int kCudaRecord = 12;
template <class T>
constexpr int kWide = 16 / sizeof(T);  // numbers of a chunk
template <class T>
constexpr int kChunks = kCudaRecord / kWide<T>;  // of a record

template <class T>
struct Record {
  Splat<T> splat;
  T color[3], depth;
  T half_over_a, half_over_c;  // of the splat
};

template <class T>
__device__ __forceinline__ Record<T> load_record(const Chunk<T>* from) {
  T v[kCudaRecord];
#pragma unroll
  for (int part = 0; part < kChunks<T>; ++part) {
    const Chunk<T> chunk = from[part];
#pragma unroll
    for (int k = 0; k < kWide<T>; ++k) v[part * kWide<T> + k] = chunk.at[k];
  }
  return {{v[0], v[1], v[2], v[3], v[4], v[5]}, {v[6], v[7], v[8]}, v[9], v[10], v[11]};
}

struct Tile2D {
  int64_t camera, x0, y0;  // first pixel
  int width, height;       // pixels inside the image
  int64_t first_pair;
  int count;               // splats

  template <class T>
  __device__ Tile2D(const RasterizeInputs<T>& in, int64_t index) {
    const uint32_t across = static_cast<uint32_t>(in.tiles_x());  // there are less than 2^31 tiles
    const uint32_t per_camera = across * static_cast<uint32_t>(in.tiles_y());
    const uint32_t at = static_cast<uint32_t>(index) % per_camera;
    camera = static_cast<uint32_t>(index) / per_camera;
    x0 = int64_t{at % across} * kTile, y0 = int64_t{at / across} * kTile;
    width = static_cast<int>(in.width - x0 < kTile ? in.width - x0 : kTile);
    height = static_cast<int>(in.height - y0 < kTile ? in.height - y0 : kTile);
    first_pair = in.tile_offsets[index];
    int64_t end = in.tile_offsets[index + 1];
    if (first_pair < 0 || first_pair > in.pairs) first_pair = in.pairs;
    if (end < first_pair || end > in.pairs) end = first_pair;
    count = static_cast<int>(end - first_pair);
  }

  // Which Gaussian of which camera stands at a place of the list, b * N + n; -1 for one that is not there.
  template <class T>
  __device__ __forceinline__ int32_t splat(const RasterizeInputs<T>& in, int place) const {
    const int32_t index = in.pair_gaussians[first_pair + place];
    return index >= 0 && index < in.splats() ? index : -1;
  }
  template <class T>
  __device__ __forceinline__ int32_t gaussian(const RasterizeInputs<T>& in, int place) const {
    const int32_t index = splat(in, place);
    return index < 0 ? -1 : index % static_cast<int32_t>(in.gaussians);
  }
  template <class T>
  __device__ __forceinline__ int32_t slot(const RasterizeInputs<T>& in, int place) const {
    return checked_slot(in, in.pair_slots[first_pair + place]);
  }
  // The same in two steps: copies it to shared memory without waiting, and checks it when it is there.
  template <class T>
  __device__ __forceinline__ void fetch_slot(const RasterizeInputs<T>& in, int place, int32_t& to) const {
    __pipeline_memcpy_async(&to, in.pair_slots + first_pair + place, sizeof to);
  }
  template <class T>
  static __device__ __forceinline__ int32_t checked_slot(const RasterizeInputs<T>& in, int32_t slot) {
    return slot >= 0 && slot < in.pairs ? slot : -1;
  }
  // One chunk of the record at a place of the list.
  template <class T>
  __device__ __forceinline__ Chunk<T> chunk(const RasterizeInputs<T>& in, int place, int part) const {
    const int64_t index = splat(in, place);
    if (index >= 0) return reinterpret_cast<const Chunk<T>*>(in.records)[index * kChunks<T> + part];
    Chunk<T> nothing;  // not a number: every comparison with it fails
    for (T& value : nothing.at) value = static_cast<T>(NAN);
    return nothing;
  }
};

// The pixel of this lane, in patch `patch` of a tile.
template <class T>
struct PatchPixel {
  int left, top;     // of the patch, in the tile
  int column, row;   // of the pixel, in the tile
  bool inside;       // the image
  int64_t index;     // in [B, H, W]
  T x, y;            // of its centre, in the image

  __device__ PatchPixel(const RasterizeInputs<T>& in, const Tile2D& tile, int patch) {
    left = patch % 2 * kPatchWidth, top = patch / 2 * kPatchHeight;
    column = left + lane_of_warp() % kPatchWidth, row = top + lane_of_warp() / kPatchWidth;
    inside = column < tile.width && row < tile.height;
    index = (tile.camera * in.height + tile.y0 + row) * in.width + tile.x0 + column;
    x = static_cast<T>(tile.x0 + column) + T(0.5), y = static_cast<T>(tile.y0 + row) + T(0.5);
  }
};

// Tells which splats reach a patch: lane l tests the one it is given, for all 32 pixels.
template <class T>
struct PatchTest {
  T left, top;  // centre of the patch's first pixel

  __device__ PatchTest(const Tile2D& tile, const PatchPixel<T>& pixel)
      : left(static_cast<T>(tile.x0 + pixel.left) + T(0.5)), top(static_cast<T>(tile.y0 + pixel.top) + T(0.5)) {}

  // Where the exponent of a splat is least in the patch's rectangle, one coordinate is the rectangle's nearest to the
  // centre, and the other is the best there or at the rectangle's edge. Rounding is far below what lies between the
  // 1/256 asked for here and 1/255.
  __device__ __forceinline__ bool operator()(const Record<T>& r) const {
    const Splat<T>& s = r.splat;
    const T l = left - s.x, t = top - s.y, right = l + T(kPatchWidth - 1), bottom = t + T(kPatchHeight - 1);
    const T dx = between(T(0), l, right), dy = between(T(0), t, bottom);
    const T down = between(-s.b * dx * r.half_over_c, t, bottom), across = between(-s.b * dy * r.half_over_a, l, right);
    return min(fall(s, dx, down), fall(s, across, dy)) <= s.log2_opacity + T(8);
  }

 private:
  static __device__ __forceinline__ T between(T x, T low, T high) { return min(max(x, low), high); }
  static __device__ __forceinline__ T fall(const Splat<T>& s, T dx, T dy) {
    return fma(fma(s.a, dx, s.b * dy), dx, s.c * dy * dy);
  }
};

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }

// Pixels of the tile's cell `cell`, counted row by row, that lie inside the image.
__device__ __forceinline__ int pixels_of_cell(const Tile2D& tile, int side, int cell) {
  const int across = kTile / side;
  const int w = tile.width - cell % across * side, h = tile.height - cell / across * side;
  return (w < 0 ? 0 : w < side ? w : side) * (h < 0 ? 0 : h < side ? h : side);
}

// The next set bit, taken out of the mask.
__device__ __forceinline__ int take_first(unsigned& mask) {
  const int first = __ffs(static_cast<int>(mask)) - 1;
  mask &= mask - 1;
  return first;
}

}  // namespace fgs
