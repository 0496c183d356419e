// The loops of project and of its gradient over packs of Gaussians (contract: project.h).
#pragma once

#include <cmath>

#include "../math/ellipse.h"
#include "../math/projection.h"
#include "../math/spherical_harmonics.h"
#include "project.h"

namespace fgs {
inline namespace FGS_ISA {

// Reads columns of row-major arrays for `count` <= lanes consecutive Gaussians; spare lanes repeat the last one.
template <class P>
struct Columns {
  using T = typename P::Scalar;
  int64_t first;
  int32_t lane[P::lanes];

  Columns(int64_t first_, int64_t count) : first(first_) {
    for (int l = 0; l < P::lanes; ++l) lane[l] = l < count ? l : static_cast<int32_t>(count) - 1;
  }
  P operator()(const T* base, int64_t stride, int64_t column) const {
    int32_t index[P::lanes];
    for (int l = 0; l < P::lanes; ++l) index[l] = lane[l] * static_cast<int32_t>(stride);
    return P::gather(base + first * stride + column, index);
  }
  Vec3<P> vec3(const T* base, int64_t stride = 3, int64_t column = 0) const {
    return {(*this)(base, stride, column), (*this)(base, stride, column + 1), (*this)(base, stride, column + 2)};
  }
};

// Reads the rows of `count` <= lanes consecutive Gaussians, `width` numbers each, as one pack per column.
template <class P>
FGS_HD void load_rows(const typename P::Scalar* base, int64_t stride, int count, int width, P* columns) {
  constexpr int L = P::lanes;
  for (int first = 0; first < width; first += L, columns += L) {
    const bool whole = width - first >= L;
    for (int l = 0; l < L; ++l) {
      const typename P::Scalar* row = base + l * stride + first;
      columns[l] = l >= count ? P(0.0) : whole ? P::load(row) : P::load_first(row, width - first);
    }
    transpose(columns);
  }
}

// The reverse: one pack per column becomes the rows of a dense array. Overwrites `columns`.
template <class P>
FGS_HD void store_rows(P* columns, typename P::Scalar* base, int count, int width) {
  constexpr int L = P::lanes;
  for (int first = 0; first < width; first += L, columns += L) {
    transpose(columns);
    const bool whole = width - first >= L;
    for (int l = 0; l < count; ++l) {
      typename P::Scalar* row = base + l * width + first;
      whole ? columns[l].store(row) : columns[l].store_first(row, width - first);
    }
  }
}

constexpr int kMaxShRow = 3 * kMaxShBands;  // room for 45 numbers in whole packs

template <class P>
Pinhole<P> make_pinhole(const ProjectInputs<typename P::Scalar>& in, int64_t camera) {
  using T = typename P::Scalar;
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

template <class P>
struct ViewDirection {
  Vec3<P> unit;
  P inverse_length;
};

template <class P>
ViewDirection<P> view_direction(const Vec3<P>& mean, const Pinhole<P>& camera) {
  const Vec3<P> v = mean - camera.center;
  const P inverse = P(1.0) / sqrt(dot(v, v));
  return {inverse * v, inverse};
}

// 0.5 + Σ, before what is negative is cut off.
// rest: the columns of sh_rest.
template <class P>
FGS_HD Vec3<P> sh_color(int count, const Vec3<P>& dc, const P* rest, const P* basis) {
  const P half(0.5);
  Vec3<P> color = {fma(basis[0], dc.x, half), fma(basis[0], dc.y, half), fma(basis[0], dc.z, half)};
  for (int k = 1; k < count; ++k, rest += 3)
    color = {fma(basis[k], rest[0], color.x), fma(basis[k], rest[1], color.y), fma(basis[k], rest[2], color.z)};
  return color;
}

template <class P>
void project_forward(const ProjectInputs<typename P::Scalar>& in, const ProjectOutputs<typename P::Scalar>& out,
                     int64_t camera_index, int64_t begin, int64_t end) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  const Pinhole<P> camera = make_pinhole<P>(in, camera_index);
  const P width(static_cast<double>(in.width)), height(static_cast<double>(in.height)), zero(0.0), huge(1e30);
  for (int64_t first = begin; first < end; first += L) {
    const int count = static_cast<int>(end - first < L ? end - first : L);
    const Columns<P> column(first, count);
    const Vec3<P> mean = column.vec3(in.means);
    const P opacity = column(in.opacities, 1, 0);
    const P z = dot(camera.rotation.row2, mean) + camera.translation.z;
    const auto in_front = (z > P(in.near)) & (z < P(in.far)) & (opacity >= P(kMinAlpha));
    const int64_t row = camera_index * in.gaussians + first;
    uint32_t seen = bits(in_front);
    T block[11][L];
    if (seen) {
      const Quat<P> quat = {column(in.quats, 4, 0), column(in.quats, 4, 1), column(in.quats, 4, 2),
                            column(in.quats, 4, 3)};
      const Projected<P> r = project(mean, quat, column.vec3(in.scales), camera);
      const P x = fma(camera.fx, r.p.x * r.inverse_z, camera.cx), y = fma(camera.fy, r.p.y * r.inverse_z, camera.cy);
      const P blended = in.antialiased ? opacity * compensation(r) : opacity;
      const Cov2<P> conic = inverse(r.cov, r.det);
      const P reach = ellipse_reach(max(blended, P(kMinAlpha)));
      const P half_width = sqrt(reach * r.cov.xx), half_height = sqrt(reach * r.cov.yy);
      Vec3<P> color = {zero, zero, zero};
      if (in.sh_count) {
        P basis[kMaxShBands], rest[kMaxShRow];
        load_rows(in.sh_rest + first * in.sh_rest_stride, in.sh_rest_stride, count, 3 * (in.sh_count - 1), rest);
        sh_basis(view_direction(mean, camera).unit, in.sh_count, basis);
        color = sh_color(in.sh_count, column.vec3(in.sh_dc, in.sh_dc_stride), rest, basis);
      }
      const P size = abs(x) + abs(y) + half_width + half_height + abs(conic.xx) + abs(conic.xy) + abs(conic.yy) +
                     abs(color.x) + abs(color.y) + abs(color.z);
      const auto visible = in_front & (r.det > zero) & (blended >= P(kMinAlpha)) & (size < huge) &
                           (x + half_width > zero) & (x - half_width < width) & (y + half_height > zero) &
                           (y - half_height < height);
      seen = bits(visible);
      x.store(block[0]), y.store(block[1]);
      conic.xx.store(block[2]), conic.xy.store(block[3]), conic.yy.store(block[4]);
      blended.store(block[5]), r.p.z.store(block[6]);
      max(color.x, zero).store(block[7]), max(color.y, zero).store(block[8]), max(color.z, zero).store(block[9]);
      max(half_width, half_height).store(block[10]);
    }
    for (int l = 0; l < count; ++l) {
      const bool visible = seen >> l & 1;
      const int64_t i = row + l;
      out.means2d[2 * i] = visible ? block[0][l] : T(0);
      out.means2d[2 * i + 1] = visible ? block[1][l] : T(0);
      for (int k = 0; k < 3; ++k) out.conics[3 * i + k] = visible ? block[2 + k][l] : T(0);
      out.opacities[i] = visible ? block[5][l] : T(0);
      out.depths[i] = visible ? block[6][l] : T(0);
      if (in.sh_count)
        for (int k = 0; k < 3; ++k) out.colors[3 * i + k] = visible ? block[7 + k][l] : T(0);
      out.radii[i] = visible ? static_cast<int32_t>(std::ceil(min(max(block[10][l], T(1)), T(1e6)))) : 0;
    }
  }
}

template <class P>
void project_backward(const ProjectInputs<typename P::Scalar>& in, const ProjectGrads<typename P::Scalar>& g,
                      int64_t begin, int64_t end) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  const P zero(0.0);
  for (int64_t first = begin; first < end; first += L) {
    const int count = static_cast<int>(end - first < L ? end - first : L);
    const Columns<P> column(first, count);
    GaussianGrad<P> sum = {{zero, zero, zero}, {zero, zero, zero, zero}, {zero, zero, zero}};
    P sum_opacity = zero;
    Vec3<P> g_dc = {zero, zero, zero};
    P rest[kMaxShRow], g_rest[kMaxShRow];
    const int rest_width = in.sh_count ? 3 * (in.sh_count - 1) : 0;
    for (P& column_sum : g_rest) column_sum = zero;
    bool rest_loaded = false;
    for (int64_t b = 0; b < in.cameras; ++b) {
      const int64_t row = b * in.gaussians + first;
      uint32_t seen = 0;
      T flag[L];
      for (int l = 0; l < L; ++l) {
        const bool visible = l < count && g.radii[row + l] > 0;
        seen |= static_cast<uint32_t>(visible) << l;
        flag[l] = visible ? T(1) : T(0);
      }
      if (!seen) continue;
      const auto visible = P::load(flag) > zero;
      const Columns<P> at(row, count);
      const Pinhole<P> camera = make_pinhole<P>(in, b);
      const Vec3<P> mean = column.vec3(in.means), scale = column.vec3(in.scales);
      const Quat<P> quat = {column(in.quats, 4, 0), column(in.quats, 4, 1), column(in.quats, 4, 2),
                            column(in.quats, 4, 3)};
      const Projected<P> r = project(mean, quat, scale, camera);
      const Cov2<P> g_conic = {at(g.conics, 3, 0), at(g.conics, 3, 1), at(g.conics, 3, 2)};
      Cov2<P> g_cov = inverse_vjp(inverse(r.cov, r.det), g_conic);
      P g_opacity = at(g.opacities, 1, 0);
      if (in.antialiased) {
        const P factor = compensation(r);
        const Cov2<P> extra = compensation_vjp(r, factor, g_opacity * column(in.opacities, 1, 0));
        g_cov = {g_cov.xx + extra.xx, g_cov.xy + extra.xy, g_cov.yy + extra.yy};
        g_opacity = g_opacity * factor;
      }
      GaussianGrad<P> share = project_vjp(quat, scale, camera, r, at(g.means2d, 2, 0), at(g.means2d, 2, 1), g_cov,
                                          at(g.depths, 1, 0));
      if (in.sh_count) {
        const ViewDirection<P> view = view_direction(mean, camera);
        P basis[kMaxShBands], g_basis[kMaxShBands];
        sh_basis(view.unit, in.sh_count, basis);
        for (int k = 0; k < in.sh_count; ++k) basis[k] = select(visible, basis[k], zero);  // may be NaN elsewhere
        const Vec3<P> value = at.vec3(g.projected_colors), raw = at.vec3(g.colors);
        const Vec3<P> g_color = {select(visible & (value.x > zero), raw.x, zero),
                                 select(visible & (value.y > zero), raw.y, zero),
                                 select(visible & (value.z > zero), raw.z, zero)};
        if (!rest_loaded)
          load_rows(in.sh_rest + first * in.sh_rest_stride, in.sh_rest_stride, count, rest_width, rest);
        rest_loaded = true;
        g_basis[0] = zero;
        for (int k = 1; k < in.sh_count; ++k) {
          const P* c = rest + 3 * (k - 1);
          g_basis[k] = fma(c[0], g_color.x, fma(c[1], g_color.y, c[2] * g_color.z));
        }
        share.mean = share.mean + normalize_vjp(view.unit, view.inverse_length,
                                                sh_basis_vjp(view.unit, in.sh_count, g_basis));
        g_dc = g_dc + basis[0] * g_color;
        for (int k = 1; k < in.sh_count; ++k) {
          P* g_row = g_rest + 3 * (k - 1);
          g_row[0] = fma(basis[k], g_color.x, g_row[0]);
          g_row[1] = fma(basis[k], g_color.y, g_row[1]);
          g_row[2] = fma(basis[k], g_color.z, g_row[2]);
        }
      }
      const auto add = [&](P& total, const P& part) { total = total + select(visible, part, zero); };
      add(sum.mean.x, share.mean.x), add(sum.mean.y, share.mean.y);
      add(sum.mean.z, share.mean.z), add(sum.scale.x, share.scale.x);
      add(sum.scale.y, share.scale.y), add(sum.scale.z, share.scale.z);
      add(sum.quat.w, share.quat.w), add(sum.quat.x, share.quat.x);
      add(sum.quat.y, share.quat.y), add(sum.quat.z, share.quat.z);
      add(sum_opacity, g_opacity);
    }
    T block[14][L];
    sum.mean.x.store(block[0]), sum.mean.y.store(block[1]), sum.mean.z.store(block[2]);
    sum.scale.x.store(block[3]), sum.scale.y.store(block[4]), sum.scale.z.store(block[5]);
    sum.quat.w.store(block[6]), sum.quat.x.store(block[7]), sum.quat.y.store(block[8]);
    sum.quat.z.store(block[9]), sum_opacity.store(block[10]);
    g_dc.x.store(block[11]), g_dc.y.store(block[12]), g_dc.z.store(block[13]);
    for (int l = 0; l < count; ++l) {
      const int64_t i = first + l;
      for (int k = 0; k < 3; ++k) g.means[3 * i + k] = block[k][l];
      for (int k = 0; k < 3; ++k) g.scales[3 * i + k] = block[3 + k][l];
      for (int k = 0; k < 4; ++k) g.quats[4 * i + k] = block[6 + k][l];
      g.raw_opacities[i] = block[10][l];
      if (!in.sh_count) continue;
      for (int c = 0; c < 3; ++c) g.sh_dc[3 * i + c] = block[11 + c][l];
    }
    store_rows(g_rest, g.sh_rest + first * rest_width, count, rest_width);
  }
}

}  // namespace FGS_ISA
}  // namespace fgs
