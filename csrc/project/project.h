// project: 3D Gaussians -> 2D splats, for B cameras.
//
//   means [N, 3], quats [N, 4] (w, x, y, z, any length), scales [N, 3], opacities [N] (both activated),
//   sh_dc [N, 3] or absent, sh_rest [N, K-1, 3] or absent (K = 4, 9, 16),
//   cam_from_world [B, 4, 4], K [B, 3, 3]
//   -> means2d [B, N, 2] pixels, conics [B, N, 3] (xx, xy, yy of the inverse covariance), opacities [B, N]
//      (lowered when antialiased), colors [B, N, 3] ([B, 0, 3] without sh_dc), depths [B, N] (z of the centre),
//      radii [B, N] int32: pixels out to alpha = 1/255, 0 = not visible
//
// A Gaussian is visible when near < z < far, its opacity reaches 1/255, all it evaluates to is finite and the bounding
// box of its alpha >= 1/255 ellipse meets the image. What is not visible is 0 everywhere and has no gradient.
// The cameras carry no gradient. Gradients of all cameras are summed in the order of the batch.
#pragma once

#include <cstdint>

namespace fgs {

template <class T>
struct ProjectInputs {
  const T *means, *quats, *scales, *opacities;
  const T *sh_dc, *sh_rest;       // null when absent
  int64_t sh_dc_stride, sh_rest_stride;  // numbers from one Gaussian to the next
  int sh_count;                   // K; 0 without colours
  const T *cam_from_world, *K;
  int64_t cameras, gaussians;
  int64_t width, height;
  double near, far;
  bool antialiased;
};

template <class T>
struct ProjectOutputs {
  T *means2d, *conics, *opacities, *colors, *depths;
  int32_t* radii;
};

template <class T>
struct ProjectGrads {
  // in
  const T *means2d, *conics, *opacities, *colors, *depths;
  const int32_t* radii;
  const T* projected_colors;
  // out
  T *means, *quats, *scales, *raw_opacities, *sh_dc, *sh_rest;
};

}  // namespace fgs
