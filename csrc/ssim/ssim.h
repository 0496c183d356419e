// Mean structural similarity of two images, and its gradient with respect to the first.
//
// Window: Gaussian, 11 x 11, sigma 1.5, zero padding. With G the filter and, at every pixel and channel,
//   mx = G x,  my = G y,  sq = G (x² + y²) - mx² - my²,  cov = G (x y) - mx my
//   A1 = 2 mx my + C1,  A2 = 2 cov + C2,  B1 = mx² + my² + C1,  B2 = sq + C2,  C1 = 0.01², C2 = 0.03²
//   S = A1 A2 / (B1 B2)
// S depends on x through mx, G x² and G x y; the forward pass saves its derivatives by these three:
//   d_mean   = 2 (my (A2 - A1) + mx S (B1 - B2)) / (B1 B2)
//   d_square = -S / B2
//   d_cross  = 2 A1 / (B1 B2)
// and since G is symmetric, the gradient of the mean of S over the n = H W C values of an image is
//   dL/dx = dL/dmean / n · (G d_mean + 2 x G d_square + y G d_cross)
#pragma once

#include <tuple>

#include <torch/csrc/stable/tensor.h>

namespace fgs {

using torch::stable::Tensor;

// image, target: [B, H, W, C], float32 or float64. Returns the mean of S [B], and d_mean, d_square, d_cross [B, H, W, C].
std::tuple<Tensor, Tensor, Tensor, Tensor> ssim(const Tensor& image, const Tensor& target);

// grad: [B], by the means. Returns dL/dimage [B, H, W, C].
Tensor ssim_backward(const Tensor& grad, const Tensor& image, const Tensor& target, const Tensor& d_mean,
                     const Tensor& d_square, const Tensor& d_cross);

}  // namespace fgs
