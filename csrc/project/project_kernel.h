// The loops of project and of its gradient over packs of Gaussians (contract: project.h).
#pragma once

#include <cmath>

#include "splat.h"

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
void project_forward(const ProjectInputs<typename P::Scalar>& in, const ProjectOutputs<typename P::Scalar>& out,
                     int64_t camera_index, int64_t begin, int64_t end) {
  using T = typename P::Scalar;
  constexpr int L = P::lanes;
  const Pinhole<P> camera = make_pinhole<P>(in, camera_index);
  const P width(static_cast<double>(in.width)), height(static_cast<double>(in.height)), zero(0.0);
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
      const SplatView<P> splat = view_splat(mean, quat, column.vec3(in.scales), opacity, camera, in.antialiased);
      Vec3<P> color = {zero, zero, zero};
      if (in.sh_count) {
        P basis[kMaxShBands], rest[kMaxShRow];
        load_rows(in.sh_rest + first * in.sh_rest_stride, in.sh_rest_stride, count, 3 * (in.sh_count - 1), rest);
        sh_basis(view_direction(mean, camera).unit, in.sh_count, basis);
        color = sh_color(in.sh_count, column.vec3(in.sh_dc, in.sh_dc_stride), rest, basis);
      }
      seen = bits(in_front & is_visible(splat, size_of(color), width, height));
      splat.x.store(block[0]), splat.y.store(block[1]);
      splat.conic.xx.store(block[2]), splat.conic.xy.store(block[3]), splat.conic.yy.store(block[4]);
      splat.opacity.store(block[5]), z.store(block[6]);
      max(color.x, zero).store(block[7]), max(color.y, zero).store(block[8]), max(color.z, zero).store(block[9]);
      max(splat.half_width, splat.half_height).store(block[10]);
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
      out.radii[i] = visible ? whole_radius(block[10][l]) : 0;
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
      const SplatViewGrad<P> g_splat = {at(g.means2d, 2, 0), at(g.means2d, 2, 1),
                                        {at(g.conics, 3, 0), at(g.conics, 3, 1), at(g.conics, 3, 2)},
                                        at(g.opacities, 1, 0), at(g.depths, 1, 0)};
      CameraShare<P> share = view_splat_vjp(mean, quat, scale, column(in.opacities, 1, 0), camera, in.antialiased,
                                           g_splat);
      if (in.sh_count) {
        const ViewDirection<P> view = view_direction(mean, camera);
        P basis[kMaxShBands];
        sh_basis(view.unit, in.sh_count, basis);
        for (int k = 0; k < in.sh_count; ++k) basis[k] = select(visible, basis[k], zero);  // may be NaN elsewhere
        const Vec3<P> value = at.vec3(g.projected_colors), raw = at.vec3(g.colors);
        const Vec3<P> g_color = {select(visible & (value.x > zero), raw.x, zero),
                                 select(visible & (value.y > zero), raw.y, zero),
                                 select(visible & (value.z > zero), raw.z, zero)};
        if (!rest_loaded)
          load_rows(in.sh_rest + first * in.sh_rest_stride, in.sh_rest_stride, count, rest_width, rest);
        rest_loaded = true;
        share.gaussian.mean = share.gaussian.mean + sh_direction_vjp(view, in.sh_count, rest, g_color);
        g_dc = g_dc + basis[0] * g_color;
        add_sh_rest_vjp(in.sh_count, basis, g_color, g_rest);
      }
      const auto add = [&](P& total, const P& part) { total = total + select(visible, part, zero); };
      add(sum.mean.x, share.gaussian.mean.x), add(sum.mean.y, share.gaussian.mean.y);
      add(sum.mean.z, share.gaussian.mean.z), add(sum.scale.x, share.gaussian.scale.x);
      add(sum.scale.y, share.gaussian.scale.y), add(sum.scale.z, share.gaussian.scale.z);
      add(sum.quat.w, share.gaussian.quat.w), add(sum.quat.x, share.gaussian.quat.x);
      add(sum.quat.y, share.gaussian.quat.y), add(sum.quat.z, share.gaussian.quat.z);
      add(sum_opacity, share.opacity);
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
