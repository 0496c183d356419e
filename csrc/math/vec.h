// Three-vectors and 3x3 matrices over any scalar or pack.
#pragma once

#include "host_device.h"

namespace fgs {
inline namespace FGS_ISA {

template <class T>
struct Vec3 {
  T x, y, z;
};

template <class T>
FGS_HD Vec3<T> operator+(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class T>
FGS_HD Vec3<T> operator-(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <class T>
FGS_HD Vec3<T> operator*(const T& s, const Vec3<T>& a) {
  return {s * a.x, s * a.y, s * a.z};
}

template <class T>
FGS_HD T dot(const Vec3<T>& a, const Vec3<T>& b) {
  return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z));
}

template <class T>
FGS_HD Vec3<T> cross(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Row-major: row0 is the first row.
template <class T>
struct Mat3 {
  Vec3<T> row0, row1, row2;
};

template <class T>
FGS_HD Vec3<T> operator*(const Mat3<T>& m, const Vec3<T>& v) {
  return {dot(m.row0, v), dot(m.row1, v), dot(m.row2, v)};
}

// mᵀ v
template <class T>
FGS_HD Vec3<T> transposed_times(const Mat3<T>& m, const Vec3<T>& v) {
  return v.x * m.row0 + v.y * m.row1 + v.z * m.row2;
}

template <class T>
FGS_HD Mat3<T> operator*(const Mat3<T>& a, const Mat3<T>& b) {
  return {transposed_times(b, a.row0), transposed_times(b, a.row1), transposed_times(b, a.row2)};
}

// aᵀ b
template <class T>
FGS_HD Mat3<T> transposed_times(const Mat3<T>& a, const Mat3<T>& b) {
  return {a.row0.x * b.row0 + a.row1.x * b.row1 + a.row2.x * b.row2,
          a.row0.y * b.row0 + a.row1.y * b.row1 + a.row2.y * b.row2,
          a.row0.z * b.row0 + a.row1.z * b.row1 + a.row2.z * b.row2};
}

}  // namespace FGS_ISA
}  // namespace fgs
