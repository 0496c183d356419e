// CPU twin of project (contract: project.h).
#include <tuple>

#include "../simd/kernels.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 512;

using ProjectResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ProjectResult project_cpu(Tensor means, Tensor quats, Tensor scales, Tensor opacities, std::optional<Tensor> sh_dc,
                          std::optional<Tensor> sh_rest, Tensor cam_from_world, Tensor K, int64_t width,
                          int64_t height, double near, double far, bool antialiased) {
  ProjectArguments in{means, quats, scales, opacities, sh_dc, sh_rest, cam_from_world, K, width, height, near, far, antialiased};
  in.check();
  const int64_t B = in.cameras(), N = in.gaussians();
  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) { return in.empty(shape, in.kind.dtype); };
  Tensor means2d = make({B, N, 2}), conics = make({B, N, 3}), blended = make({B, N}), depths = make({B, N});
  Tensor colors = make({B, in.sh_dc ? N : 0, 3}), radii = in.empty({B, N}, ScalarType::Int);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const ProjectInputs<T> inputs = in.raw<T>();
    const ProjectOutputs<T> outputs{mutable_data<T>(means2d), mutable_data<T>(conics), mutable_data<T>(blended),
                                    mutable_data<T>(colors),  mutable_data<T>(depths), mutable_data<int32_t>(radii)};
    const Kernels<T>& kernel = kernels(zero);
    for (int64_t b = 0; b < B; ++b)
      torch::stable::parallel_for(0, N, kGrain,
                                  [&](int64_t begin, int64_t end) { kernel.project(inputs, outputs, b, begin, end); });
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {means2d, conics, blended, colors, depths, radii};
}

ProjectResult project_backward_cpu(Tensor g_means2d, Tensor g_conics, Tensor g_blended, Tensor g_colors,
                                   Tensor g_depths, Tensor means, Tensor quats, Tensor scales, Tensor opacities,
                                   std::optional<Tensor> sh_dc, std::optional<Tensor> sh_rest, Tensor cam_from_world,
                                   Tensor K, int64_t width, int64_t height, double near, double far, bool antialiased,
                                   Tensor colors, Tensor radii) {
  ProjectArguments in{means, quats, scales, opacities, sh_dc, sh_rest, cam_from_world, K, width, height, near, far, antialiased};
  in.check();
  const int64_t B = in.cameras(), N = in.gaussians(), colored = in.sh_dc ? N : 0;
  g_means2d = checked(g_means2d, "grad of means2d", in.kind, {B, N, 2}, "[B, N, 2]");
  g_conics = checked(g_conics, "grad of conics", in.kind, {B, N, 3}, "[B, N, 3]");
  g_blended = checked(g_blended, "grad of opacities", in.kind, {B, N}, "[B, N]");
  g_colors = checked(g_colors, "grad of colors", in.kind, {B, colored, 3}, "[B, N, 3]");
  g_depths = checked(g_depths, "grad of depths", in.kind, {B, N}, "[B, N]");
  colors = checked(colors, "colors", in.kind, {B, colored, 3}, "[B, N, 3]");
  radii = checked(radii, "radii", in.kind.with(ScalarType::Int), {B, N}, "[B, N]");
  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) { return in.empty(shape, in.kind.dtype); };
  Tensor out_means = make({N, 3}), out_quats = make({N, 4}), out_scales = make({N, 3}), out_opacities = make({N});
  Tensor out_dc = make({colored, 3}), out_rest = make({in.sh_rest ? N : 0, in.rest(), 3});
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const ProjectInputs<T> inputs = in.raw<T>();
    const ProjectGrads<T> grads{data<T>(g_means2d),        data<T>(g_conics),          data<T>(g_blended),
                                data<T>(g_colors),         data<T>(g_depths),          data<int32_t>(radii),
                                data<T>(colors),           mutable_data<T>(out_means), mutable_data<T>(out_quats),
                                mutable_data<T>(out_scales), mutable_data<T>(out_opacities), mutable_data<T>(out_dc),
                                mutable_data<T>(out_rest)};
    const Kernels<T>& kernel = kernels(zero);
    torch::stable::parallel_for(0, N, kGrain, [&](int64_t begin, int64_t end) {
      kernel.project_backward(inputs, grads, begin, end);
    });
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {out_means, out_quats, out_scales, out_opacities, out_dc, out_rest};
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("project", TORCH_BOX(&fgs::project_cpu));
  m.impl("project_backward", TORCH_BOX(&fgs::project_backward_cpu));
}
