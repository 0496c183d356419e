// Real spherical harmonics up to degree 3 and their gradient with respect to the direction.
// Order and signs as in the reference 3D Gaussian splatting: rgb = 0.5 + Σ_k basis_k(d) c_k.
#pragma once

#include "vec.h"

namespace fgs {
inline namespace FGS_ISA {

constexpr int kMaxShBands = 16;  // (3 + 1)²

// basis[0 .. count-1] at the unit direction d; count is 1, 4, 9 or 16.
template <class T>
FGS_HD void sh_basis(const Vec3<T>& d, int count, T* basis) {
  basis[0] = T(0.28209479177387814);
  if (count <= 1) return;
  basis[1] = T(-0.4886025119029199) * d.y;
  basis[2] = T(0.4886025119029199) * d.z;
  basis[3] = T(-0.4886025119029199) * d.x;
  if (count <= 4) return;
  const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
  basis[4] = T(1.0925484305920792) * (d.x * d.y);
  basis[5] = T(-1.0925484305920792) * (d.y * d.z);
  basis[6] = T(0.31539156525252005) * (T(2) * zz - xx - yy);
  basis[7] = T(-1.0925484305920792) * (d.x * d.z);
  basis[8] = T(0.5462742152960396) * (xx - yy);
  if (count <= 9) return;
  basis[9] = T(-0.5900435899266435) * d.y * (T(3) * xx - yy);
  basis[10] = T(2.890611442640554) * (d.x * d.y) * d.z;
  basis[11] = T(-0.4570457994644658) * d.y * (T(4) * zz - xx - yy);
  basis[12] = T(0.3731763325901154) * d.z * (T(2) * zz - T(3) * xx - T(3) * yy);
  basis[13] = T(-0.4570457994644658) * d.x * (T(4) * zz - xx - yy);
  basis[14] = T(1.445305721320277) * d.z * (xx - yy);
  basis[15] = T(-0.5900435899266435) * d.x * (xx - T(3) * yy);
}

// dL/dd, given g[k] = dL/dbasis_k. Treats d as three free numbers; the caller projects onto the sphere.
template <class T>
FGS_HD Vec3<T> sh_basis_vjp(const Vec3<T>& d, int count, const T* g) {
  Vec3<T> v = {T(0), T(0), T(0)};
  if (count <= 1) return v;
  v.y = T(-0.4886025119029199) * g[1];
  v.z = T(0.4886025119029199) * g[2];
  v.x = T(-0.4886025119029199) * g[3];
  if (count <= 4) return v;
  const T g4 = T(1.0925484305920792) * g[4], g5 = T(-1.0925484305920792) * g[5];
  const T g6 = T(0.31539156525252005) * g[6], g7 = T(-1.0925484305920792) * g[7];
  const T g8 = T(0.5462742152960396) * g[8];
  const T two(2), six(6), eight(8);
  v.x = v.x + g4 * d.y - two * g6 * d.x + g7 * d.z + two * g8 * d.x;
  v.y = v.y + g4 * d.x + g5 * d.z - two * g6 * d.y - two * g8 * d.y;
  v.z = v.z + g5 * d.y + T(4) * g6 * d.z + g7 * d.x;
  if (count <= 9) return v;
  const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
  const T xy = d.x * d.y, xz = d.x * d.z, yz = d.y * d.z;
  const T g9 = T(-0.5900435899266435) * g[9], g10 = T(2.890611442640554) * g[10];
  const T g11 = T(-0.4570457994644658) * g[11], g12 = T(0.3731763325901154) * g[12];
  const T g13 = T(-0.4570457994644658) * g[13], g14 = T(1.445305721320277) * g[14];
  const T g15 = T(-0.5900435899266435) * g[15];
  const T three(3), four(4);
  v.x = v.x + g9 * six * xy + g10 * yz - two * g11 * xy - six * g12 * xz + g13 * (four * zz - three * xx - yy) +
        two * g14 * xz + three * g15 * (xx - yy);
  v.y = v.y + three * g9 * (xx - yy) + g10 * xz + g11 * (four * zz - xx - three * yy) - six * g12 * yz -
        two * g13 * xy - two * g14 * yz - six * g15 * xy;
  v.z = v.z + g10 * xy + eight * g11 * yz + three * g12 * (two * zz - xx - yy) + eight * g13 * xz + g14 * (xx - yy);
  return v;
}

// dL/dv of d = v / |v|, given g = dL/dd.
template <class T>
FGS_HD Vec3<T> normalize_vjp(const Vec3<T>& d, const T& inverse_length, const Vec3<T>& g) {
  return inverse_length * (g - dot(g, d) * d);
}

}  // namespace FGS_ISA
}  // namespace fgs
