// CUDA twin of rasterize_backward (contract: rasterize.h): gradients per pair, then sums by Gaussian.
#include <algorithm>

#include "../cuda/launch.h"
#include "backward.cuh"
#include "features.cuh"
#include "inputs.h"
#include "sums.cuh"
#include "tensor_products.cuh"

namespace fgs {
namespace {

constexpr int64_t kPairFeatureBytes = int64_t{256} << 20;
constexpr int64_t kMostChannels = int64_t{1} << 20;  // a grid has at most 65535 slices of 32 channels

// Channels of the features' gradient worked on at a time: at least 16, or as many as have room in kPairFeatureBytes or
// in three quarters of that gradient's own size, a fifth of what it takes with the features and Adam's moments.
int64_t channels_at_once(const RasterizeArguments& in, int64_t size) {
  const int64_t bytes = std::max(kPairFeatureBytes, in.gaussians() * in.channels() * size / 4 * 3);
  const int64_t fitting = bytes / std::max<int64_t>(in.pairs() * size, 1);
  return std::min({in.channels(), kMostChannels,
                   fitting >= 64 ? fitting / 64 * 64 : std::max<int64_t>(fitting / 16 * 16, 16)});
}

template <class T>
void pair_grads(const OnDevice& device, const RasterizeInputs<T>& in, const RasterizeGrads<T>& g, int64_t tiles) {
  const auto go = [&]<Pull kPull, bool kAbsolute>() {
    launch({blocks_for(tiles, 1), kTileThreads, device.stream, sizeof(BackwardMemory<T, kPull, kAbsolute ? 12 : 10>)},
           backward_kernel<T, kPull, kAbsolute>, in, g);
  };
  const auto by_absolute = [&]<Pull kPull>() {
    g.absgrad ? go.template operator()<kPull, true>() : go.template operator()<kPull, false>();
  };
  if (g.weights) return by_absolute.template operator()<Pull::kCells>();
  if (g.features && in.features_move_geometry) return by_absolute.template operator()<Pull::kFeatures>();
  by_absolute.template operator()<Pull::kNone>();
}

template <class P, class T>
void spread_slices(const OnDevice& device, const RasterizeInputs<T>& in, const RasterizeGrads<T>& g, int64_t tiles) {
  const unsigned slices = blocks_for(g.channel_count, P::kChannels);
  launch({{blocks_for(tiles, 1), slices}, kTileThreads, device.stream, sizeof(SpreadMemory<P>)},
         spread_features_kernel<P>, in, g);
}

template <int kCell, class T>
void spread_features(const OnDevice& device, const RasterizeInputs<T>& in, const RasterizeGrads<T>& g, int64_t tiles,
                     [[maybe_unused]] bool tensor_cores) {
  if constexpr (std::is_same_v<T, float>) {
    if (tensor_cores && g.channel_count <= 32) return spread_slices<TensorSpread<kCell, 32>>(device, in, g, tiles);
    if (tensor_cores) return spread_slices<TensorSpread<kCell, 64>>(device, in, g, tiles);
  }
  spread_slices<PlainSpread<T, kCell>>(device, in, g, tiles);
}

// The gradient of the features, round after round of channels.
template <class T>
void feature_grads(const OnDevice& device, const RasterizeArguments& in, const RasterizeInputs<T>& inputs,
                   RasterizeGrads<T> g, bool tensor_cores, Tensor& out) {
  const int64_t round = channels_at_once(in, sizeof(T)), stride = pair_stride(round);
  Tensor pair_features = in.empty({in.pairs(), stride});
  g.pair_features = mutable_data<T>(pair_features);
  for (; g.channel_begin < inputs.channels; g.channel_begin += round) {
    g.channel_count = std::min(round, inputs.channels - g.channel_begin);
    in.cell == 1 ? spread_features<1>(device, inputs, g, in.tiles(), tensor_cores)
                 : spread_features<2>(device, inputs, g, in.tiles(), tensor_cores);
    const unsigned slices = blocks_for(pair_stride(g.channel_count), kWarp * kWide<T>);
    launch({{blocks_for(inputs.gaussians, kSumThreads / kWarp), slices}, kSumThreads, device.stream},
           sum_pair_features_kernel<T>,
           FeatureSums<T>{data<int64_t>(in.gaussian_offsets), inputs.cameras, inputs.gaussians, inputs.pairs,
                          g.pair_features, g.channel_begin, g.channel_count, inputs.channels, mutable_data<T>(out)});
  }
}

RasterizeGradResults::Tuple rasterize_backward_cuda(
    std::optional<Tensor> g_color, std::optional<Tensor> g_alpha, std::optional<Tensor> g_depth,
    std::optional<Tensor> g_features, std::optional<Tensor> g_weights, Tensor means2d, Tensor conics, Tensor opacities,
    Tensor colors, Tensor depths, std::optional<Tensor> features, std::optional<Tensor> background,
    Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, Tensor gaussian_offsets, Tensor alpha, Tensor depth,
    Tensor transmittance, Tensor last, int64_t width, int64_t height, int64_t cell, bool features_move_geometry,
    bool tensor_cores, bool absgrad, bool features_need_grad) {
  RasterizeArguments in{means2d,    conics,       opacities,      colors,     depths,           features,
                        background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
                        height,     cell,         features_move_geometry};
  in.check();
  RasterizeGradArguments given{g_color, g_alpha, g_depth, g_features, g_weights, alpha, depth, transmittance, last};
  given.check(in);
  const OnDevice device(in.means2d);
  const bool want_features = given.features && features_need_grad;
  RasterizeGradResults results(in, want_features, absgrad);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const Tensor records = pack_records<T>(device, in);
    const RasterizeInputs<T> inputs = in.raw<T>(records);
    if (!given.moves_splats(features_move_geometry)) {
      results.leave_splats();
    } else {
      Tensor pairs = in.empty({in.pairs(), kCudaRecord});
      const RasterizeGrads<T> grads = given.raw<T>(pairs, absgrad);
      pair_grads(device, inputs, grads, in.tiles());
      sum_pairs(device, in, grads.pairs, results);
    }
    if (want_features) {
      Tensor none = in.empty({0});
      feature_grads(device, in, inputs, given.raw<T>(none, absgrad),
                    tensor_cores && has_tensor_cores(spread_features_kernel<TensorSpread<1, 64>>), results.features);
    }
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return results.tuple();
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) {
  m.impl("rasterize_backward", TORCH_BOX(&fgs::rasterize_backward_cuda));
}
