// The matrix products of the feature channels, in register blocks: out[m, :] = Σ_k a[k, m] b_k[:].
#pragma once

#include <cstdint>

#include "../math/host_device.h"

namespace fgs {
inline namespace FGS_ISA {

// M x V accumulators of packs. a(k, m) is read at a[k * a_step + m * a_row]; row(k) points at V packs of b.
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

}  // namespace FGS_ISA
}  // namespace fgs
