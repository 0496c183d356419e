// The arguments of intersect: checked, and as its kernels want them.
#pragma once

#include <limits>

#include "footprint.h"
#include "lists.h"

namespace fgs {

struct IntersectArguments {
  Tensor means2d, conics, opacities, depths, radii;
  int64_t width, height;
  Kind kind = ScalarType::Float;

  void check() {
    kind = floating_kind(means2d, "means2d");
    check_shape(means2d, "means2d", {kAny, kAny, 2}, "[B, N, 2]");
    const int64_t B = cameras(), N = gaussians();
    means2d = checked(means2d, "means2d", kind, {B, N, 2}, "[B, N, 2]");
    conics = checked(conics, "conics", kind, {B, N, 3}, "[B, N, 3]");
    opacities = checked(opacities, "opacities", kind, {B, N}, "[B, N]");
    depths = checked(depths, "depths", kind, {B, N}, "[B, N]");
    radii = checked(radii, "radii", kind.with(ScalarType::Int), {B, N}, "[B, N]");
    checked_tiles(B, width, height);
    STD_TORCH_CHECK(B * N <= std::numeric_limits<int32_t>::max(), "B x N must stay below 2^31, got ", B, " x ", N);
  }

  int64_t cameras() const { return means2d.size(0); }
  int64_t gaussians() const { return means2d.size(1); }
  int64_t tiles_x() const { return (width + kTile - 1) / kTile; }
  int64_t tiles_y() const { return (height + kTile - 1) / kTile; }

  // Uninitialised, beside the inputs.
  Tensor empty(int64_t count, ScalarType dtype) const { return torch::stable::new_empty(means2d, {count}, dtype); }

  template <class T>
  Splats<T> splats() const {
    return {data<T>(means2d),       data<T>(conics),
            data<T>(opacities),     data<T>(depths),
            data<int32_t>(radii),   static_cast<int32_t>(tiles_x()),
            static_cast<int32_t>(tiles_y())};
  }
};

inline void check_pair_count(int64_t pairs) {
  STD_TORCH_CHECK(pairs <= std::numeric_limits<int32_t>::max(), "intersect: ", pairs,
                  " tile-Gaussian pairs are more than 2^31 - 1; render fewer cameras at once or a smaller image");
}

}  // namespace fgs
