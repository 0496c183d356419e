// Products of feature channels: of matrices in register blocks, and of two rows.
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

// Σ_c a[c] b[c].
template <class P>
FGS_HD typename P::Scalar dot(const typename P::Scalar* a, const typename P::Scalar* b, int64_t count) {
  P total(0.0);
  int64_t c = 0;
  for (; c + P::lanes <= count; c += P::lanes) total = fma(P::load(a + c), P::load(b + c), total);
  typename P::Scalar rest = sum(total);
  for (; c < count; ++c) rest += a[c] * b[c];
  return rest;
}

}  // namespace FGS_ISA
}  // namespace fgs
