// Blends one tile front to back, a 4x4 block at a time with its state in registers (contract: rasterize.h).
#pragma once

#include <type_traits>

#include "../simd/product.h"
#include "tile.h"

namespace fgs {
inline namespace FGS_ISA {

// What is made besides the images: nothing; weights of cells of whole blocks; features of cells of 1 or 2 pixels.
enum class FeatureCells { kNone, kPooled, kPixels };

// The state of a block while it is blended.
template <class P>
struct BlockState {
  static constexpr int kPacks = BlockPixels<P>::kPacks;
  P t[kPacks], weight[kPacks], r[kPacks], g[kPacks], b[kPacks], z[kPacks], median[kPacks], last[kPacks];

  BlockState() {
    const P zero(0.0);
    for (int h = 0; h < kPacks; ++h) {
      t[h] = P(1.0);
      weight[h] = r[h] = g[h] = b[h] = z[h] = median[h] = last[h] = zero;
    }
  }
};

// Blends the listed splats into the block until every pixel is opaque. on_weights(i, w, some) is told splat i's 16
// weights and whether any of them may not be zero.
template <class P, class OnWeights>
FGS_HD void blend_block(const Tile<typename P::Scalar>& tile, const BlockPixels<P>& pixels, const int32_t* list,
                       int count, BlockState<P>& s, const OnWeights& on_weights) {
  using T = typename P::Scalar;
  constexpr int H = BlockState<P>::kPacks;
  typename P::Mask alive[H];
  for (int h = 0; h < H; ++h) alive[h] = pixels.inside[h];
  const P zero(0.0), min_alpha(kMinAlpha), max_alpha(kMaxAlpha), min_t(kMinTransmittance), half(0.5);
  for (int k = 0; k < count; ++k) {
    const Splat<T> splat = tile.splat(list[k]);
    const T* payload = tile.payload(list[k]);
    const P index(static_cast<double>(list[k] + 1));
    P w[H];
    bool some_alive = false, some_blended = false;
    for (int h = 0; h < H; ++h) {
      const P raw = raw_alpha<P, T>(splat, pixels.x[h] - P(splat.x), pixels.y[h] - P(splat.y));
      const auto reached = alive[h] & (raw >= min_alpha);
      w[h] = s.t[h] * min(raw, max_alpha);
      const P next = s.t[h] - w[h];
      const auto goes_on = next > min_t;
      const auto blended = reached & goes_on;
      alive[h] = alive[h] & (goes_on | !reached);
      w[h] = select(blended, w[h], zero);
      s.weight[h] = s.weight[h] + w[h];
      s.r[h] = fma(w[h], P(payload[0]), s.r[h]);
      s.g[h] = fma(w[h], P(payload[1]), s.g[h]);
      s.b[h] = fma(w[h], P(payload[2]), s.b[h]);
      s.z[h] = fma(w[h], P(payload[3]), s.z[h]);
      s.median[h] = select(blended & (s.t[h] >= half) & (next < half), P(payload[3]), s.median[h]);
      s.t[h] = select(blended, next, s.t[h]);
      s.last[h] = select(blended, index, s.last[h]);
      some_alive |= any(alive[h]);
      some_blended |= any(blended);
    }
    on_weights(list[k], w, some_blended);
    if (!some_alive) return;
  }
}

template <class P>
void write_block(const RasterizeInputs<typename P::Scalar>& in, const RasterizeOutputs<typename P::Scalar>& out,
                 const Tile<typename P::Scalar>& tile, int block, const BlockState<P>& s) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  const P zero(0.0);
  T channel[3][kBlockPixels], t[kBlockPixels], depth[kBlockPixels], median[kBlockPixels], last[kBlockPixels];
  for (int h = 0; h < BlockState<P>::kPacks; ++h) {
    const T* bg = in.background;
    (bg ? fma(s.t[h], P(bg[0]), s.r[h]) : s.r[h]).store(channel[0] + h * L);
    (bg ? fma(s.t[h], P(bg[1]), s.g[h]) : s.g[h]).store(channel[1] + h * L);
    (bg ? fma(s.t[h], P(bg[2]), s.b[h]) : s.b[h]).store(channel[2] + h * L);
    s.t[h].store(t + h * L);
    const auto covered = s.weight[h] > zero;
    select(covered, s.z[h] / select(covered, s.weight[h], P(1.0)), zero).store(depth + h * L);
    s.median[h].store(median + h * L);
    s.last[h].store(last + h * L);
  }
  const int width = tile.block_width(block), height = tile.block_height(block);
  for (int y = 0; y < height; ++y) {
    const int64_t row = tile.pixel(in, block, y);
    for (int x = 0; x < width; ++x) {
      const int i = y * kBlock + x;
      const int64_t at = row + x;
      for (int c = 0; c < 3; ++c) out.color[3 * at + c] = channel[c][i];
      out.alpha[at] = T(1) - t[i];
      out.depth[at] = depth[i];
      out.median_depth[at] = median[i];
      out.transmittance[at] = t[i];
      out.last[at] = static_cast<int32_t>(last[i]);
    }
  }
}

// Averages each splat's weights over cells of whole blocks, into its slot's row.
template <class P>
class CellWeights {
  using T = typename P::Scalar;

 public:
  CellWeights(const RasterizeInputs<T>& in, const Tile<T>& tile, Scratch& scratch)
      : cells_(in.cells_per_tile()), sums_(scratch.take<T>(static_cast<int64_t>(tile.count) * in.cells_per_tile())) {
    for (int64_t k = 0; k < static_cast<int64_t>(tile.count) * cells_; ++k) sums_[k] = T(0);
  }
  FGS_HD void add(int splat, int cell, const P* w) {
    P total = w[0];
    for (int h = 1; h < BlockPixels<P>::kPacks; ++h) total = total + w[h];
    sums_[static_cast<int64_t>(splat) * cells_ + cell] += sum(total);
  }
  void write(const RasterizeInputs<T>& in, const RasterizeOutputs<T>& out, const Tile<T>& tile) const {
    const int across = kTile / in.cell;
    T scale[kBlocks];
    for (int cell = 0; cell < cells_; ++cell) {
      const int pixels = pixels_in_cell(tile, in.cell, cell % across, cell / across);
      scale[cell] = pixels ? T(1) / static_cast<T>(pixels) : T(0);
    }
    for (int i = 0; i < tile.count; ++i) {
      T* row = out.weights + static_cast<int64_t>(in.pair_slots[tile.first_pair + i]) * cells_;
      const T* sum = sums_ + static_cast<int64_t>(i) * cells_;
      for (int cell = 0; cell < cells_; ++cell) row[cell] = scale[cell] * sum[cell];
    }
  }

 private:
  int cells_;
  T* sums_;
};

// Of a block: which splats have weights there and what these are, 16 for cells of one pixel, 4 for cells of two.
template <class T>
struct BlockWeights {
  T* weights;      // [count, 16 or 4]
  int32_t* splats; // [count]
  int count;
};

// Mean of a block's 16 weights over its four cells of 2x2 pixels, of which only `inside` ones count.
template <class T>
FGS_HD void pool_pairs(const T* w, const T* scale, T* out) {
  for (int c = 0; c < 4; ++c) {
    const int at = c / 2 * 8 + c % 2 * 2;
    out[c] = scale[c] * (w[at] + w[at + 1] + w[at + 4] + w[at + 5]);
  }
}

template <class T>
void pair_scales(const Tile<T>& tile, int block, T* scale) {
  const int width = tile.block_width(block), height = tile.block_height(block);
  for (int c = 0; c < 4; ++c) {
    const int w = width - c % 2 * 2, h = height - c / 2 * 2;
    const int pixels = (w < 0 ? 0 : w < 2 ? w : 2) * (h < 0 ? 0 : h < 2 ? h : 2);
    scale[c] = pixels ? T(1) / static_cast<T>(pixels) : T(0);
  }
}

// Where row m of a block's features lies in [B, cells_y, cells_x, C] for cells of 1 or 2 pixels; -1 outside the image.
template <class T>
int64_t feature_row(const RasterizeInputs<T>& in, const Tile<T>& tile, int block, int m) {
  const int across = kBlock / in.cell;
  const int64_t x = (tile.x0 + block % 4 * kBlock) / in.cell + m % across;
  const int64_t y = (tile.y0 + block / 4 * kBlock) / in.cell + m / across;
  return x < in.cells_x() && y < in.cells_y() ? (tile.camera * in.cells_y() + y) * in.cells_x() + x : -1;
}

// One slice of channels of the tile's splats, side by side, zero-padded to whole packs.
template <class P>
void gather_slice(const RasterizeInputs<typename P::Scalar>& in, const Tile<typename P::Scalar>& tile, int64_t begin,
                  int64_t count, typename P::Scalar* slice) {
  using T = typename P::Scalar;
  for (int i = 0; i < tile.count; ++i, slice += kChannelSlice) {
    const int64_t n = in.pair_gaussians[tile.first_pair + i] % static_cast<int32_t>(in.gaussians);
    const T* from = in.features + n * in.channels + begin;
    for (int64_t c = 0; c < count; ++c) slice[c] = from[c];
    for (int64_t c = count; c % P::lanes; ++c) slice[c] = T(0);
  }
}

// Features of a tile whose cells are smaller than a block: per block, weights [M, count] times slices of F.
template <class P, int M>
void blend_pixel_features(const RasterizeInputs<typename P::Scalar>& in,
                          const RasterizeOutputs<typename P::Scalar>& out, const Tile<typename P::Scalar>& tile,
                          const BlockWeights<typename P::Scalar>* blocks, Scratch& scratch) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  constexpr int kRows = M == 16 && L < 16 ? 8 : M;  // accumulators that fit the registers
  T* slice = scratch.take<T>(tile.count * kChannelSlice);
  for (int64_t begin = 0; begin < in.channels; begin += kChannelSlice) {
    const int64_t count = in.channels - begin < kChannelSlice ? in.channels - begin : kChannelSlice;
    gather_slice<P>(in, tile, begin, count, slice);
    for (int block = 0; block < kBlocks; ++block) {
      const BlockWeights<T>& w = blocks[block];
      for (int first = 0; first < M; first += kRows) {
        for (int64_t c = 0; c < count; c += L) {
          P sum[kRows][1];
          for (auto& line : sum) line[0] = P(0.0);
          multiply_add<P, kRows, 1>(
              w.weights + first, M, 1, w.count,
              [&](int k) { return slice + w.splats[k] * kChannelSlice + c; }, sum);
          for (int m = 0; m < kRows; ++m) {
            const int64_t row = feature_row(in, tile, block, first + m);
            if (row < 0) continue;
            T* to = out.features + row * in.channels + begin + c;
            if (c + L <= count) {
              sum[m][0].store(to);
            } else {
              T spare[L];
              sum[m][0].store(spare);
              for (int64_t l = 0; l < count - c; ++l) to[l] = spare[l];
            }
          }
        }
      }
    }
  }
}

template <class P, FeatureCells kCells>
void rasterize_tile(const RasterizeInputs<typename P::Scalar>& in, const RasterizeOutputs<typename P::Scalar>& out,
                    int64_t index, Scratch& scratch) {
  using T = typename P::Scalar;
  scratch.reset();
  Tile<T> tile(in, index);
  tile.gather(in, scratch);
  int32_t* lists = scratch.take<int32_t>(static_cast<int64_t>(kBlocks) * tile.count);
  int counts[kBlocks] = {};
  for_each_block<P>(
      tile, [&](int block, int i) { lists[static_cast<int64_t>(block) * tile.count + counts[block]++] = i; });

  const auto blend = [&](int block, const auto& on_weights) {
    if (!tile.block_width(block) || !tile.block_height(block)) return;
    BlockState<P> state;
    blend_block(tile, BlockPixels<P>(tile, block), lists + static_cast<int64_t>(block) * tile.count, counts[block],
                state, on_weights);
    write_block(in, out, tile, block, state);
  };
  if constexpr (kCells == FeatureCells::kNone) {
    for (int block = 0; block < kBlocks; ++block) blend(block, [](int, const P*, bool) {});
  } else if constexpr (kCells == FeatureCells::kPooled) {
    CellWeights<P> weights(in, tile, scratch);
    for (int block = 0; block < kBlocks; ++block) {
      const int cell = cell_of_block(block, in.cell);
      blend(block, [&](int splat, const P* w, bool) { weights.add(splat, cell, w); });
    }
    weights.write(in, out, tile);
  } else {
    BlockWeights<T> kept[kBlocks] = {};
    const int rows_per_block = kBlockPixels / (in.cell * in.cell);
    for (int block = 0; block < kBlocks; ++block) {
      BlockWeights<T>& k = kept[block];
      k.weights = scratch.take<T>(static_cast<int64_t>(counts[block]) * rows_per_block);
      k.splats = scratch.take<int32_t>(counts[block]);
      T scale[4];
      pair_scales(tile, block, scale);
      blend(block, [&](int splat, const P* w, bool some) {
        if (!some) return;
        T each[kBlockPixels];
        T* to = k.weights + static_cast<int64_t>(k.count) * rows_per_block;
        for (int h = 0; h < BlockPixels<P>::kPacks; ++h) w[h].store((in.cell == 1 ? to : each) + h * P::lanes);
        if (in.cell == 2) pool_pairs(each, scale, to);
        k.splats[k.count++] = splat;
      });
    }
    if (in.cell == 1) blend_pixel_features<P, 16>(in, out, tile, kept, scratch);
    if (in.cell == 2) blend_pixel_features<P, 4>(in, out, tile, kept, scratch);
  }
}

}  // namespace FGS_ISA
}  // namespace fgs
