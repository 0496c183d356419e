// CPU twin of rasterize (contract: rasterize.h): tiles in parallel, then sums by Gaussian.
#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "../math/blend.h"
#include "../parallel.h"
#include "../simd/kernels.h"
#include "inputs.h"

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

template <class T>
Tensor pack_records(const RasterizeArguments& in) {
  const int64_t total = in.cameras() * in.gaussians();
  Tensor records = in.empty({total, kRecord});
  T* out = mutable_data<T>(records);
  const T *xy = data<T>(in.means2d), *conic = data<T>(in.conics), *o = data<T>(in.opacities),
          *rgb = data<T>(in.colors), *z = data<T>(in.depths);
  const int64_t* offsets = data<int64_t>(in.gaussian_offsets);
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
  return records;
}

// Runs work(tile, scratch) for all tiles.
template <class T, class Work>
void for_each_tile(const RasterizeInputs<T>& in, const Work& work) {
  const std::vector<int64_t> order = tile_order(in.tile_offsets, in.cameras, in.tiles_x(), in.tiles_y());
  share_work(std::ssize(order), kBatch,
             [&](int64_t k, Scratch& scratch) { work(order[static_cast<size_t>(k)], scratch); });
}

RasterizeResults::Tuple rasterize_cpu(Tensor means2d, Tensor conics, Tensor opacities, Tensor colors, Tensor depths,
                                      std::optional<Tensor> features, std::optional<Tensor> background,
                                      std::optional<Tensor> /*absgrad*/, Tensor tile_offsets, Tensor pair_gaussians,
                                      Tensor pair_slots, Tensor gaussian_offsets, int64_t width, int64_t height,
                                      int64_t cell, bool features_move_geometry, bool /*tensor_cores*/) {
  RasterizeArguments in{means2d,    conics,       opacities,      colors,     depths,           features,
                        background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
                        height,     cell,         features_move_geometry};
  in.check();
  in.check_lists();
  RasterizeResults results(in);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const Tensor records = pack_records<T>(in);
    const RasterizeInputs<T> inputs = in.raw<T>(records);
    const RasterizeOutputs<T> outputs = results.raw<T>();
    for_each_tile(inputs, [&](int64_t tile, Scratch& scratch) {
      kernels(zero).rasterize_tile(inputs, outputs, tile, scratch);
    });
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return results.tuple();
}

// Sums the slots of each splat into the gradients of its 2D parameters.
template <class T>
void sum_pairs(const RasterizeArguments& in, const T* pairs, RasterizeGradResults& out) {
  const int64_t total = in.cameras() * in.gaussians();
  const int64_t* offsets = data<int64_t>(in.gaussian_offsets);
  const T *conics = data<T>(in.conics), *opacities = data<T>(in.opacities);
  T *xy = mutable_data<T>(out.means2d), *conic = mutable_data<T>(out.conics), *opacity = mutable_data<T>(out.opacities),
    *rgb = mutable_data<T>(out.colors), *z = mutable_data<T>(out.depths);
  T* absolute = out.absolute.numel() ? mutable_data<T>(out.absolute) : nullptr;
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
void sum_pair_features(const RasterizeArguments& in, const T* pairs, int64_t begin_channel, int64_t count, T* out) {
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

RasterizeGradResults::Tuple rasterize_backward_cpu(
    std::optional<Tensor> g_color, std::optional<Tensor> g_alpha, std::optional<Tensor> g_depth,
    std::optional<Tensor> g_features, std::optional<Tensor> g_weights, Tensor means2d, Tensor conics, Tensor opacities,
    Tensor colors, Tensor depths, std::optional<Tensor> features, std::optional<Tensor> background,
    Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, Tensor gaussian_offsets, Tensor alpha, Tensor depth,
    Tensor transmittance, Tensor last, int64_t width, int64_t height, int64_t cell, bool features_move_geometry,
    bool /*tensor_cores*/, bool absgrad, bool features_need_grad) {
  RasterizeArguments in{means2d,    conics,       opacities,      colors,     depths,           features,
                        background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
                        height,     cell,         features_move_geometry};
  in.check();
  in.check_lists();
  RasterizeGradArguments given{g_color, g_alpha, g_depth, g_features, g_weights, alpha, depth, transmittance, last};
  given.check(in);
  const bool want_features = given.features && features_need_grad;
  RasterizeGradResults results(in, want_features, absgrad);
  const int64_t C = in.channels(), pairs = in.pairs();
  const bool moves = given.moves_splats(features_move_geometry);
  Tensor pair_grads = in.empty({moves ? pairs : 0, kRecord});
  const int64_t size = in.kind.dtype == ScalarType::Double ? 8 : 4;
  const int64_t fitting = std::max<int64_t>(kPairFeatureBytes / std::max<int64_t>(pairs * size, 1) / 16 * 16, 16);
  const int64_t round = want_features ? std::min(C, fitting) : 0;
  Tensor pair_features = in.empty({round ? pairs : 0, round});

  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const Tensor records = pack_records<T>(in);
    const RasterizeInputs<T> inputs = in.raw<T>(records);
    RasterizeGrads<T> grads = given.raw<T>(pair_grads, absgrad);
    grads.pair_features = round ? mutable_data<T>(pair_features) : nullptr;
    grads.channel_count = round;
    grads.geometry = moves;
    while (grads.geometry || grads.channel_begin < (round ? C : 0)) {
      for_each_tile(inputs, [&](int64_t tile, Scratch& scratch) {
        kernels(zero).rasterize_tile_backward(inputs, grads, tile, scratch);
      });
      if (round)
        sum_pair_features(in, grads.pair_features, grads.channel_begin, grads.channel_count,
                          mutable_data<T>(results.features));
      grads.channel_begin += round;
      grads.channel_count = std::min(round, C - grads.channel_begin);
      grads.geometry = false;
    }
    moves ? sum_pairs(in, grads.pairs, results) : results.leave_splats();
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return results.tuple();
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("rasterize", TORCH_BOX(&fgs::rasterize_cpu));
  m.impl("rasterize_backward", TORCH_BOX(&fgs::rasterize_backward_cpu));
}
