// The matrix products of the feature channels, in register blocks: out[m, :] = Σ_k a[k, m] b_k[:].
#pragma once

#include <cstdint>
#include <type_traits>

#include "../math/host_device.h"

namespace fgs {
inline namespace FGS_ISA {

constexpr int64_t kChannelSlice = 64;  // channels of a tile's splats held side by side

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

// out(r)[c] = Σ_k a[k * R + r] rows(k)[c] for r < R and all channels c: few rows, many channels, the rows of b read
// where they lie. Rows whose out(r) is null are left out.
template <class P, int R, class Rows, class Out>
void multiply_rows(const typename P::Scalar* a, int count, const Rows& rows, int64_t channels, const Out& out) {
  using T = typename P::Scalar;
  // As many accumulators as the registers hold, so that each row of b passes through the caches once or twice.
  constexpr int kRegisters = P::lanes == 16 ? 24 : 8;
  constexpr int M = R < kRegisters ? R : kRegisters;
  constexpr int V = kRegisters / M;
  int64_t c = 0;
  const auto columns = [&]<int W>(std::integral_constant<int, W>) {
    for (int r = 0; r < R; r += M) {
      P sum[M][W];
      for (auto& line : sum)
        for (auto& s : line) s = P(0.0);
      const auto row = [&](int k) {
        if (k + 1 < count)
          for (int v = 0; v < W; ++v) __builtin_prefetch(rows(k + 1) + c + v * P::lanes);
        return rows(k) + c;
      };
      multiply_add<P, M, W>(a + r, R, 1, count, row, sum);
      for (int m = 0; m < M; ++m)
        for (int v = 0; v < W; ++v)
          if (T* to = out(r + m)) sum[m][v].store(to + c + v * P::lanes);
    }
    c += W * P::lanes;
  };
  while (c + V * P::lanes <= channels) columns(std::integral_constant<int, V>{});
  if constexpr (V >= 6)
    while (c + V / 3 * P::lanes <= channels) columns(std::integral_constant<int, V / 3>{});
  while (c + P::lanes <= channels) columns(std::integral_constant<int, 1>{});
  for (; c < channels; ++c) {
    T sum[R] = {};
    for (int k = 0; k < count; ++k) {
      const T value = rows(k)[c];
      for (int r = 0; r < R; ++r) sum[r] += a[k * R + r] * value;
    }
    for (int r = 0; r < R; ++r)
      if (T* to = out(r)) to[c] = sum[r];
  }
}

}  // namespace FGS_ISA
}  // namespace fgs
