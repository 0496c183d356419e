// rasterize: sorted splats per tile -> colour, alpha, depth, features, for B cameras.
//
//   means2d [B, N, 2], conics [B, N, 3], opacities [B, N], colors [B, N, 3], depths [B, N],
//   features [N, C] or absent (only for cells of 1 or 2 pixels), background [3] or absent, and of intersect
//   tile_offsets, pair_gaussians, pair_slots and gaussian_offsets
//   -> color [B, H, W, 3]      Σ w c + T background
//      alpha [B, H, W]         1 - T
//      depth [B, H, W]         Σ w z / Σ w, 0 where nothing is
//      median_depth [B, H, W]  z of the splat that takes T below 0.5, 0 where none does (no gradient)
//      features [B, ceil(H/cell), ceil(W/cell), C]   mean over a cell's pixels of Σ w f
//      weights [P, R], by slot, for cells >= 4: w averaged over each of the R = (16 / cell)² cells of the pair's tile,
//      0 for cells outside the image. From these ../cells/ makes the features of such cells.
//      and for the backward pass: transmittance [B, H, W] = T after the last splat; last [B, H, W] int32, the place in
//      the tile's list just behind the last splat blended
//   with w_i = alpha_i T_i, T_i = Π_{j<i} (1 - alpha_j), rules of blending in math/blend.h.
//
// Gradients, with q_i = dL/dw_i = c_i·dL/dcolor + z_i dL/ddepth / Σw + e_i / (pixels of the cell), where e_i is
// dL/dweights of the pixel's cell or, if features are to move geometry, f_i·dL/dfeatures there:
//   dL/dalpha_i = T_i q_i - (Σ_{j>i} w_j q_j + T_final dL/dT_final) / (1 - alpha_i)
// taken back to front, so that one running sum per pixel replaces one per channel. Per pair they go to a slot of their
// own and are then summed slot by slot: no atomics, the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "../intersect/intersect.h"
#include "../math/host_device.h"

namespace fgs {

constexpr int kBlock = 4;                      // a tile is worked on in 4x4 blocks of 16 pixels
constexpr int kBlocks = (kTile / kBlock) * (kTile / kBlock);
constexpr int kBlockPixels = kBlock * kBlock;

constexpr int64_t kChannelSlice = 64;  // channels worked on at a time

// A splat packed for one gather: x, y, a, b, c, log2 opacity (math/blend.h), r, g, b, depth.
constexpr int kRecord = 16;

template <class T>
struct RasterizeInputs {
  const T* records;   // [B * N, kRecord], or kCudaRecord for the CUDA twin
  const T* features;  // [N, C] or null
  const T* background;
  const int64_t* tile_offsets;
  const int32_t *pair_gaussians, *pair_slots;
  int64_t cameras, gaussians, pairs, width, height, channels;
  int cell;
  bool features_move_geometry;

  FGS_HD int64_t splats() const { return cameras * gaussians; }
  FGS_HD int64_t tiles_x() const { return (width + kTile - 1) / kTile; }
  FGS_HD int64_t tiles_y() const { return (height + kTile - 1) / kTile; }
  FGS_HD int64_t cells_x() const { return (width + cell - 1) / cell; }
  FGS_HD int64_t cells_y() const { return (height + cell - 1) / cell; }
  FGS_HD int cells_per_tile() const { return (kTile / cell) * (kTile / cell); }
  FGS_HD bool pooled() const { return cell >= kBlock; }  // cells of whole blocks: their weights are put out
};

template <class T>
struct RasterizeOutputs {
  T *color, *alpha, *depth, *median_depth, *features, *transmittance;
  int32_t* last;
  T* weights;
};

template <class T>
struct RasterizeGrads {
  // in
  const T *color, *alpha, *depth, *features, *weights;  // dL/d..., any may be null
  const T *depth_value, *alpha_value, *transmittance;   // results of the forward pass
  const int32_t* last;
  // between: by slot
  T* pairs;  // [P, kRecord or kCudaRecord]: Σ w dL/dcolor (3), Σ w dL/ddepth / Σw, moments of alpha dL/dalpha (6), absgrad (2)
  T* pair_features;  // [P, channel_count], for cells < 4
  int64_t channel_begin, channel_count;  // the channels of this round
  bool geometry;     // whether the splats get theirs; later rounds are for features only
  bool absgrad;
};

}  // namespace fgs
