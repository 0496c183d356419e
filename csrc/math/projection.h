// One 3D Gaussian seen by one pinhole camera: its 2D centre, its 2D covariance and the inverse of that (the conic).
//
//   p = R m + t,   mean2d = (fx x/z + cx, fy y/z + cy)
//   cov2d = J (R Q S)(R Q S)ᵀ Jᵀ + blur I,   J = local linearisation of the projection at (x/z, y/z) clamped
//
// (Zwicker et al., EWA splatting, 2002; the clamp and the blur as in the reference 3D Gaussian splatting.)
#pragma once

#include "quaternion.h"

namespace fgs {
inline namespace FGS_ISA {

constexpr double kBlur = 0.3;                // px², added to the 2D covariance
constexpr double kMinCompensation = 0.005;   // floor of the antialiasing factor
constexpr double kClampMargin = 0.15;        // of the image size, beyond its border

template <class T>
struct Pinhole {
  Mat3<T> rotation;  // of cam_from_world
  Vec3<T> translation;
  Vec3<T> center;  // of the camera, in world space
  T fx, fy, cx, cy;
  T min_x, max_x, min_y, max_y;  // limits of x/z and y/z at which J is taken
};

template <class T>
struct Cov2 {
  T xx, xy, yy;
};

// The symmetric inverse, given the determinant.
template <class T>
FGS_HD Cov2<T> inverse(const Cov2<T>& c, const T& det) {
  const T s = T(1) / det;
  return {s * c.yy, -(s * c.xy), s * c.xx};
}

// dL/dcov of inverse(cov), given the inverse q and g = dL/dq; xy counts both off-diagonal entries.
template <class T>
FGS_HD Cov2<T> inverse_vjp(const Cov2<T>& q, const Cov2<T>& g) {
  const T half_xy = T(0.5) * g.xy;
  const T a = q.xx * g.xx + q.xy * half_xy, b = q.xx * half_xy + q.xy * g.yy;  // first row of q g
  const T c = q.xy * g.xx + q.yy * half_xy, d = q.xy * half_xy + q.yy * g.yy;  // second row of q g
  return {-(a * q.xx + b * q.xy), T(-2) * (a * q.xy + b * q.yy), -(c * q.xy + d * q.yy)};
}

// What both directions of the projection need.
template <class T>
struct Projected {
  Vec3<T> p;           // the centre in camera space
  T inverse_z;
  T slope_x, slope_y;  // clamped x/z, y/z
  Mat3<T> axes;        // R Q: the Gaussian's axes in camera space, one per column
  Mat3<T> scaled;      // R Q S
  Vec3<T> a0, a1;      // the rows of J R Q S
  Cov2<T> sharp;       // the covariance before the blur
  Cov2<T> cov;
  T sharp_det, det;    // of sharp and of cov
};

template <class T>
FGS_HD Mat3<T> scale_columns(const Mat3<T>& m, const Vec3<T>& s) {
  return {{m.row0.x * s.x, m.row0.y * s.y, m.row0.z * s.z},
          {m.row1.x * s.x, m.row1.y * s.y, m.row1.z * s.z},
          {m.row2.x * s.x, m.row2.y * s.y, m.row2.z * s.z}};
}

template <class T>
FGS_HD Projected<T> project(const Vec3<T>& mean, const Quat<T>& quat, const Vec3<T>& scale, const Pinhole<T>& camera) {
  Projected<T> r;
  r.p = camera.rotation * mean + camera.translation;
  r.inverse_z = T(1) / r.p.z;
  r.slope_x = min(max(r.p.x * r.inverse_z, camera.min_x), camera.max_x);
  r.slope_y = min(max(r.p.y * r.inverse_z, camera.min_y), camera.max_y);
  r.axes = camera.rotation * rotation(quat);
  r.scaled = scale_columns(r.axes, scale);
  r.a0 = (camera.fx * r.inverse_z) * (r.scaled.row0 - r.slope_x * r.scaled.row2);
  r.a1 = (camera.fy * r.inverse_z) * (r.scaled.row1 - r.slope_y * r.scaled.row2);
  r.sharp = {dot(r.a0, r.a0), dot(r.a0, r.a1), dot(r.a1, r.a1)};
  r.cov = {r.sharp.xx + T(kBlur), r.sharp.xy, r.sharp.yy + T(kBlur)};
  const Vec3<T> area = cross(r.a0, r.a1);  // xx yy - xy² would cancel for long thin splats
  r.sharp_det = dot(area, area);
  r.det = fma(T(kBlur), r.sharp.xx + r.cov.yy, r.sharp_det);
  return r;
}

template <class T>
struct GaussianGrad {
  Vec3<T> mean;
  Quat<T> quat;
  Vec3<T> scale;
};

// Gradients of project(), given those of the 2D centre (x, y), of the covariance and of the depth z.
template <class T>
FGS_HD GaussianGrad<T> project_vjp(const Quat<T>& quat, const Vec3<T>& scale, const Pinhole<T>& camera,
                                   const Projected<T>& r, const T& g_x, const T& g_y, const Cov2<T>& g_cov,
                                   const T& g_depth) {
  const T two(2), zero(0);
  const Vec3<T> g_a0 = (two * g_cov.xx) * r.a0 + g_cov.xy * r.a1;
  const Vec3<T> g_a1 = (two * g_cov.yy) * r.a1 + g_cov.xy * r.a0;
  const T jx = camera.fx * r.inverse_z, jy = camera.fy * r.inverse_z;
  const T g_slope_x = -(jx * dot(g_a0, r.scaled.row2)), g_slope_y = -(jy * dot(g_a1, r.scaled.row2));
  const Mat3<T> g_scaled = {jx * g_a0, jy * g_a1, (-(jx * r.slope_x)) * g_a0 - (jy * r.slope_y) * g_a1};

  const T x_over_z = r.p.x * r.inverse_z, y_over_z = r.p.y * r.inverse_z;
  const auto free_x = (x_over_z >= camera.min_x) & (x_over_z <= camera.max_x);
  const auto free_y = (y_over_z >= camera.min_y) & (y_over_z <= camera.max_y);
  const T g_ray_x = camera.fx * g_x + select(free_x, g_slope_x, zero);  // of x/z
  const T g_ray_y = camera.fy * g_y + select(free_y, g_slope_y, zero);
  // J scales with 1/z, and d(1/z)/dz = -1/z²: its share of dL/dz is -(g_a0·a0 + g_a1·a1)/z.
  const T g_z = g_depth - r.inverse_z * (dot(g_a0, r.a0) + dot(g_a1, r.a1) + g_ray_x * x_over_z + g_ray_y * y_over_z);
  const Vec3<T> g_p = {g_ray_x * r.inverse_z, g_ray_y * r.inverse_z, g_z};

  GaussianGrad<T> g;
  g.mean = transposed_times(camera.rotation, g_p);
  g.scale = {g_scaled.row0.x * r.axes.row0.x + g_scaled.row1.x * r.axes.row1.x + g_scaled.row2.x * r.axes.row2.x,
             g_scaled.row0.y * r.axes.row0.y + g_scaled.row1.y * r.axes.row1.y + g_scaled.row2.y * r.axes.row2.y,
             g_scaled.row0.z * r.axes.row0.z + g_scaled.row1.z * r.axes.row1.z + g_scaled.row2.z * r.axes.row2.z};
  g.quat = rotation_vjp(quat, transposed_times(camera.rotation, scale_columns(g_scaled, scale)));
  return g;
}

// Antialiasing: the blur widens a splat by sqrt(det cov / det sharp), so its opacity is lowered by the inverse.
template <class T>
FGS_HD T compensation(const Projected<T>& r) {
  return max(sqrt(r.sharp_det / r.det), T(kMinCompensation));
}

// dL/dcov of compensation(), given g = dL/dcompensation; zero at the floor.
template <class T>
FGS_HD Cov2<T> compensation_vjp(const Projected<T>& r, const T& value, const T& g) {
  const T g_ratio = select(value > T(kMinCompensation), T(0.5) * g / value, T(0));
  const T g_sharp = g_ratio / r.det, g_det = -(g_sharp * r.sharp_det / r.det);
  return {g_sharp * r.sharp.yy + g_det * r.cov.yy, T(-2) * r.cov.xy * (g_sharp + g_det),
          g_sharp * r.sharp.xx + g_det * r.cov.xx};
}

}  // namespace FGS_ISA
}  // namespace fgs
