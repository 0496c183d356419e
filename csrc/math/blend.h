// One 2D Gaussian at one pixel: its alpha, and the rules of front-to-back blending.
//
//   sigma = (a dx² + c dy²)/2 + b dx dy,   alpha = min(0.99, opacity · exp(-sigma)),   skipped below 1/255
//
// The opacity is folded into the exponent and everything is in base 2: alpha = 2^(log2 o - log2(e) sigma).
#pragma once

#include "host_device.h"

namespace fgs {
inline namespace FGS_ISA {

constexpr double kMinAlpha = 1.0 / 255.0;
constexpr double kMaxAlpha = 0.99;
constexpr double kMinTransmittance = 1e-4;  // the Gaussian that would reach this is not blended
constexpr double kLog2E = 1.4426950408889634;

// A 2D Gaussian as the blending loop wants it: half the conic times log2(e), b in full.
template <class T>
struct Splat {
  T x, y;       // centre, pixels
  T a, b, c;    // -log2(alpha / opacity) = a dx² + b dx dy + c dy²
  T log2_opacity;
};

template <class T>
FGS_HD Splat<T> make_splat(T x, T y, T conic_xx, T conic_xy, T conic_yy, T opacity) {
  const T half = T(0.5 * kLog2E);
  return {x, y, half * conic_xx, T(kLog2E) * conic_xy, half * conic_yy, log2(opacity)};
}

// alpha before the clamp at 0.99. S is the scalar of the splat, T a scalar or a pack of pixels.
template <class T, class S>
FGS_HD T raw_alpha(const Splat<S>& s, const T& dx, const T& dy) {
  const T slope = fma(T(s.a), dx, T(s.b) * dy);
  const T tail = fma(T(s.c) * dy, dy, -T(s.log2_opacity));
  return exp2(-fma(slope, dx, tail));
}

// Gradients of one splat from the moments of s = alpha · dL/dalpha over its pixels (0 where alpha is clamped),
// since dL/dsigma = -s: sum = Σ s, x = Σ s dx, xx = Σ s dx², ...
template <class T>
struct Moments {
  T sum, x, y, xx, xy, yy;
};

template <class T>
struct SplatGrad {
  T x, y;           // of the centre
  T xx, xy, yy;     // of the conic
  T opacity;
};

template <class T>
FGS_HD SplatGrad<T> splat_vjp(T conic_xx, T conic_xy, T conic_yy, T opacity, const Moments<T>& m) {
  return {conic_xx * m.x + conic_xy * m.y, conic_xy * m.x + conic_yy * m.y, T(-0.5) * m.xx, -m.xy, T(-0.5) * m.yy,
          m.sum / opacity};
}

}  // namespace FGS_ISA
}  // namespace fgs
