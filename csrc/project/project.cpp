// CPU twin of project (contract: project.h).
#include "project.h"

#include <limits>
#include <tuple>

#include "../checks.h"
#include "../simd/kernels.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 512;

// Rows may be strided, so that [N, K, 3] can be passed as two views.
Tensor rows_of(const Tensor& t) {
  bool dense = true;
  int64_t expected = 1;
  for (int64_t axis = t.dim() - 1; axis > 0; --axis) {
    dense = dense && (t.size(axis) == 1 || t.stride(axis) == expected);
    expected *= t.size(axis);
  }
  return dense && t.stride(0) >= expected ? t : torch::stable::contiguous(t);
}

struct Inputs {
  Tensor means, quats, scales, opacities;
  std::optional<Tensor> sh_dc, sh_rest;
  Tensor cam_from_world, K;
  int64_t width, height;
  double near, far;
  bool antialiased;
  ScalarType dtype = ScalarType::Float;

  void check() {
    dtype = floating_dtype(means, "means");
    check_shape(means, "means", {kAny, 3}, "[N, 3]");
    const int64_t N = means.size(0);
    means = checked(means, "means", dtype, {N, 3}, "[N, 3]");
    quats = checked(quats, "quats", dtype, {N, 4}, "[N, 4]");
    scales = checked(scales, "scales", dtype, {N, 3}, "[N, 3]");
    opacities = checked(opacities, "opacities", dtype, {N}, "[N]");
    STD_TORCH_CHECK(sh_dc || !sh_rest, "sh_rest needs sh_dc");
    if (sh_dc) {
      check_shape(*sh_dc, "sh_dc", {N, 3}, "[N, 3]");
      STD_TORCH_CHECK(sh_dc->scalar_type() == dtype, "sh_dc must have the dtype of means");
      check_cpu(*sh_dc, "sh_dc");
      sh_dc = rows_of(*sh_dc);
    }
    if (sh_rest) {
      check_shape(*sh_rest, "sh_rest", {N, kAny, 3}, "[N, K-1, 3]");
      const int64_t rest = sh_rest->size(1);
      STD_TORCH_CHECK(rest == 0 || rest == 3 || rest == 8 || rest == 15,
                      "sh_rest must hold 0, 3, 8 or 15 coefficients (degree 0 to 3), got ", rest);
      STD_TORCH_CHECK(sh_rest->scalar_type() == dtype, "sh_rest must have the dtype of means");
      check_cpu(*sh_rest, "sh_rest");
      sh_rest = rows_of(*sh_rest);
    }
    check_shape(cam_from_world, "cam_from_world", {kAny, 4, 4}, "[B, 4, 4]");
    const int64_t B = cam_from_world.size(0);
    cam_from_world = checked(cam_from_world, "cam_from_world", dtype, {B, 4, 4}, "[B, 4, 4]");
    K = checked(K, "K", dtype, {B, 3, 3}, "[B, 3, 3]");
    STD_TORCH_CHECK(width > 0 && height > 0, "the image must have at least one pixel, got ", width, " x ", height);
    STD_TORCH_CHECK(N == 0 || B <= std::numeric_limits<int32_t>::max() / N, "B x N must stay below 2^31, got ", B,
                    " x ", N);
  }

  int64_t gaussians() const { return means.size(0); }
  int64_t cameras() const { return cam_from_world.size(0); }
  int64_t rest() const { return sh_rest ? sh_rest->size(1) : 0; }

  template <class T>
  ProjectInputs<T> raw() const {
    return {data<T>(means),
            data<T>(quats),
            data<T>(scales),
            data<T>(opacities),
            data<T>(sh_dc),
            data<T>(sh_rest),
            sh_dc ? sh_dc->stride(0) : 0,
            sh_rest ? sh_rest->stride(0) : 0,
            sh_dc ? static_cast<int>(rest() + 1) : 0,
            data<T>(cam_from_world),
            data<T>(K),
            cameras(),
            gaussians(),
            width,
            height,
            near,
            far,
            antialiased};
  }
};

using ProjectResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ProjectResult project_cpu(Tensor means, Tensor quats, Tensor scales, Tensor opacities, std::optional<Tensor> sh_dc,
                          std::optional<Tensor> sh_rest, Tensor cam_from_world, Tensor K, int64_t width,
                          int64_t height, double near, double far, bool antialiased) {
  Inputs in{means, quats, scales, opacities, sh_dc, sh_rest, cam_from_world, K, width, height, near, far, antialiased};
  in.check();
  const int64_t B = in.cameras(), N = in.gaussians();
  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) {
    return torch::stable::empty(shape, in.dtype);
  };
  Tensor means2d = make({B, N, 2}), conics = make({B, N, 3}), blended = make({B, N}), depths = make({B, N});
  Tensor colors = make({B, in.sh_dc ? N : 0, 3}), radii = torch::stable::empty({B, N}, ScalarType::Int);
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
  in.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {means2d, conics, blended, colors, depths, radii};
}

ProjectResult project_backward_cpu(Tensor g_means2d, Tensor g_conics, Tensor g_blended, Tensor g_colors,
                                   Tensor g_depths, Tensor means, Tensor quats, Tensor scales, Tensor opacities,
                                   std::optional<Tensor> sh_dc, std::optional<Tensor> sh_rest, Tensor cam_from_world,
                                   Tensor K, int64_t width, int64_t height, double near, double far, bool antialiased,
                                   Tensor colors, Tensor radii) {
  Inputs in{means, quats, scales, opacities, sh_dc, sh_rest, cam_from_world, K, width, height, near, far, antialiased};
  in.check();
  const int64_t B = in.cameras(), N = in.gaussians(), colored = in.sh_dc ? N : 0;
  g_means2d = checked(g_means2d, "grad of means2d", in.dtype, {B, N, 2}, "[B, N, 2]");
  g_conics = checked(g_conics, "grad of conics", in.dtype, {B, N, 3}, "[B, N, 3]");
  g_blended = checked(g_blended, "grad of opacities", in.dtype, {B, N}, "[B, N]");
  g_colors = checked(g_colors, "grad of colors", in.dtype, {B, colored, 3}, "[B, N, 3]");
  g_depths = checked(g_depths, "grad of depths", in.dtype, {B, N}, "[B, N]");
  colors = checked(colors, "colors", in.dtype, {B, colored, 3}, "[B, N, 3]");
  radii = checked(radii, "radii", ScalarType::Int, {B, N}, "[B, N]");
  const auto make = [&](torch::headeronly::IntHeaderOnlyArrayRef shape) {
    return torch::stable::empty(shape, in.dtype);
  };
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
  in.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {out_means, out_quats, out_scales, out_opacities, out_dc, out_rest};
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("project", TORCH_BOX(&fgs::project_cpu));
  m.impl("project_backward", TORCH_BOX(&fgs::project_backward_cpu));
}
