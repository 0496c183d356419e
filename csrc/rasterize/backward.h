// Gradients of one tile, splat by splat from the back, a 4x4 block at a time (contract and formula: rasterize.h).
#pragma once

#include "forward.h"

namespace fgs {
inline namespace FGS_ISA {

// Per block: what the walk from back to front carries along, and the pixels' output gradients.
template <class P>
struct BlockGrads {
  static constexpr int kPacks = BlockPixels<P>::kPacks;
  P t[kPacks];       // transmittance behind the splat at hand
  P behind[kPacks];  // Σ_{j>i} w_j q_j + T_final dL/dT_final
  P r[kPacks], g[kPacks], b[kPacks], z[kPacks];  // dL/dcolor, dL/ddepth / Σw
  P last[kPacks];
  int deepest = 0;   // the largest `last` of the block
};

template <class P>
void load_block(const RasterizeInputs<typename P::Scalar>& in, const RasterizeGrads<typename P::Scalar>& g,
                const Tile<typename P::Scalar>& tile, int block, BlockGrads<P>& s) {
  using T = typename P::Scalar;
  T t[kBlockPixels] = {}, behind[kBlockPixels] = {}, last[kBlockPixels] = {}, z[kBlockPixels] = {};
  T color[3][kBlockPixels] = {};
  const int width = tile.block_width(block), height = tile.block_height(block);
  s.deepest = 0;
  for (int y = 0; y < height; ++y) {
    const int64_t row = tile.pixel(in, block, y);
    for (int x = 0; x < width; ++x) {
      const int i = y * kBlock + x;
      const int64_t at = row + x;
      const T alpha = g.alpha_value[at];
      t[i] = g.transmittance[at];
      last[i] = static_cast<T>(g.last[at]);
      s.deepest = g.last[at] > s.deepest ? g.last[at] : s.deepest;
      if (g.last[at] <= 0) continue;
      T toward_t = g.alpha ? -g.alpha[at] : T(0);
      for (int c = 0; c < 3 && g.color; ++c) {
        color[c][i] = g.color[3 * at + c];
        if (in.background) toward_t += in.background[c] * color[c][i];
      }
      if (g.depth) {
        z[i] = g.depth[at] / alpha;
        toward_t += z[i] * g.depth_value[at];
      }
      behind[i] = t[i] * toward_t;
    }
  }
  for (int h = 0; h < BlockGrads<P>::kPacks; ++h) {
    const int at = h * P::lanes;
    s.t[h] = P::load(t + at), s.behind[h] = P::load(behind + at), s.last[h] = P::load(last + at);
    s.r[h] = P::load(color[0] + at), s.g[h] = P::load(color[1] + at), s.b[h] = P::load(color[2] + at);
    s.z[h] = P::load(z + at);
  }
}

// dL/dfeatures of a block's rows (16 pixels or 4 cells, zero outside the image), a slice of channels.
template <class P, int M>
void load_feature_grads(const RasterizeInputs<typename P::Scalar>& in,
                        const RasterizeGrads<typename P::Scalar>& g, const Tile<typename P::Scalar>& tile, int block,
                        int64_t begin, int64_t count, typename P::Scalar* out) {
  using T = typename P::Scalar;
  for (int m = 0; m < M; ++m, out += kChannelSlice) {
    const int64_t row = feature_row(in, tile, block, m);
    for (int64_t c = 0; c < count; ++c) out[c] = row < 0 ? T(0) : g.features[row * in.channels + begin + c];
    for (int64_t c = count; c % P::lanes; ++c) out[c] = T(0);
  }
}

// Adds each splat's w · dL/dfeatures over the tile's pixels to its slot's row of pair_features.
template <class P, int M>
void spread_feature_grads(const RasterizeInputs<typename P::Scalar>& in,
                          const RasterizeGrads<typename P::Scalar>& g, const Tile<typename P::Scalar>& tile,
                          const BlockWeights<typename P::Scalar>* blocks, Scratch& scratch) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  constexpr int kGroup = L < 16 ? 8 : 16;  // splats at a time
  T* sums = scratch.take<T>(tile.count * kChannelSlice);
  T* rows = scratch.take<T>(M * kChannelSlice);
  for (int64_t done = 0; done < g.channel_count; done += kChannelSlice) {
    const int64_t count = g.channel_count - done < kChannelSlice ? g.channel_count - done : kChannelSlice;
    for (int64_t k = 0; k < tile.count * kChannelSlice; ++k) sums[k] = T(0);
    for (int block = 0; block < kBlocks; ++block) {
      const BlockWeights<T>& w = blocks[block];
      if (!w.count) continue;
      load_feature_grads<P, M>(in, g, tile, block, g.channel_begin + done, count, rows);
      for (int first = 0; first < w.count; first += kGroup) {
        const int here = w.count - first < kGroup ? w.count - first : kGroup;
        for (int64_t c = 0; c < count; c += L) {
          P sum[kGroup][1];
          for (int m = 0; m < kGroup; ++m) sum[m][0] = P(0.0);
          multiply_add<P, kGroup, 1>(
              w.weights + static_cast<int64_t>(first) * M, 1, M, M,
              [&](int k) { return rows + k * kChannelSlice + c; }, sum);
          for (int m = 0; m < here; ++m) {
            T* to = sums + w.splats[first + m] * kChannelSlice + c;
            (P::load(to) + sum[m][0]).store(to);
          }
        }
      }
    }
    for (int i = 0; i < tile.count; ++i) {
      T* to = g.pair_features + static_cast<int64_t>(in.pair_slots[tile.first_pair + i]) * g.channel_count + done;
      for (int64_t c = 0; c < count; ++c) to[c] = sums[i * kChannelSlice + c];
    }
  }
}

// dL/dw by what is made of the weights besides colour and depth: features of small cells, or the averages over large
// ones. One number per splat and cell.
template <class P>
class WeightPull {
  using T = typename P::Scalar;

 public:
  WeightPull(const RasterizeInputs<T>& in, const RasterizeGrads<T>& g, const Tile<T>& tile)
      : in_(in), g_(g), tile_(tile), across_(kTile / in.cell) {}

  // The 16 values of dL/dw of splat i in a block, averaged cells spread over their pixels.
  FGS_HD void operator()(int i, int block, T* out) const {
    if (in_.pooled()) {
      const int cell = cell_of_block(block, in_.cell);
      const int64_t slot = in_.pair_slots[tile_.first_pair + i];
      const T value = g_.weights[slot * in_.cells_per_tile() + cell] /
                      static_cast<T>(pixels_in_cell(tile_, in_.cell, cell % across_, cell / across_));
      for (int k = 0; k < kBlockPixels; ++k) out[k] = value;
      return;
    }
    const int64_t n = in_.pair_gaussians[tile_.first_pair + i] % static_cast<int32_t>(in_.gaussians);
    const T* feature = in_.features + n * in_.channels;
    T scale[4] = {1, 1, 1, 1};
    if (in_.cell == 2) pair_scales(tile_, block, scale);
    const int per_row = kBlock / in_.cell;
    for (int m = 0; m < per_row * per_row; ++m) {
      const int64_t row = feature_row(in_, tile_, block, m);
      const T value = row < 0 ? T(0) : fgs::dot<P>(feature, g_.features + row * in_.channels, in_.channels);
      if (in_.cell == 1) {
        out[m] = value;
      } else {
        const int corner = m / 2 * 8 + m % 2 * 2;
        out[corner] = out[corner + 1] = out[corner + 4] = out[corner + 5] = scale[m] * value;
      }
    }
  }

 private:
  const RasterizeInputs<T>& in_;
  const RasterizeGrads<T>& g_;
  const Tile<T>& tile_;
  int across_;
};

// kWeights: keep the weights of cells smaller than a block for the features' gradient. kPull: WeightPull adds to dL/dw.
template <class P, bool kWeights, bool kPull, bool kAbsolute>
void rasterize_tile_backward(const RasterizeInputs<typename P::Scalar>& in,
                             const RasterizeGrads<typename P::Scalar>& g, int64_t index, Scratch& scratch) {
  using T = typename P::Scalar;
  constexpr int H = BlockGrads<P>::kPacks;
  scratch.reset();
  Tile<T> tile(in, index);
  if (!tile.count) return;
  tile.gather(in, scratch);
  BlockGrads<P> blocks[kBlocks];
  BlockWeights<T> kept[kBlocks] = {};
  T pair_scale[kBlocks][4];
  const int rows_per_block = kBlockPixels / (in.cell * in.cell);
  for (int block = 0; block < kBlocks; ++block) {
    load_block(in, g, tile, block, blocks[block]);
    if constexpr (kWeights) {
      // One spare group, so that the product may read whole groups of splats.
      const int64_t room = blocks[block].deepest + 16;
      kept[block].weights = scratch.take<T>(room * rows_per_block);
      for (int64_t k = 0; k < room * rows_per_block; ++k) kept[block].weights[k] = T(0);
      kept[block].splats = scratch.take<int32_t>(blocks[block].deepest);
      pair_scales(tile, block, pair_scale[block]);
    }
  }
  uint16_t* reached = scratch.take<uint16_t>(tile.count);  // the blocks each splat may have weight in
  for (int i = 0; i < tile.count; ++i) reached[i] = 0;
  for_each_block<P>(tile, [&](int block, int i) {
    if (i < blocks[block].deepest) reached[i] = static_cast<uint16_t>(reached[i] | 1u << block);
  });
  T corner[2][kBlockPixels];
  for (int k = 0; k < kBlockPixels; ++k) {
    corner[0][k] = static_cast<T>(k % kBlock) + T(0.5);
    corner[1][k] = static_cast<T>(k / kBlock) + T(0.5);
  }
  const WeightPull<P> pull(in, g, tile);
  const P zero(0.0), one(1.0), min_alpha(kMinAlpha), max_alpha(kMaxAlpha);

  for (int i = tile.count - 1; i >= 0; --i) {
    T* pair = g.pairs + static_cast<int64_t>(in.pair_slots[tile.first_pair + i]) * kRecord;
    if (!reached[i]) {
      if (g.geometry)
        for (int k = 0; k < kRecord; ++k) pair[k] = T(0);
      continue;
    }
    const Splat<T> splat = tile.splat(i);
    const T* payload = tile.payload(i);
    const P place(static_cast<double>(i));
    P sums[kRecord];  // r, g, b, z, then the moments 1, x, y, xx, xy, yy, then |x|, |y|
    for (P& s : sums) s = zero;
    for (uint32_t left = reached[i]; left; left &= left - 1) {
      const int block = __builtin_ctz(left);
      BlockGrads<P>& s = blocks[block];
      const T offset_x = static_cast<T>(block % 4 * kBlock) - splat.x;
      const T offset_y = static_cast<T>(block / 4 * kBlock) - splat.y;
      [[maybe_unused]] P w_kept[H];
      [[maybe_unused]] T pulled[kBlockPixels];
      if constexpr (kPull) pull(i, block, pulled);
      bool some = false;
      for (int h = 0; h < H; ++h) {
        const P dx = P::load(corner[0] + h * P::lanes) + P(offset_x);
        const P dy = P::load(corner[1] + h * P::lanes) + P(offset_y);
        const P raw = raw_alpha<P, T>(splat, dx, dy);
        const auto blended = (raw >= min_alpha) & (place < s.last[h]);
        const P alpha = select(blended, min(raw, max_alpha), zero);
        const P through = reciprocal(one - alpha);
        const P t = s.t[h] * through;
        const P w = alpha * t;
        s.t[h] = t;
        P q = P(payload[0]) * s.r[h];
        q = fma(P(payload[1]), s.g[h], q);
        q = fma(P(payload[2]), s.b[h], q);
        q = fma(P(payload[3]), s.z[h], q);
        if constexpr (kPull) q = q + P::load(pulled + h * P::lanes);
        sums[0] = fma(w, s.r[h], sums[0]);
        sums[1] = fma(w, s.g[h], sums[1]);
        sums[2] = fma(w, s.b[h], sums[2]);
        sums[3] = fma(w, s.z[h], sums[3]);
        const P g_alpha = t * q - through * s.behind[h];
        s.behind[h] = fma(w, q, s.behind[h]);
        const P m = select(raw <= max_alpha, alpha * g_alpha, zero);
        const P mx = m * dx, my = m * dy;
        sums[4] = sums[4] + m;
        sums[5] = sums[5] + mx;
        sums[6] = sums[6] + my;
        sums[7] = fma(mx, dx, sums[7]);
        sums[8] = fma(mx, dy, sums[8]);
        sums[9] = fma(my, dy, sums[9]);
        if constexpr (kAbsolute) {  // conic · (mx, my), from a, b, c = log2(e) (xx/2, xy, yy/2)
          const P two_a(2 * splat.a), b(splat.b), two_c(2 * splat.c);
          sums[10] = sums[10] + abs(fma(two_a, mx, b * my));
          sums[11] = sums[11] + abs(fma(b, mx, two_c * my));
        }
        if constexpr (kWeights) {
          w_kept[h] = w;
          some |= any(blended);
        }
      }
      if constexpr (kWeights) {
        if (some) {
          BlockWeights<T>& k = kept[block];
          T each[kBlockPixels];
          T* to = k.weights + static_cast<int64_t>(k.count) * rows_per_block;
          for (int h = 0; h < H; ++h) w_kept[h].store((in.cell == 1 ? to : each) + h * P::lanes);
          if (in.cell == 2) pool_pairs(each, pair_scale[block], to);
          k.splats[k.count++] = i;
        }
      }
    }
    if (g.geometry) sum_rows(sums, pair);
  }
  if constexpr (kWeights) {
    if (in.cell == 1) spread_feature_grads<P, 16>(in, g, tile, kept, scratch);
    if (in.cell == 2) spread_feature_grads<P, 4>(in, g, tile, kept, scratch);
  }
}

}  // namespace FGS_ISA
}  // namespace fgs
