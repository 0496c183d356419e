// The ellipse inside which a 2D Gaussian reaches alpha >= 1/255, and where it meets a horizontal band.
#pragma once

#include "blend.h"

namespace fgs {
inline namespace FGS_ISA {

constexpr double kLog2Of255 = 7.994353436858858;
constexpr double kEllipseMargin = 0.01;  // px added on every side, far above the rounding of the tests below

// {d : xx dx² + 2 xy dx dy + yy dy² <= reach}, reach = 2 ln(255 opacity)
template <class T>
struct Ellipse {
  T xx, xy;
  T det;               // xx yy - xy²
  T reach;
  T half_width, half_height;  // of the bounding box
  T tilt;              // dy at which dx is largest
};

template <class T>
FGS_HD T ellipse_reach(T opacity) {
  return T(2.0 / kLog2E) * (log2(opacity) + T(kLog2Of255));
}

template <class T>
FGS_HD Ellipse<T> make_ellipse(T conic_xx, T conic_xy, T conic_yy, T reach) {
  Ellipse<T> e;
  e.xx = conic_xx;
  e.xy = conic_xy;
  e.det = conic_xx * conic_yy - conic_xy * conic_xy;
  e.reach = max(reach, T(0));
  const T unit = sqrt(e.reach / e.det);
  const T root_yy = sqrt(conic_yy);
  e.half_width = unit * root_yy;
  e.half_height = unit * sqrt(conic_xx);
  e.tilt = -(conic_xy / root_yy) * unit;
  return e;
}

template <class T>
struct Interval {
  T low, high;  // empty when low > high
};

// The range of dx within the ellipse for dy in [top, bottom]; empty when the band misses it. Both ends are reached
// at the ellipse's own extreme or, since its right side is concave in dy, at the nearest dy inside the band.
template <class T>
FGS_HD Interval<T> extent_in_band(const Ellipse<T>& e, const T& top, const T& bottom) {
  const T first = max(top, -e.half_height), last = min(bottom, e.half_height);
  const T right = min(max(e.tilt, first), last), left = min(max(-e.tilt, first), last);
  const T scale = T(1) / e.xx;
  const T high = scale * (sqrt(max(e.xx * e.reach - e.det * right * right, T(0))) - e.xy * right);
  const T low = scale * (-sqrt(max(e.xx * e.reach - e.det * left * left, T(0))) - e.xy * left);
  const auto missed = (top > e.half_height + T(kEllipseMargin)) | (bottom < -e.half_height - T(kEllipseMargin));
  return {select(missed, T(1), low - T(kEllipseMargin)), select(missed, T(-1), high + T(kEllipseMargin))};
}

}  // namespace FGS_ISA
}  // namespace fgs
