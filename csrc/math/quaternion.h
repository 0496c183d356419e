// Rotation matrix of a quaternion (w, x, y, z) of any non-zero length.
#pragma once

#include "vec.h"

namespace fgs {
inline namespace FGS_ISA {

template <class T>
struct Quat {
  T w, x, y, z;
};

template <class T>
FGS_HD T inverse_length(const Quat<T>& q) {
  return T(1) / sqrt(fma(q.w, q.w, fma(q.x, q.x, fma(q.y, q.y, q.z * q.z))));
}

// R(q / |q|)
template <class T>
FGS_HD Mat3<T> rotation(const Quat<T>& raw) {
  const T s = inverse_length(raw);
  const T w = raw.w * s, x = raw.x * s, y = raw.y * s, z = raw.z * s;
  const T two(2), one(1);
  return {{one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)},
          {two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)},
          {two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)}};
}

// dL/dq of rotation(q), given g = dL/dR. The part along q vanishes: the length of q does not matter.
template <class T>
FGS_HD Quat<T> rotation_vjp(const Quat<T>& raw, const Mat3<T>& g) {
  const T s = inverse_length(raw);
  const T w = raw.w * s, x = raw.x * s, y = raw.y * s, z = raw.z * s;
  const T two(2);
  const T g_w = two * (x * (g.row2.y - g.row1.z) + y * (g.row0.z - g.row2.x) + z * (g.row1.x - g.row0.y));
  const T g_x = two * (y * (g.row0.y + g.row1.x) + z * (g.row0.z + g.row2.x) + w * (g.row2.y - g.row1.z) -
                       two * x * (g.row1.y + g.row2.z));
  const T g_y = two * (x * (g.row0.y + g.row1.x) + z * (g.row1.z + g.row2.y) + w * (g.row0.z - g.row2.x) -
                       two * y * (g.row0.x + g.row2.z));
  const T g_z = two * (x * (g.row0.z + g.row2.x) + y * (g.row1.z + g.row2.y) + w * (g.row1.x - g.row0.y) -
                       two * z * (g.row0.x + g.row1.y));
  const T along = w * g_w + x * g_x + y * g_y + z * g_z;
  return {s * (g_w - along * w), s * (g_x - along * x), s * (g_y - along * y), s * (g_z - along * z)};
}

}  // namespace FGS_ISA
}  // namespace fgs
