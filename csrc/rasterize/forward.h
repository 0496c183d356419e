// Blends one tile front to back, a 4x4 block at a time with its state in registers (contract: rasterize.h).
#pragma once

#include <type_traits>

#include "product.h"
#include "tile.h"

namespace fgs {
inline namespace FGS_ISA {

enum class FeatureCells { kNone, kPooled, kPixels };  // no features; cells of whole blocks; cells of 1 or 2 pixels

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

// Blends the listed splats into the block until every pixel is opaque. on_weights(i, w) is told splat i's 16 weights,
// if any is not zero.
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
    if (some_blended) on_weights(list[k], w);
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

// The weights of each splat summed over a cell of one or more whole blocks. They are added up pack by pack, and the
// lanes of 16 splats are summed together when the cell is done.
template <class P>
class CellWeights {
  using T = typename P::Scalar;

 public:
  // `weights` [count, cells] is written; room is taken for a pack per splat.
  CellWeights(T* weights, int cells, int count, bool one_block, Scratch& scratch)
      : weights_(weights), cells_(cells), count_(count), one_block_(one_block) {
    const int64_t whole = (count + 15) / 16 * 16;
    sums_ = scratch.take<T>(whole * P::lanes);
    splats_ = scratch.take<int32_t>(whole);
    for (int64_t k = 0; k < static_cast<int64_t>(count) * cells; ++k) weights[k] = T(0);
    for (int k = 0; k < count; ++k) splats_[k] = k;
  }
  void begin() {
    rows_ = one_block_ ? 0 : count_;
    for (int k = 0; k < rows_; ++k) P(0.0).store(sums_ + k * P::lanes);
  }
  FGS_HD void add(int splat, const P* w) {
    P total = w[0];
    for (int h = 1; h < BlockPixels<P>::kPacks; ++h) total = total + w[h];
    if (one_block_) {
      splats_[rows_] = splat;
      total.store(sums_ + rows_++ * P::lanes);
    } else {
      T* sum = sums_ + splat * P::lanes;
      (P::load(sum) + total).store(sum);
    }
  }
  void finish(int cell) {
    for (int first = 0; first < rows_; first += 16) {
      P pack[16];
      T total[16];
      for (int k = 0; k < 16; ++k) pack[k] = first + k < rows_ ? P::load(sums_ + (first + k) * P::lanes) : P(0.0);
      sum_rows(pack, total);
      for (int k = 0; k < 16 && first + k < rows_; ++k)
        weights_[static_cast<int64_t>(splats_[first + k]) * cells_ + cell] = total[k];
    }
  }

 private:
  T *weights_, *sums_;
  int32_t* splats_;
  int cells_, count_, rows_ = 0;
  bool one_block_;  // then rows follow the order of add(), otherwise there is one per splat
};

// Features of a tile from pooled weights [count, R]: rows of F straight from the splats' features.
template <class P, int R>
void blend_pooled_features(const RasterizeInputs<typename P::Scalar>& in,
                           const RasterizeOutputs<typename P::Scalar>& out, const Tile<typename P::Scalar>& tile,
                           typename P::Scalar* weights, Scratch& scratch) {
  using T = typename P::Scalar;
  constexpr int across = R == 1 ? 1 : R == 4 ? 2 : 4;
  T scale[R];
  for (int r = 0; r < R; ++r) {
    const int pixels = pixels_in_cell(tile, in.cell, r % across, r / across);
    scale[r] = pixels ? T(1) / static_cast<T>(pixels) : T(0);
  }
  int32_t* rows = scratch.take<int32_t>(tile.count);
  int used = 0;
  for (int i = 0; i < tile.count; ++i) {
    T* saved = out.weights + static_cast<int64_t>(in.pair_slots[tile.first_pair + i]) * R;
    T total = 0;
    for (int r = 0; r < R; ++r) {
      const T w = weights[static_cast<int64_t>(i) * R + r] * scale[r];
      saved[r] = w;
      total += w;
      weights[static_cast<int64_t>(used) * R + r] = w;
    }
    if (total > T(0)) rows[used++] = in.pair_gaussians[tile.first_pair + i] % static_cast<int32_t>(in.gaussians);
  }
  const int64_t cell_x = tile.x0 / in.cell, cell_y = tile.y0 / in.cell;
  multiply_rows<P, R>(
      weights, used, [&](int k) { return in.features + static_cast<int64_t>(rows[k]) * in.channels; }, in.channels,
      [&](int r) -> T* {
        const int64_t x = cell_x + r % across, y = cell_y + r / across;
        if (x >= in.cells_x() || y >= in.cells_y()) return nullptr;
        return out.features + ((tile.camera * in.cells_y() + y) * in.cells_x() + x) * in.channels;
      });
}

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
  for_each_block<P>(tile, [&](int block, int i) { lists[static_cast<int64_t>(block) * tile.count + counts[block]++] = i; });

  const auto blend = [&](int block, const auto& on_weights) {
    if (!tile.block_width(block) || !tile.block_height(block)) return;
    BlockState<P> state;
    blend_block(tile, BlockPixels<P>(tile, block), lists + static_cast<int64_t>(block) * tile.count, counts[block],
                state, on_weights);
    write_block(in, out, tile, block, state);
  };
  if constexpr (kCells == FeatureCells::kNone) {
    for (int block = 0; block < kBlocks; ++block) blend(block, [](int, const P*) {});
  } else if constexpr (kCells == FeatureCells::kPooled) {
    const int cells = in.cells_per_tile();
    T* pooled = scratch.take<T>(static_cast<int64_t>(tile.count) * cells);
    CellWeights<P> weights(pooled, cells, tile.count, cells == kBlocks, scratch);
    for (int cell = 0; cell < cells; ++cell) {
      weights.begin();
      for (int block = 0; block < kBlocks; ++block)
        if (cell_of_block(block, in.cell) == cell)
          blend(block, [&](int splat, const P* w) { weights.add(splat, w); });
      weights.finish(cell);
    }
    if (cells == 1) blend_pooled_features<P, 1>(in, out, tile, pooled, scratch);
    if (cells == 4) blend_pooled_features<P, 4>(in, out, tile, pooled, scratch);
    if (cells == 16) blend_pooled_features<P, 16>(in, out, tile, pooled, scratch);
  } else {
    BlockWeights<T> kept[kBlocks] = {};
    const int rows_per_block = kBlockPixels / (in.cell * in.cell);
    for (int block = 0; block < kBlocks; ++block) {
      BlockWeights<T>& k = kept[block];
      k.weights = scratch.take<T>(static_cast<int64_t>(counts[block]) * rows_per_block);
      k.splats = scratch.take<int32_t>(counts[block]);
      T scale[4];
      pair_scales(tile, block, scale);
      blend(block, [&](int splat, const P* w) {
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
