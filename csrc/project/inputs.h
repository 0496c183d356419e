// What goes into project and its gradient and what comes out: checked, made, and as the kernels want it.
#pragma once

#include <limits>
#include <tuple>

#include "../checks.h"
#include "project.h"

namespace fgs {

// Rows may be strided, so that [N, K, 3] can be passed as two views.
inline Tensor rows_of(const Tensor& t) {
  bool dense = true;
  int64_t expected = 1;
  for (int64_t axis = t.dim() - 1; axis > 0; --axis) {
    dense = dense && (t.size(axis) == 1 || t.stride(axis) == expected);
    expected *= t.size(axis);
  }
  return dense && t.stride(0) >= expected ? t : torch::stable::contiguous(t);
}

// What project and its gradient are called with.
struct ProjectArguments {
  Tensor means, quats, scales, opacities;
  std::optional<Tensor> sh_dc, sh_rest;
  Tensor cam_from_world, K;
  int64_t width, height;
  double near, far;
  bool antialiased;
  Kind kind = ScalarType::Float;

  void check() {
    kind = floating_kind(means, "means");
    check_shape(means, "means", {kAny, 3}, "[N, 3]");
    const int64_t N = means.size(0);
    means = checked(means, "means", kind, {N, 3}, "[N, 3]");
    quats = checked(quats, "quats", kind, {N, 4}, "[N, 4]");
    scales = checked(scales, "scales", kind, {N, 3}, "[N, 3]");
    opacities = checked(opacities, "opacities", kind, {N}, "[N]");
    STD_TORCH_CHECK(sh_dc || !sh_rest, "sh_rest needs sh_dc");
    if (sh_dc) {
      check_shape(*sh_dc, "sh_dc", {N, 3}, "[N, 3]");
      STD_TORCH_CHECK(sh_dc->scalar_type() == kind.dtype, "sh_dc must have the dtype of means");
      check_device(*sh_dc, "sh_dc", kind);
      sh_dc = rows_of(*sh_dc);
    }
    if (sh_rest) {
      check_shape(*sh_rest, "sh_rest", {N, kAny, 3}, "[N, K-1, 3]");
      const int64_t rest = sh_rest->size(1);
      STD_TORCH_CHECK(rest == 0 || rest == 3 || rest == 8 || rest == 15,
                      "sh_rest must hold 0, 3, 8 or 15 coefficients (degree 0 to 3), got ", rest);
      STD_TORCH_CHECK(sh_rest->scalar_type() == kind.dtype, "sh_rest must have the dtype of means");
      check_device(*sh_rest, "sh_rest", kind);
      sh_rest = rows_of(*sh_rest);
    }
    check_shape(cam_from_world, "cam_from_world", {kAny, 4, 4}, "[B, 4, 4]");
    const int64_t B = cam_from_world.size(0);
    cam_from_world = checked(cam_from_world, "cam_from_world", kind, {B, 4, 4}, "[B, 4, 4]");
    K = checked(K, "K", kind, {B, 3, 3}, "[B, 3, 3]");
    STD_TORCH_CHECK(width > 0 && height > 0, "the image must have at least one pixel, got ", width, " x ", height);
    STD_TORCH_CHECK(N == 0 || B <= std::numeric_limits<int32_t>::max() / N, "B x N must stay below 2^31, got ", B,
                    " x ", N);
  }

  int64_t gaussians() const { return means.size(0); }
  int64_t cameras() const { return cam_from_world.size(0); }
  int64_t colored() const { return sh_dc ? gaussians() : 0; }
  int64_t rest() const { return sh_rest ? sh_rest->size(1) : 0; }

  // Uninitialised, beside the inputs.
  Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType dtype) const {
    return torch::stable::new_empty(means, shape, dtype);
  }

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

struct ProjectTensors {
  Tensor means2d, conics, opacities, colors, depths, radii;

  explicit ProjectTensors(const ProjectArguments& in)
      : means2d(in.empty({in.cameras(), in.gaussians(), 2}, in.kind.dtype)),
        conics(in.empty({in.cameras(), in.gaussians(), 3}, in.kind.dtype)),
        opacities(in.empty({in.cameras(), in.gaussians()}, in.kind.dtype)),
        colors(in.empty({in.cameras(), in.colored(), 3}, in.kind.dtype)),
        depths(in.empty({in.cameras(), in.gaussians()}, in.kind.dtype)),
        radii(in.empty({in.cameras(), in.gaussians()}, ScalarType::Int)) {}

  template <class T>
  ProjectOutputs<T> raw() {
    return {mutable_data<T>(means2d), mutable_data<T>(conics), mutable_data<T>(opacities),
            mutable_data<T>(colors),  mutable_data<T>(depths), mutable_data<int32_t>(radii)};
  }
  ProjectResult all() const { return {means2d, conics, opacities, colors, depths, radii}; }
};

struct ProjectGradTensors {
  Tensor means2d, conics, opacities, colors, depths, projected_colors, radii;  // in
  Tensor means, quats, scales, raw_opacities, sh_dc, sh_rest;                  // out

  ProjectGradTensors(const ProjectArguments& in, const Tensor& g_means2d, const Tensor& g_conics,
                     const Tensor& g_opacities, const Tensor& g_colors, const Tensor& g_depths, const Tensor& colors_,
                     const Tensor& radii_)
      : means2d(checked(g_means2d, "grad of means2d", in.kind, {in.cameras(), in.gaussians(), 2}, "[B, N, 2]")),
        conics(checked(g_conics, "grad of conics", in.kind, {in.cameras(), in.gaussians(), 3}, "[B, N, 3]")),
        opacities(checked(g_opacities, "grad of opacities", in.kind, {in.cameras(), in.gaussians()}, "[B, N]")),
        colors(checked(g_colors, "grad of colors", in.kind, {in.cameras(), in.colored(), 3}, "[B, N, 3]")),
        depths(checked(g_depths, "grad of depths", in.kind, {in.cameras(), in.gaussians()}, "[B, N]")),
        projected_colors(checked(colors_, "colors", in.kind, {in.cameras(), in.colored(), 3}, "[B, N, 3]")),
        radii(checked(radii_, "radii", in.kind.with(ScalarType::Int), {in.cameras(), in.gaussians()}, "[B, N]")),
        means(in.empty({in.gaussians(), 3}, in.kind.dtype)),
        quats(in.empty({in.gaussians(), 4}, in.kind.dtype)),
        scales(in.empty({in.gaussians(), 3}, in.kind.dtype)),
        raw_opacities(in.empty({in.gaussians()}, in.kind.dtype)),
        sh_dc(in.empty({in.colored(), 3}, in.kind.dtype)),
        sh_rest(in.empty({in.sh_rest ? in.gaussians() : 0, in.rest(), 3}, in.kind.dtype)) {}

  template <class T>
  ProjectGrads<T> raw() {
    return {data<T>(means2d),
            data<T>(conics),
            data<T>(opacities),
            data<T>(colors),
            data<T>(depths),
            data<int32_t>(radii),
            data<T>(projected_colors),
            mutable_data<T>(means),
            mutable_data<T>(quats),
            mutable_data<T>(scales),
            mutable_data<T>(raw_opacities),
            mutable_data<T>(sh_dc),
            mutable_data<T>(sh_rest)};
  }
  ProjectResult all() const { return {means, quats, scales, raw_opacities, sh_dc, sh_rest}; }
};

}  // namespace fgs
