// The inner loops over the sparse matrix of cells (contract: cells.h). They are bound by memory: every feature is read
// once, while the cells of neighbouring Gaussians stay in the cache.
#pragma once

#include <cstring>

#include "../simd/half.h"
#include "../simd/product.h"
#include "cells.h"

namespace fgs {
inline namespace FGS_ISA {

// Neighbours worked on together, slice after slice of channels, so that a slice of their cells stays in the first
// cache.
constexpr int64_t kGroup = 32;

// Calls body<packs>(c, lanes) for slices of the channels: of kPacks whole packs, then of one, the last partly filled.
template <class P, class Body>
FGS_HD void for_each_slice(int64_t count, const Body& body) {
  constexpr int kPacks = 8;
  int64_t c = 0;
  for (; c + kPacks * P::lanes <= count; c += kPacks * P::lanes) body.template operator()<kPacks>(c, P::lanes);
  for (; c + P::lanes <= count; c += P::lanes) body.template operator()<1>(c, P::lanes);
  if (c < count) body.template operator()<1>(c, static_cast<int>(count - c));
}

// Rows of features come from all over memory: those of the next group are asked for while this one is worked on.
template <int kPacks, bool kWrite, class P, class S>
FGS_HD void prefetch_next(const SparseCells<typename P::Scalar>& a, int64_t k, int64_t last, const S* slice,
                          int64_t C) {
  if (k + kGroup >= last) return;
  const S* row = slice + a.gaussians[k + kGroup] * C;
  constexpr int64_t kLine = 64 / sizeof(S);
  for (int64_t c = 0; c < kPacks * P::lanes; c += kLine) __builtin_prefetch(row + c, kWrite);
}

// Channels [begin, begin + count) of maps [cells, C] = A F.
template <class P, class S>
void blend_cells(const SparseCells<typename P::Scalar>& a, const S* features, typename P::Scalar* maps, int64_t cells,
                 int64_t C, int64_t begin, int64_t count) {
  using T = typename P::Scalar;
  for (int64_t r = 0; r < cells; ++r) std::memset(maps + r * C + begin, 0, static_cast<size_t>(count) * sizeof(T));
  for (int64_t group = 0; group < a.count; group += kGroup) {
    const int64_t end = group + kGroup < a.count ? group + kGroup : a.count;
    for_each_slice<P>(count, [&]<int kPacks>(int64_t c, int lanes) {
      const S* from = features + begin + c;
      T* to = maps + begin + c;
      for (int64_t k = group; k < end; ++k) {
        prefetch_next<kPacks, false, P, S>(a, k, a.count, from, C);
        P feature[kPacks];
        for (int v = 0; v < kPacks; ++v) feature[v] = load_some<P>(from + a.gaussians[k] * C + v * P::lanes, lanes);
        for (int64_t e = a.offsets[k], last = a.offsets[k + 1]; e < last; ++e) {
          T* at = to + a.rows[e] * C;
          const P w(a.values[e]);
          for (int v = 0; v < kPacks; ++v, at += P::lanes)
            store_some(fma(w, feature[v], load_some<P>(at, lanes)), at, lanes);
        }
      }
    });
  }
}

// sums[n] += rate Σ_r A[r, n] maps[r], for listed Gaussians first .. last - 1; with floor >= 0 the sum is divided by
// floor + Σ_r A[r, n].
template <class P, class S>
void accumulate_cells(const SparseCells<typename P::Scalar>& a, const typename P::Scalar* maps, S* sums,
                      typename P::Scalar rate, typename P::Scalar floor, int64_t C, int64_t first, int64_t last) {
  using T = typename P::Scalar;
  T factors[kGroup];
  for (int64_t group = first; group < last; group += kGroup) {
    const int64_t end = group + kGroup < last ? group + kGroup : last;
    for (int64_t k = group; k < end; ++k) {
      T total = floor;
      for (int64_t e = a.offsets[k]; e < a.offsets[k + 1]; ++e) total += a.values[e];
      factors[k - group] = floor < T(0) ? rate : total > T(0) ? rate / total : T(0);
    }
    for_each_slice<P>(C, [&]<int kPacks>(int64_t c, int lanes) {
      for (int64_t k = group; k < end; ++k) {
        prefetch_next<kPacks, true, P, S>(a, k, last, sums + c, C);
        P sum[kPacks];
        for (P& s : sum) s = P(0.0);
        for (int64_t e = a.offsets[k], stop = a.offsets[k + 1]; e < stop; ++e) {
          const T* from = maps + a.rows[e] * C + c;
          const P w(a.values[e]);
          for (int v = 0; v < kPacks; ++v) sum[v] = fma(w, load_some<P>(from + v * P::lanes, lanes), sum[v]);
        }
        S* to = sums + a.gaussians[k] * C + c;
        const P factor(factors[k - group]);
        for (int v = 0; v < kPacks; ++v, to += P::lanes)
          store_some(fma(factor, sum[v], load_some<P>(to, lanes)), to, lanes);
      }
    });
  }
}

// out[e] = features[n] · maps[r] for the entries of listed Gaussians first .. last - 1.
template <class P, class S>
void cell_products(const SparseCells<typename P::Scalar>& a, const S* features, const typename P::Scalar* maps,
                   typename P::Scalar* out, int64_t C, int64_t first, int64_t last) {
  for (int64_t k = first; k < last; ++k)
    for (int64_t e = a.offsets[k]; e < a.offsets[k + 1]; ++e)
      out[e] = fgs::dot<P>(features + a.gaussians[k] * C, maps + a.rows[e] * C, C);
}

}  // namespace FGS_ISA
}  // namespace fgs
