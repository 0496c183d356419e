// CPU twin of rasterize (contract: rasterize.h): tiles in parallel, then sums by Gaussian.
#include "rasterize.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../intersect/lists.h"
#include "../math/blend.h"
#include "../parallel.h"
#include "../simd/kernels.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 1024;
constexpr int64_t kPairFeatureBytes = int64_t{256} << 20;  // working memory for feature gradients of small cells

constexpr int64_t kBatch = 4;  // tiles a thread takes at a time: neighbours, which share splats

// Interleaves the bits of x and y: tiles that are near in this order are near in the image.
uint64_t morton(uint64_t x, uint64_t y) {
  uint64_t code = 0;
  for (int bit = 0; bit < 24; ++bit) code |= (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1);
  return code;
}

// Tiles with very long lists first, so that none of them is begun last; the others along a curve through the image.
std::vector<int64_t> tile_order(const int64_t* offsets, int64_t cameras, int64_t tiles_x, int64_t tiles_y) {
  const int64_t per_camera = tiles_x * tiles_y, tiles = cameras * per_camera;
  const int64_t long_list = 4 * offsets[tiles] / std::max<int64_t>(tiles, 1);
  std::vector<std::pair<uint64_t, int64_t>> keyed(static_cast<size_t>(tiles));
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t count = offsets[t + 1] - offsets[t], at = t % per_camera;
    const uint64_t place = static_cast<uint64_t>(t / per_camera) << 48 |
                           morton(static_cast<uint64_t>(at % tiles_x), static_cast<uint64_t>(at / tiles_x));
    keyed[static_cast<size_t>(t)] = {count > long_list ? 0 : 1 + place, t};
  }
  std::sort(keyed.begin(), keyed.end());
  std::vector<int64_t> order(keyed.size());
  std::transform(keyed.begin(), keyed.end(), order.begin(), [](const auto& tile) { return tile.second; });
  return order;
}

struct Inputs {
  Tensor means2d, conics, opacities, colors, depths;
  std::optional<Tensor> features, background;
  Tensor tile_offsets, pair_gaussians, pair_slots, gaussian_offsets;
  int64_t width, height, cell;
  bool features_move_geometry;
  ScalarType dtype = ScalarType::Float;
  Tensor records = {};  // filled by pack_records

  void check() {
    STD_TORCH_CHECK(cell == 1 || cell == 2 || cell == 4 || cell == 8 || cell == 16,
                    "feature_cell must be 1, 2, 4, 8 or 16, got ", cell);
    STD_TORCH_CHECK(!features || cell < kBlock, "features must be absent for cells of ", kBlock,
                    " pixels or more: blend_cells takes them");
    dtype = floating_dtype(means2d, "means2d");
    check_shape(means2d, "means2d", {kAny, kAny, 2}, "[B, N, 2]");
    const int64_t B = means2d.size(0), N = means2d.size(1);
    means2d = checked(means2d, "means2d", dtype, {B, N, 2}, "[B, N, 2]");
    conics = checked(conics, "conics", dtype, {B, N, 3}, "[B, N, 3]");
    opacities = checked(opacities, "opacities", dtype, {B, N}, "[B, N]");
    colors = checked(colors, "colors", dtype, {B, N, 3}, "[B, N, 3]");
    depths = checked(depths, "depths", dtype, {B, N}, "[B, N]");
    if (features) {
      check_shape(*features, "features", {N, kAny}, "[N, C]");
      STD_TORCH_CHECK(features->size(1) >= 1, "features must have at least one channel, got ", shape_text(*features));
      features = checked(*features, "features", dtype, {N, features->size(1)}, "[N, C]");
    }
    if (background) background = checked(*background, "background", dtype, {3}, "[3]");
    const int64_t tiles = checked_tiles(B, width, height), pairs = pair_gaussians.numel();
    tile_offsets = checked(tile_offsets, "tile_offsets", ScalarType::Long, {tiles + 1}, "[B * tiles + 1]");
    gaussian_offsets = checked(gaussian_offsets, "gaussian_offsets", ScalarType::Long, {B * N + 1}, "[B * N + 1]");
    pair_gaussians = checked(pair_gaussians, "pair_gaussians", ScalarType::Int, {pairs}, "[P]");
    pair_slots = checked(pair_slots, "pair_slots", ScalarType::Int, {pairs}, "[P]");
    check_offsets(tile_offsets, "tile_offsets", pairs, "P");
    check_offsets(gaussian_offsets, "gaussian_offsets", pairs, "P");
    check_indices(pair_gaussians, "pair_gaussians", B * N, "B * N");
    check_indices(pair_slots, "pair_slots", pairs, "P");
  }

  int64_t cameras() const { return means2d.size(0); }
  int64_t gaussians() const { return means2d.size(1); }
  int64_t channels() const { return features ? features->size(1) : 0; }
  int64_t cells_per_tile() const { return (kTile / cell) * (kTile / cell); }

  template <class T>
  void pack_records() {
    const int64_t total = cameras() * gaussians();
    records = torch::stable::empty({total, kRecord}, dtype);
    T* out = mutable_data<T>(records);
    const T *xy = data<T>(means2d), *conic = data<T>(conics), *o = data<T>(opacities), *rgb = data<T>(colors),
            *z = data<T>(depths);
    const int64_t* offsets = data<int64_t>(gaussian_offsets);
    torch::stable::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (offsets[i] == offsets[i + 1]) continue;  // in no list: never read
        T* r = out + i * kRecord;
        const Splat<T> s = make_splat(xy[2 * i], xy[2 * i + 1], conic[3 * i], conic[3 * i + 1], conic[3 * i + 2], o[i]);
        r[0] = s.x, r[1] = s.y, r[2] = s.a, r[3] = s.b, r[4] = s.c, r[5] = s.log2_opacity;
        r[6] = rgb[3 * i], r[7] = rgb[3 * i + 1], r[8] = rgb[3 * i + 2], r[9] = z[i];
        for (int k = 10; k < kRecord; ++k) r[k] = T(0);
      }
    });
  }

  template <class T>
  RasterizeInputs<T> raw() const {
    return {data<T>(records),
            data<T>(features),
            data<T>(background),
            data<int64_t>(tile_offsets),
            data<int32_t>(pair_gaussians),
            data<int32_t>(pair_slots),
            cameras(),
            gaussians(),
            width,
            height,
            channels(),
            static_cast<int>(cell),
            features_move_geometry};
  }
};

using RasterizeResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

RasterizeResult rasterize_cpu(Tensor means2d, Tensor conics, Tensor opacities, Tensor colors, Tensor depths,
                              std::optional<Tensor> features, std::optional<Tensor> background,
                              std::optional<Tensor> /*absgrad*/, Tensor tile_offsets, Tensor pair_gaussians,
                              Tensor pair_slots, Tensor gaussian_offsets, int64_t width, int64_t height, int64_t cell,
                              bool features_move_geometry) {
  Inputs in{means2d,    conics,       opacities,      colors,     depths,           features,
            background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
            height,     cell,         features_move_geometry};
  in.check();
  const int64_t B = in.cameras(), C = in.channels();
  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) {
    return torch::stable::empty(shape, in.dtype);
  };
  Tensor color = make({B, height, width, 3}), alpha = make({B, height, width}), depth = make({B, height, width});
  Tensor median = make({B, height, width}), transmittance = make({B, height, width});
  Tensor last = torch::stable::empty({B, height, width}, ScalarType::Int);
  Tensor blended = make({in.features ? B : 0, (height + cell - 1) / cell, (width + cell - 1) / cell, C});
  const bool pooled = cell >= kBlock;
  Tensor weights = make({pooled ? pair_slots.numel() : 0, pooled ? in.cells_per_tile() : 0});
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    in.pack_records<T>();
    const RasterizeInputs<T> inputs = in.raw<T>();
    const RasterizeOutputs<T> outputs{mutable_data<T>(color),         mutable_data<T>(alpha),
                                      mutable_data<T>(depth),         mutable_data<T>(median),
                                      mutable_data<T>(blended),       mutable_data<T>(transmittance),
                                      mutable_data<int32_t>(last),    mutable_data<T>(weights)};
    const Kernels<T>& kernel = kernels(zero);
    const std::vector<int64_t> order = tile_order(inputs.tile_offsets, B, inputs.tiles_x(), inputs.tiles_y());
    share_work(std::ssize(order), kBatch, [&](int64_t k, Scratch& scratch) {
      kernel.rasterize_tile(inputs, outputs, order[static_cast<size_t>(k)], scratch);
    });
  };
  in.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {color, alpha, depth, median, blended, transmittance, last, weights};
}

// Sums the slots of each splat into the gradients of its 2D parameters.
template <class T>
void sum_pairs(const Inputs& in, const T* pairs, T* xy, T* conic, T* opacity, T* rgb, T* z, T* absolute) {
  const int64_t total = in.cameras() * in.gaussians();
  const int64_t* offsets = data<int64_t>(in.gaussian_offsets);
  const T *conics = data<T>(in.conics), *opacities = data<T>(in.opacities);
  torch::stable::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T sum[kRecord] = {};
      for (int64_t slot = offsets[i]; slot < offsets[i + 1]; ++slot)
        for (int k = 0; k < kRecord; ++k) sum[k] += pairs[slot * kRecord + k];
      SplatGrad<T> g{};
      if (offsets[i] < offsets[i + 1])
        g = splat_vjp(conics[3 * i], conics[3 * i + 1], conics[3 * i + 2], opacities[i],
                      Moments<T>{sum[4], sum[5], sum[6], sum[7], sum[8], sum[9]});
      xy[2 * i] = g.x, xy[2 * i + 1] = g.y;
      conic[3 * i] = g.xx, conic[3 * i + 1] = g.xy, conic[3 * i + 2] = g.yy;
      opacity[i] = g.opacity;
      for (int c = 0; c < 3; ++c) rgb[3 * i + c] = sum[c];
      z[i] = sum[3];
      if (absolute) absolute[2 * i] = sum[10] / T(kLog2E), absolute[2 * i + 1] = sum[11] / T(kLog2E);
    }
  });
}

// out[n, begin + c] = Σ of the slots of Gaussian n in all cameras.
template <class T>
void sum_pair_features(const Inputs& in, const T* pairs, int64_t begin_channel, int64_t count, T* out) {
  const int64_t N = in.gaussians(), B = in.cameras(), C = in.channels();
  const int64_t* offsets = data<int64_t>(in.gaussian_offsets);
  torch::stable::parallel_for(0, N, 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* to = out + n * C + begin_channel;
      std::fill(to, to + count, T(0));
      for (int64_t b = 0; b < B; ++b)
        for (int64_t slot = offsets[b * N + n]; slot < offsets[b * N + n + 1]; ++slot)
          for (int64_t c = 0; c < count; ++c) to[c] += pairs[slot * count + c];
    }
  });
}

using RasterizeBackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

RasterizeBackwardResult rasterize_backward_cpu(
    std::optional<Tensor> g_color, std::optional<Tensor> g_alpha, std::optional<Tensor> g_depth,
    std::optional<Tensor> g_features, std::optional<Tensor> g_weights, Tensor means2d, Tensor conics, Tensor opacities,
    Tensor colors, Tensor depths, std::optional<Tensor> features, std::optional<Tensor> background,
    Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, Tensor gaussian_offsets, Tensor alpha, Tensor depth,
    Tensor transmittance, Tensor last, int64_t width, int64_t height, int64_t cell, bool features_move_geometry,
    bool absgrad, bool features_need_grad) {
  Inputs in{means2d,    conics,       opacities,      colors,     depths,           features,
            background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
            height,     cell,         features_move_geometry};
  in.check();
  const int64_t B = in.cameras(), N = in.gaussians(), C = in.channels(), pairs = pair_gaussians.numel();
  if (g_color) g_color = checked(*g_color, "grad of color", in.dtype, {B, height, width, 3}, "[B, H, W, 3]");
  if (g_alpha) g_alpha = checked(*g_alpha, "grad of alpha", in.dtype, {B, height, width}, "[B, H, W]");
  if (g_depth) g_depth = checked(*g_depth, "grad of depth", in.dtype, {B, height, width}, "[B, H, W]");
  const int64_t rows = (height + cell - 1) / cell, columns = (width + cell - 1) / cell;
  if (!in.features) g_features = std::nullopt;
  if (g_features)
    g_features = checked(*g_features, "grad of features", in.dtype, {B, rows, columns, C}, "[B, h, w, C]");
  alpha = checked(alpha, "alpha", in.dtype, {B, height, width}, "[B, H, W]");
  depth = checked(depth, "depth", in.dtype, {B, height, width}, "[B, H, W]");
  transmittance = checked(transmittance, "transmittance", in.dtype, {B, height, width}, "[B, H, W]");
  last = checked(last, "last", ScalarType::Int, {B, height, width}, "[B, H, W]");
  if (cell < kBlock) g_weights = std::nullopt;
  if (g_weights) g_weights = checked(*g_weights, "grad of weights", in.dtype, {pairs, in.cells_per_tile()}, "[P, R]");
  const bool want_features = g_features && features_need_grad;

  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) {
    return torch::stable::empty(shape, in.dtype);
  };
  Tensor out_xy = make({B, N, 2}), out_conics = make({B, N, 3}), out_opacities = make({B, N});
  Tensor out_colors = make({B, N, 3}), out_depths = make({B, N}), out_absolute = make({absgrad ? B : 0, N, 2});
  Tensor out_features = make({want_features ? N : 0, C});
  Tensor pair_grads = make({pairs, kRecord});
  const int64_t size = in.dtype == ScalarType::Double ? 8 : 4;
  const int64_t fitting = std::max<int64_t>(kPairFeatureBytes / std::max<int64_t>(pairs * size, 1) / 16 * 16, 16);
  const int64_t round = want_features ? std::min(C, fitting) : 0;
  Tensor pair_features = make({round ? pairs : 0, round});

  const auto go = [&](auto zero) {
    using T = decltype(zero);
    in.pack_records<T>();
    const RasterizeInputs<T> inputs = in.raw<T>();
    RasterizeGrads<T> grads{data<T>(g_color),
                            data<T>(g_alpha),
                            data<T>(g_depth),
                            data<T>(g_features),
                            data<T>(g_weights),
                            data<T>(depth),
                            data<T>(alpha),
                            data<T>(transmittance),
                            data<int32_t>(last),
                            mutable_data<T>(pair_grads),
                            round ? mutable_data<T>(pair_features) : nullptr,
                            0,
                            round,
                            true,
                            absgrad};
    const Kernels<T>& kernel = kernels(zero);
    const std::vector<int64_t> order = tile_order(inputs.tile_offsets, B, inputs.tiles_x(), inputs.tiles_y());
    do {
      share_work(std::ssize(order), kBatch, [&](int64_t k, Scratch& scratch) {
        kernel.rasterize_tile_backward(inputs, grads, order[static_cast<size_t>(k)], scratch);
      });
      if (round)
        sum_pair_features(in, grads.pair_features, grads.channel_begin, grads.channel_count,
                          mutable_data<T>(out_features));
      grads.channel_begin += round;
      grads.channel_count = std::min(round, C - grads.channel_begin);
      grads.geometry = false;
    } while (round && grads.channel_begin < C);
    sum_pairs(in, grads.pairs, mutable_data<T>(out_xy), mutable_data<T>(out_conics), mutable_data<T>(out_opacities),
              mutable_data<T>(out_colors), mutable_data<T>(out_depths),
              absgrad ? mutable_data<T>(out_absolute) : nullptr);
  };
  in.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {out_xy, out_conics, out_opacities, out_colors, out_depths, out_features, out_absolute};
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("rasterize", TORCH_BOX(&fgs::rasterize_cpu));
  m.impl("rasterize_backward", TORCH_BOX(&fgs::rasterize_backward_cpu));
}
