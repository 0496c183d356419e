// The inner loops over the matrix of cells (contract: cells.h). They are bound by memory: every feature is read once,
// while the cells of neighbouring Gaussians stay in the cache.
#pragma once

#include <cstring>

#include "../simd/half.h"
#include "../simd/product.h"
#include "../simd/scratch.h"
#include "cells.h"

namespace fgs {
inline namespace FGS_ISA {

// Neighbours worked on together, slice after slice of channels, so that a slice of their cells stays in the first
// cache.
constexpr int64_t kGroup = 32;

// The entries of a group: the cells in which its Gaussians have weight, one Gaussian after the other. Gaussians without
// are left out.
template <class T>
struct Group {
  int64_t count = 0;
  int32_t gaussians[kGroup];
  int64_t offsets[kGroup + 1] = {};  // the entries of the k-th are offsets[k] .. offsets[k + 1]
  int32_t* rows = nullptr;
  T* values = nullptr;
  int64_t room = 0;

  // Makes room for `wanted` entries, of which there are `count` so far.
  FGS_HD void reserve(int64_t wanted, int64_t count, Scratch& scratch) {
    if (wanted <= room) return;
    room = wanted > 2 * room ? wanted : 2 * room;
    int32_t* const old_rows = rows;
    T* const old_values = values;
    rows = scratch.take<int32_t>(room), values = scratch.take<T>(room);
    if (count == 0) return;
    std::memcpy(rows, old_rows, static_cast<size_t>(count) * sizeof(int32_t));
    std::memcpy(values, old_values, static_cast<size_t>(count) * sizeof(T));
  }
};

// Lists the next Gaussians from `n` on that have weight in some cell; returns the one after them.
template <int R, class T>
FGS_HD int64_t list_group(const SlotWeights<T>& a, const TileCells* tiles, int64_t n, int64_t last, Scratch& scratch,
                          Group<T>& to) {
  int32_t step[R];  // from the first cell of a tile to each
  for (int32_t c = 0; c < R; ++c) step[c] = a.grid.step(c);
  int64_t e = 0;
  for (to.count = 0; n < last && to.count < kGroup; ++n) {
    const int64_t first = e;
    for (int64_t i = n; i < a.grid.views * a.count; i += a.count) {
      const int64_t begin = a.offsets[i], end = a.offsets[i + 1];
      to.reserve(e + (end - begin) * R, e, scratch);
      for (int64_t slot = begin; slot < end; ++slot) {
        const TileCells cells = tiles[a.slot_tiles[slot]];
        for (int c = 0; c < R; ++c) {  // written first, kept if there is weight: faster than a branch
          const T weight = a.weights[slot * R + c];
          to.rows[e] = cells.first + step[c];
          to.values[e] = weight;
          e += static_cast<int>(weight != T(0)) & static_cast<int>(cells.inside >> c);
        }
      }
    }
    if (e > first) to.gaussians[to.count++] = static_cast<int32_t>(n), to.offsets[to.count] = e;
  }
  return n;
}

// Calls work(group, the one after it) for Gaussians first .. last - 1.
template <class T, class Work>
FGS_HD void for_each_group(const SlotWeights<T>& a, const TileCells* tiles, int64_t first, int64_t last,
                           const Work& work) {
  Scratch scratch;
  Group<T> groups[2];
  const auto list = [&](int64_t n, Group<T>& to) {
    if (a.grid.per_tile() == 1) return list_group<1>(a, tiles, n, last, scratch, to);
    if (a.grid.per_tile() == 4) return list_group<4>(a, tiles, n, last, scratch, to);
    return list_group<16>(a, tiles, n, last, scratch, to);
  };
  int64_t n = list(first, groups[0]);
  for (int now = 0; groups[now].count; now ^= 1) {
    n = list(n, groups[now ^ 1]);
    work(groups[now], groups[now ^ 1]);
  }
}

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
FGS_HD void prefetch(const Group<typename P::Scalar>& next, int64_t k, const S* slice, int64_t C) {
  if (k >= next.count) return;
  const S* row = slice + next.gaussians[k] * C;
  constexpr int64_t kLine = 64 / sizeof(S);
  for (int64_t c = 0; c < kPacks * P::lanes; c += kLine) __builtin_prefetch(row + c, kWrite);
}

// Channels [begin, begin + count) of maps [cells, C] = A F.
template <class P, class S>
void blend_cells(const SlotWeights<typename P::Scalar>& a, const TileCells* tiles, const S* features,
                 typename P::Scalar* maps, int64_t C, int64_t begin, int64_t count) {
  using T = typename P::Scalar;
  for (int64_t r = 0; r < a.grid.cells(); ++r)
    std::memset(maps + r * C + begin, 0, static_cast<size_t>(count) * sizeof(T));
  for_each_group(a, tiles, 0, a.count, [&](const Group<T>& group, const Group<T>& next) {
    for_each_slice<P>(count, [&]<int kPacks>(int64_t c, int lanes) {
      const S* from = features + begin + c;
      T* to = maps + begin + c;
      for (int64_t k = 0; k < group.count; ++k) {
        prefetch<kPacks, false, P>(next, k, from, C);
        P feature[kPacks];
        for (int v = 0; v < kPacks; ++v) feature[v] = load_some<P>(from + group.gaussians[k] * C + v * P::lanes, lanes);
        for (int64_t e = group.offsets[k], last = group.offsets[k + 1]; e < last; ++e) {
          T* at = to + group.rows[e] * C;
          const P w(group.values[e]);
          for (int v = 0; v < kPacks; ++v, at += P::lanes)
            store_some(fma(w, feature[v], load_some<P>(at, lanes)), at, lanes);
        }
      }
    });
  });
}

// sums[n] += rate Σ_r A[r, n] maps[r], for Gaussians first .. last - 1; with floor >= 0 the sum is divided by
// floor + Σ_r A[r, n].
template <class P, class S>
void accumulate_cells(const SlotWeights<typename P::Scalar>& a, const TileCells* tiles, const typename P::Scalar* maps,
                      S* sums, typename P::Scalar rate, typename P::Scalar floor, int64_t C, int64_t first,
                      int64_t last) {
  using T = typename P::Scalar;
  for_each_group(a, tiles, first, last, [&](const Group<T>& group, const Group<T>& next) {
    T factors[kGroup];
    for (int64_t k = 0; k < group.count; ++k) {
      T total = floor;
      for (int64_t e = group.offsets[k]; e < group.offsets[k + 1]; ++e) total += group.values[e];
      factors[k] = floor < T(0) ? rate : total > T(0) ? rate / total : T(0);
    }
    for_each_slice<P>(C, [&]<int kPacks>(int64_t c, int lanes) {
      for (int64_t k = 0; k < group.count; ++k) {
        prefetch<kPacks, true, P>(next, k, sums + c, C);
        P sum[kPacks];
        for (P& s : sum) s = P(0.0);
        for (int64_t e = group.offsets[k], stop = group.offsets[k + 1]; e < stop; ++e) {
          const T* from = maps + group.rows[e] * C + c;
          const P w(group.values[e]);
          for (int v = 0; v < kPacks; ++v) sum[v] = fma(w, load_some<P>(from + v * P::lanes, lanes), sum[v]);
        }
        S* to = sums + group.gaussians[k] * C + c;
        const P factor(factors[k]);
        for (int v = 0; v < kPacks; ++v, to += P::lanes)
          store_some(fma(factor, sum[v], load_some<P>(to, lanes)), to, lanes);
      }
    });
  });
}

// out[slot, c] = features[n] · maps[r] where Gaussian n has weight in the cell r, else 0; n = first .. last - 1.
template <class P, class S>
void cell_products(const SlotWeights<typename P::Scalar>& a, const TileCells* tiles, const S* features,
                   const typename P::Scalar* maps, typename P::Scalar* out, int64_t C, int64_t first, int64_t last) {
  using T = typename P::Scalar;
  const int32_t R = a.grid.per_tile();
  for (int64_t n = first; n < last; ++n)
    for (int64_t i = n; i < a.grid.views * a.count; i += a.count)
      for (int64_t slot = a.offsets[i]; slot < a.offsets[i + 1]; ++slot) {
        const TileCells cells = tiles[a.slot_tiles[slot]];
        for (int32_t c = 0; c < R; ++c) {
          const bool is_entry = a.weights[slot * R + c] != T(0) && (cells.inside >> c & 1u);
          out[slot * R + c] =
              is_entry ? fgs::dot<P>(features + n * C, maps + (cells.first + a.grid.step(c)) * C, C) : T(0);
        }
      }
}

}  // namespace FGS_ISA
}  // namespace fgs
