// CPU twin of project (contract: project.h).
#include "../simd/kernels.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 512;

ProjectResult project_cpu(Tensor means, Tensor quats, Tensor scales, Tensor opacities, std::optional<Tensor> sh_dc,
                          std::optional<Tensor> sh_rest, Tensor cam_from_world, Tensor K, int64_t width,
                          int64_t height, double near, double far, bool antialiased) {
  ProjectArguments in{means,          quats, scales, opacities, sh_dc, sh_rest,
                      cam_from_world, K,     width,  height,    near,  far,     antialiased};
  in.check();
  ProjectTensors out(in);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const ProjectInputs<T> inputs = in.raw<T>();
    const ProjectOutputs<T> outputs = out.raw<T>();
    const Kernels<T>& kernel = kernels(zero);
    for (int64_t b = 0; b < in.cameras(); ++b)
      torch::stable::parallel_for(0, in.gaussians(), kGrain, [&](int64_t begin, int64_t end) {
        kernel.project(inputs, outputs, b, begin, end);
      });
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return out.all();
}

ProjectResult project_backward_cpu(Tensor g_means2d, Tensor g_conics, Tensor g_blended, Tensor g_colors,
                                   Tensor g_depths, Tensor means, Tensor quats, Tensor scales, Tensor opacities,
                                   std::optional<Tensor> sh_dc, std::optional<Tensor> sh_rest, Tensor cam_from_world,
                                   Tensor K, int64_t width, int64_t height, double near, double far, bool antialiased,
                                   Tensor colors, Tensor radii) {
  ProjectArguments in{means,          quats, scales, opacities, sh_dc, sh_rest,
                      cam_from_world, K,     width,  height,    near,  far,     antialiased};
  in.check();
  ProjectGradTensors out(in, g_means2d, g_conics, g_blended, g_colors, g_depths, colors, radii);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const ProjectInputs<T> inputs = in.raw<T>();
    const ProjectGrads<T> grads = out.raw<T>();
    const Kernels<T>& kernel = kernels(zero);
    torch::stable::parallel_for(0, in.gaussians(), kGrain, [&](int64_t begin, int64_t end) {
      kernel.project_backward(inputs, grads, begin, end);
    });
  };
  in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return out.all();
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("project", TORCH_BOX(&fgs::project_cpu));
  m.impl("project_backward", TORCH_BOX(&fgs::project_backward_cpu));
}
