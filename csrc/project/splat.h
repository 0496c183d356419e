// One Gaussian seen by one camera, and the gradient of that: what the CPU's packs and CUDA's threads have in common.
// P is the scalar of the arrays or a pack of them.
#pragma once

#include "../math/ellipse.h"
#include "../math/projection.h"
#include "../math/spherical_harmonics.h"
#include "project.h"

namespace fgs {
inline namespace FGS_ISA {

template <class P, class T>
FGS_HD Pinhole<P> make_pinhole(const ProjectInputs<T>& in, int64_t camera) {
  const T* m = in.cam_from_world + 16 * camera;
  const T* k = in.K + 9 * camera;
  const T fx = k[0], fy = k[4], cx = k[2], cy = k[5];
  const T width = static_cast<T>(in.width), height = static_cast<T>(in.height), margin = T(kClampMargin);
  Pinhole<P> c;
  c.rotation = {{P(m[0]), P(m[1]), P(m[2])}, {P(m[4]), P(m[5]), P(m[6])}, {P(m[8]), P(m[9]), P(m[10])}};
  c.translation = {P(m[3]), P(m[7]), P(m[11])};
  const Vec3<P> turned = transposed_times(c.rotation, c.translation);
  c.center = {-turned.x, -turned.y, -turned.z};
  c.fx = P(fx), c.fy = P(fy), c.cx = P(cx), c.cy = P(cy);
  c.min_x = P((-cx - margin * width) / fx), c.max_x = P((width - cx + margin * width) / fx);
  c.min_y = P((-cy - margin * height) / fy), c.max_y = P((height - cy + margin * height) / fy);
  return c;
}

// A splat that may still be outside the image or not finite.
template <class P>
struct SplatView {
  P x, y;                     // centre, pixels
  Cov2<P> conic;
  P det;                      // of the covariance
  P opacity;                  // lowered when antialiased
  P half_width, half_height;  // of the box around alpha >= 1/255
};

template <class P>
FGS_HD SplatView<P> view_splat(const Vec3<P>& mean, const Quat<P>& quat, const Vec3<P>& scale, const P& opacity,
                              const Pinhole<P>& camera, bool antialiased) {
  const Projected<P> r = project(mean, quat, scale, camera);
  SplatView<P> f;
  f.x = fma(camera.fx, r.p.x * r.inverse_z, camera.cx), f.y = fma(camera.fy, r.p.y * r.inverse_z, camera.cy);
  f.opacity = antialiased ? opacity * compensation(r) : opacity;
  f.conic = inverse(r.cov, r.det);
  f.det = r.det;
  const P reach = ellipse_reach(max(f.opacity, P(kMinAlpha)));
  f.half_width = sqrt(reach * r.cov.xx), f.half_height = sqrt(reach * r.cov.yy);
  return f;
}

template <class P>
FGS_HD P size_of(const Vec3<P>& v) {
  return abs(v.x) + abs(v.y) + abs(v.z);
}

// Whether a splat is finite, its colour too, and meets the image.
template <class P>
FGS_HD auto is_visible(const SplatView<P>& f, const P& color_size, const P& width, const P& height) {
  const P zero(0.0);
  const P size = abs(f.x) + abs(f.y) + f.half_width + f.half_height + abs(f.conic.xx) + abs(f.conic.xy) +
                 abs(f.conic.yy) + color_size;
  return (f.det > zero) & (f.opacity >= P(kMinAlpha)) & (size < P(1e30)) & (f.x + f.half_width > zero) &
         (f.x - f.half_width < width) & (f.y + f.half_height > zero) & (f.y - f.half_height < height);
}

// Pixels out to alpha = 1/255, of the larger half of the box.
template <class T>
FGS_HD int32_t whole_radius(T larger) {
  return static_cast<int32_t>(std::ceil(min(max(larger, T(1)), T(1e6))));
}

template <class P>
struct ViewDirection {
  Vec3<P> unit;
  P inverse_length;
};

template <class P>
FGS_HD ViewDirection<P> view_direction(const Vec3<P>& mean, const Pinhole<P>& camera) {
  const Vec3<P> v = mean - camera.center;
  const P inverse = P(1.0) / sqrt(dot(v, v));
  return {inverse * v, inverse};
}

// 0.5 + Σ, before what is negative is cut off. rest: the coefficients of all but the first harmonic.
template <class P>
FGS_HD Vec3<P> sh_color(int count, const Vec3<P>& dc, const P* rest, const P* basis) {
  const P half(0.5);
  Vec3<P> color = {fma(basis[0], dc.x, half), fma(basis[0], dc.y, half), fma(basis[0], dc.z, half)};
  for (int k = 1; k < count; ++k, rest += 3)
    color = {fma(basis[k], rest[0], color.x), fma(basis[k], rest[1], color.y), fma(basis[k], rest[2], color.z)};
  return color;
}

// dL/dmean through the direction in which sh_color sees the Gaussian, given g = dL/dcolor.
template <class P>
FGS_HD Vec3<P> sh_direction_vjp(const ViewDirection<P>& view, int count, const P* rest, const Vec3<P>& g) {
  P g_basis[kMaxShBands];
  g_basis[0] = P(0.0);
  for (int k = 1; k < count; ++k, rest += 3) g_basis[k] = fma(rest[0], g.x, fma(rest[1], g.y, rest[2] * g.z));
  return normalize_vjp(view.unit, view.inverse_length, sh_basis_vjp(view.unit, count, g_basis));
}

// Adds dL/drest to `sums`, given g = dL/dcolor.
template <class P>
FGS_HD void add_sh_rest_vjp(int count, const P* basis, const Vec3<P>& g, P* sums) {
  for (int k = 1; k < count; ++k, sums += 3) {
    sums[0] = fma(basis[k], g.x, sums[0]);
    sums[1] = fma(basis[k], g.y, sums[1]);
    sums[2] = fma(basis[k], g.z, sums[2]);
  }
}

template <class P>
struct SplatViewGrad {
  P x, y;
  Cov2<P> conic;
  P opacity, depth;
};

template <class P>
struct CameraShare {
  GaussianGrad<P> gaussian;
  P opacity;
};

// What one camera adds to the gradients of a Gaussian, colour apart.
template <class P>
FGS_HD CameraShare<P> view_splat_vjp(const Vec3<P>& mean, const Quat<P>& quat, const Vec3<P>& scale, const P& opacity,
                                    const Pinhole<P>& camera, bool antialiased, const SplatViewGrad<P>& g) {
  const Projected<P> r = project(mean, quat, scale, camera);
  Cov2<P> g_cov = inverse_vjp(inverse(r.cov, r.det), g.conic);
  P g_opacity = g.opacity;
  if (antialiased) {
    const P factor = compensation(r);
    const Cov2<P> extra = compensation_vjp(r, factor, g_opacity * opacity);
    g_cov = {g_cov.xx + extra.xx, g_cov.xy + extra.xy, g_cov.yy + extra.yy};
    g_opacity = g_opacity * factor;
  }
  return {project_vjp(quat, scale, camera, r, g.x, g.y, g_cov, g.depth), g_opacity};
}

}  // namespace FGS_ISA
}  // namespace fgs
