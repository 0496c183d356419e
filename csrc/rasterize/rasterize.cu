// CUDA twin of rasterize (contract: rasterize.h).
#include "../cuda/launch.h"
#include "blend.cuh"
#include "features.cuh"
#include "inputs.h"
#include "sums.cuh"
#include "tensor_products.cuh"

namespace fgs {
namespace {

constexpr int kKilobyte = 1 << 10;

// Shared memory of a multiprocessor.
int shared_memory(const Tensor& like) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, like.get_device_index()),
             "asking for the shared memory");
  return bytes;
}

// Blocks that have room in it: each takes a kilobyte more than it asks for. Lists are as long as leaves room for so many;
// in benchmarks/gpu.py most patches see a hundred splats and few 180.
template <class P>
constexpr int blocks_in(int kilobytes) {
  return kilobytes * kKilobyte / static_cast<int>(sizeof(BlendMemory<P>) + kKilobyte);
}
static_assert(blocks_in<TensorBlend<1, 64, 184>>(228) == 3 && blocks_in<TensorBlend<1, 32, 136>>(228) == 4);
static_assert(blocks_in<TensorBlend<1, 64, 104>>(164) == 3 && blocks_in<TensorBlend<1, 32, 104>>(164) == 3);
static_assert(blocks_in<TensorBlend<1, 64, 80>>(100) == 2 && blocks_in<TensorBlend<1, 32, 104>>(100) == 2);
static_assert(blocks_in<TensorBlend<2, 64, 104>>(100) == 3);

// The features of cells of 1 or 2 pixels, once the last splat of each pixel is known.
template <int kCell, class T>
void blend_features(const OnDevice& device, const RasterizeInputs<T>& in, const RasterizeOutputs<T>& out,
                    int64_t tiles, [[maybe_unused]] const Tensor& like, [[maybe_unused]] bool tensor_cores) {
  const auto go = [&]<class P>() {
    launch({blocks_for(2 * tiles, 1), kBlendThreads, device.stream, sizeof(BlendMemory<P>)}, blend_features_kernel<P>,
           in, out.last, out.features);
  };
  if constexpr (std::is_same_v<T, float>) {
    const int kilobytes = tensor_cores ? shared_memory(like) / kKilobyte : 0;
    if (tensor_cores && in.channels <= 32)
      return kilobytes >= 228 ? go.template operator()<TensorBlend<kCell, 32, 136>>()
                              : go.template operator()<TensorBlend<kCell, 32, 104>>();
    if (tensor_cores)
      return kilobytes >= 228                 ? go.template operator()<TensorBlend<kCell, 64, 184>>()
             : kCell == 2 || kilobytes >= 164 ? go.template operator()<TensorBlend<kCell, 64, 104>>()
                                              : go.template operator()<TensorBlend<kCell, 64, kCell == 1 ? 80 : 104>>();
  }
  go.template operator()<PlainBlend<T, kCell>>();
}

RasterizeResults::Tuple rasterize_cuda(Tensor means2d, Tensor conics, Tensor opacities, Tensor colors, Tensor depths,
                                       std::optional<Tensor> features, std::optional<Tensor> background,
                                       std::optional<Tensor> /*absgrad*/, Tensor tile_offsets, Tensor pair_gaussians,
                                       Tensor pair_slots, Tensor gaussian_offsets, int64_t width, int64_t height,
                                       int64_t cell, bool features_move_geometry, bool tensor_cores) {
  RasterizeArguments in{means2d,    conics,       opacities,      colors,     depths,           features,
                        background, tile_offsets, pair_gaussians, pair_slots, gaussian_offsets, width,
                        height,     cell,         features_move_geometry};
  in.check();
  const OnDevice device(in.means2d);
  RasterizeResults results(in);
  const int64_t tiles = in.tiles();
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const Tensor records = pack_records<T>(device, in);
    const RasterizeInputs<T> inputs = in.raw<T>(records);
    const RasterizeOutputs<T> outputs = results.raw<T>();
    launch({blocks_for(tiles, 1), kTileThreads, device.stream},
           inputs.pooled() ? blend_kernel<T, true> : blend_kernel<T, false>, inputs, outputs);
    if (!in.features) return;
    const bool tensor = tensor_cores && has_tensor_cores(blend_features_kernel<TensorBlend<1, 64, 104>>);
    cell == 1 ? blend_features<1>(device, inputs, outputs, tiles, in.means2d, tensor)
              : blend_features<2>(device, inputs, outputs, tiles, in.means2d, tensor);
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return results.tuple();
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) {
  m.impl("rasterize", TORCH_BOX(&fgs::rasterize_cuda));
}
