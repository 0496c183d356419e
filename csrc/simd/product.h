// Products of feature channels: of matrices in register blocks, and of two rows; and rows that end within a pack.
#pragma once

#include <cstdint>

#include "../math/host_device.h"

namespace fgs {
inline namespace FGS_ISA {

// sum[m, :] += Σ_k a(k, m) row(k)[:], M x V accumulators of packs. a(k, m) stands at
// a[k * a_step + m * a_row], row(k) points at V packs.
template <class P, int M, int V, class Row>
FGS_HD void multiply_add(const typename P::Scalar* a, int64_t a_step, int64_t a_row, int count, const Row& row,
                         P (&sum)[M][V]) {
  for (int k = 0; k < count; ++k) {
    const typename P::Scalar* b = row(k);
    P value[V];
    for (int v = 0; v < V; ++v) value[v] = P::load(b + v * P::lanes);
    for (int m = 0; m < M; ++m) {
      const P weight(a[k * a_step + m * a_row]);
      for (int v = 0; v < V; ++v) sum[m][v] = fma(weight, value[v], sum[m][v]);
    }
  }
}

// The first `lanes` numbers of a row, which may be stored in another type S than they are worked with.
template <class P, class S>
FGS_HD P load_some(const S* from, int lanes) {
  if (lanes == P::lanes) return P::load(from);
  S whole[P::lanes] = {};
  for (int l = 0; l < lanes; ++l) whole[l] = from[l];
  return P::load(whole);
}

template <class P, class S>
FGS_HD void store_some(P value, S* to, int lanes) {
  if (lanes == P::lanes) return value.store(to);
  S whole[P::lanes];
  value.store(whole);
  for (int l = 0; l < lanes; ++l) to[l] = whole[l];
}

// Σ_c a[c] b[c].
template <class P, class S>
FGS_HD typename P::Scalar dot(const S* a, const typename P::Scalar* b, int64_t count) {
  P total(0.0);
  int64_t c = 0;
  for (; c + P::lanes <= count; c += P::lanes) total = fma(P::load(a + c), P::load(b + c), total);
  const int rest = static_cast<int>(count - c);
  if (rest) total = fma(load_some<P>(a + c, rest), load_some<P>(b + c, rest), total);
  return sum(total);
}

}  // namespace FGS_ISA
}  // namespace fgs
