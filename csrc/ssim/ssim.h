// ssim: mean structural similarity of two images, and its gradient with respect to the first.
//
//   image, target [B, H, W, C], values in [0, 1] -> mean [B]; and for the backward pass d_mean, d_square, d_cross
//   [B, H, W, C]
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
// Both passes are separable filters of a few maps. Rows are independent, and their sums are added in order: the same
// bits for any number of threads.
#pragma once

#include "../math/host_device.h"

namespace fgs {

constexpr int kReach = 5;  // of the window, pixels to each side
constexpr int kTaps = 2 * kReach + 1;
// exp(-k² / (2 · 1.5²)), k = 0 .. 5, scaled so that the whole window sums to 1
constexpr double kWindow[] = {0.2660117248617943,  0.21300553771125366,  0.1093606895097,
                              0.03600077212843082, 0.007598758135239184, 0.0010283800844791099};
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;

// The weight of tap 0 .. 10 of the window.
template <class T>
FGS_HD T window_weight(int tap) {
  constexpr T weights[] = {T(kWindow[5]), T(kWindow[4]), T(kWindow[3]), T(kWindow[2]), T(kWindow[1]), T(kWindow[0]),
                           T(kWindow[1]), T(kWindow[2]), T(kWindow[3]), T(kWindow[4]), T(kWindow[5])};
  return weights[tap];
}

template <class T>
struct Similarity {
  T value, d_mean, d_square, d_cross;
};

// S and its derivatives at one place, from the filtered G x, G y, G (x² + y²), G (x y).
template <class T>
FGS_HD Similarity<T> similarity(T mx, T my, T square, T cross) {
  const T mean_cross = mx * my, mean_square = mx * mx + my * my;
  const T a1 = 2 * mean_cross + T(kC1), a2 = 2 * (cross - mean_cross) + T(kC2);
  const T b1 = mean_square + T(kC1), b2 = square - mean_square + T(kC2);
  const T inverse = 1 / (b1 * b2);
  const T s = a1 * a2 * inverse;
  return {s, 2 * inverse * (my * (a2 - a1) + mx * s * (b1 - b2)), -s * b1 * inverse, 2 * a1 * inverse};
}

}  // namespace fgs
