// What the forward and the backward loops over a tile share: where the tile lies, its splats side by side, and for
// each 4x4 block which splats reach it.
#pragma once

#include "../math/ellipse.h"
#include "../simd/scratch.h"
#include "rasterize.h"

namespace fgs {
inline namespace FGS_ISA {

template <class T>
struct Tile {
  int64_t camera, x0, y0;      // first pixel
  int width, height;           // pixels inside the image
  int64_t first_pair;
  int count;                   // splats
  const T* records;            // [count, kRecord]

  Tile(const RasterizeInputs<T>& in, int64_t index) {
    const int64_t per_camera = in.tiles_x() * in.tiles_y(), at = index % per_camera;
    camera = index / per_camera;
    x0 = at % in.tiles_x() * kTile, y0 = at / in.tiles_x() * kTile;
    width = static_cast<int>(in.width - x0 < kTile ? in.width - x0 : kTile);
    height = static_cast<int>(in.height - y0 < kTile ? in.height - y0 : kTile);
    first_pair = in.tile_offsets[index];
    count = static_cast<int>(in.tile_offsets[index + 1] - first_pair);
    records = nullptr;
  }

  // Copies the tile's splats next to each other, relative to the tile's corner.
  void gather(const RasterizeInputs<T>& in, Scratch& scratch) {
    T* r = scratch.take<T>(static_cast<int64_t>(count) * kRecord);
    records = r;
    constexpr int kAhead = 12;  // records come from all over memory: ask for them early
    const auto record = [&](int i) {
      return in.records + static_cast<int64_t>(in.pair_gaussians[first_pair + i]) * kRecord;
    };
    for (int i = 0; i < count && i < kAhead; ++i) __builtin_prefetch(record(i));
    for (int i = 0; i < count; ++i, r += kRecord) {
      if (i + kAhead < count) __builtin_prefetch(record(i + kAhead));
      const T* from = record(i);
      for (int k = 0; k < kRecord; ++k) r[k] = from[k];
      r[0] -= static_cast<T>(x0), r[1] -= static_cast<T>(y0);
    }
  }
  FGS_HD Splat<T> splat(int i) const {
    const T* r = records + static_cast<int64_t>(i) * kRecord;
    return {r[0], r[1], r[2], r[3], r[4], r[5]};
  }
  FGS_HD const T* payload(int i) const { return records + static_cast<int64_t>(i) * kRecord + 6; }  // r, g, b, depth

  // Of the block: its pixels inside the image.
  int block_width(int block) const { return clip(width - block % 4 * kBlock); }
  int block_height(int block) const { return clip(height - block / 4 * kBlock); }
  int64_t pixel(const RasterizeInputs<T>& in, int block, int y) const {  // index of the first pixel of row y
    return (camera * in.height + y0 + block / 4 * kBlock + y) * in.width + x0 + block % 4 * kBlock;
  }

 private:
  static int clip(int n) { return n < 0 ? 0 : n < kBlock ? n : kBlock; }
};

// Calls visit(block, i) for every block that splat i's ellipse meets, in order of i for each block.
template <class P, class Visit>
FGS_HD void for_each_block(const Tile<typename P::Scalar>& tile, const Visit& visit) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  for (int first = 0; first < tile.count; first += L) {
    const int here = tile.count - first < L ? tile.count - first : L;
    int32_t index[L];
    for (int l = 0; l < L; ++l) index[l] = (l < here ? l : here - 1) * kRecord;
    const T* r = tile.records + static_cast<int64_t>(first) * kRecord;
    const P x = P::gather(r, index), y = P::gather(r + 1, index), two(2.0);
    // Conic and reach both times log2(e): the ellipse is the same.
    const Ellipse<P> e = make_ellipse(two * P::gather(r + 2, index), P::gather(r + 3, index),
                                      two * P::gather(r + 4, index), two * (P::gather(r + 5, index) + P(kLog2Of255)));
    const uint32_t real = here == 32 ? ~0u : (1u << here) - 1;
    for (int band = 0; band < 4 && band * kBlock < tile.height; ++band) {
      const P top = P(band * kBlock + 0.5) - y;
      const Interval<P> dx = extent_in_band(e, top, top + P(kBlock - 1.0));
      const P low = x + dx.low, high = x + dx.high;
      for (int across = 0; across < 4 && across * kBlock < tile.width; ++across) {
        uint32_t hit = real & bits((low <= P(across * kBlock + kBlock - 0.5)) & (high >= P(across * kBlock + 0.5)));
        for (; hit; hit &= hit - 1) visit(band * 4 + across, first + __builtin_ctz(hit));
      }
    }
  }
}

// x and y of the centres of a block's 16 pixels, relative to the tile's corner.
template <class P>
struct BlockPixels {
  static constexpr int kPacks = kBlockPixels / P::lanes;
  P x[kPacks], y[kPacks];
  typename P::Mask inside[kPacks];

  template <class T>
  BlockPixels(const Tile<T>& tile, int block) {
    const int width = tile.block_width(block), height = tile.block_height(block);
    T px[kBlockPixels], py[kBlockPixels], in[kBlockPixels];
    for (int i = 0; i < kBlockPixels; ++i) {
      const int column = i % kBlock, row = i / kBlock;
      px[i] = static_cast<T>(block % 4 * kBlock + column) + T(0.5);
      py[i] = static_cast<T>(block / 4 * kBlock + row) + T(0.5);
      in[i] = column < width && row < height ? T(1) : T(0);
    }
    for (int h = 0; h < kPacks; ++h) {
      x[h] = P::load(px + h * P::lanes), y[h] = P::load(py + h * P::lanes);
      inside[h] = P::load(in + h * P::lanes) > P(0.0);
    }
  }
};

// Where a block lies among the tile's feature cells, for cells of whole blocks; and how many real pixels a cell has.
inline int cell_of_block(int block, int cell) {
  const int per_cell = cell / kBlock;
  return block / 4 / per_cell * (kTile / cell) + block % 4 / per_cell;
}

template <class T>
int pixels_in_cell(const Tile<T>& tile, int cell, int cell_x, int cell_y) {
  const int w = tile.width - cell_x * cell, h = tile.height - cell_y * cell;
  return (w < 0 ? 0 : w < cell ? w : cell) * (h < 0 ? 0 : h < cell ? h : cell);
}

}  // namespace FGS_ISA
}  // namespace fgs
