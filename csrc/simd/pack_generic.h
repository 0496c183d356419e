// A pack of N numbers in plain C++: what runs where neither AVX2 nor AVX-512 is at hand, and all float64 work.
#pragma once

#include <cstdint>

#include "../math/host_device.h"
#include "half.h"

namespace fgs {
inline namespace FGS_ISA {

template <int N>
struct GenericMask {
  bool lane[N];
};

template <class S, int N>
struct GenericPack {
  using Scalar = S;
  using Mask = GenericMask<N>;
  static constexpr int lanes = N;
  S lane[N];

  GenericPack() = default;
  explicit FGS_HD GenericPack(double x) {
    for (int i = 0; i < N; ++i) lane[i] = static_cast<S>(x);
  }
  static FGS_HD GenericPack load(const S* p) {
    GenericPack r;
    for (int i = 0; i < N; ++i) r.lane[i] = p[i];
    return r;
  }
  static FGS_HD GenericPack gather(const S* p, const int32_t* index) {
    GenericPack r;
    for (int i = 0; i < N; ++i) r.lane[i] = p[index[i]];
    return r;
  }
  static FGS_HD GenericPack load_first(const S* p, int count) {  // the other lanes are 0
    GenericPack r;
    for (int i = 0; i < N; ++i) r.lane[i] = i < count ? p[i] : S(0);
    return r;
  }
  static FGS_HD GenericPack load(const Half* p) {
    GenericPack r;
    for (int i = 0; i < N; ++i) r.lane[i] = static_cast<S>(to_float(p[i]));
    return r;
  }
  FGS_HD void store(S* p) const {
    for (int i = 0; i < N; ++i) p[i] = lane[i];
  }
  FGS_HD void store(Half* p) const {
    for (int i = 0; i < N; ++i) p[i] = to_half(static_cast<float>(lane[i]));
  }
  FGS_HD void store_first(S* p, int count) const {
    for (int i = 0; i < N && i < count; ++i) p[i] = lane[i];
  }
};

#define FGS_LANES(expression)                                  \
  GenericPack<S, N> r;                                         \
  for (int i = 0; i < N; ++i) r.lane[i] = (expression);        \
  return r;
#define FGS_MASK_LANES(expression)                             \
  GenericMask<N> r;                                            \
  for (int i = 0; i < N; ++i) r.lane[i] = (expression);        \
  return r;
#define FGS_BINARY(name, expression)                                                             \
  template <class S, int N>                                                                      \
  FGS_HD GenericPack<S, N> name(const GenericPack<S, N>& a, const GenericPack<S, N>& b) {        \
    FGS_LANES(expression)                                                                        \
  }
#define FGS_UNARY(name, expression)                                                              \
  template <class S, int N>                                                                      \
  FGS_HD GenericPack<S, N> name(const GenericPack<S, N>& a) {                                    \
    FGS_LANES(expression)                                                                        \
  }
#define FGS_COMPARE(name)                                                                        \
  template <class S, int N>                                                                      \
  FGS_HD GenericMask<N> operator name(const GenericPack<S, N>& a, const GenericPack<S, N>& b) {  \
    FGS_MASK_LANES(a.lane[i] name b.lane[i])                                                     \
  }

FGS_BINARY(operator+, a.lane[i] + b.lane[i])
FGS_BINARY(operator-, a.lane[i] - b.lane[i])
FGS_BINARY(operator*, a.lane[i] * b.lane[i])
FGS_BINARY(operator/, a.lane[i] / b.lane[i])
FGS_BINARY(min, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i])
FGS_BINARY(max, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i])
FGS_UNARY(operator-, -a.lane[i])
FGS_UNARY(sqrt, sqrt(a.lane[i]))
FGS_UNARY(abs, abs(a.lane[i]))
FGS_UNARY(exp2, exp2(a.lane[i]))
FGS_UNARY(log2, log2(a.lane[i]))
FGS_UNARY(reciprocal, S(1) / a.lane[i])
FGS_COMPARE(<)
FGS_COMPARE(<=)
FGS_COMPARE(>)
FGS_COMPARE(>=)

template <class S, int N>
FGS_HD GenericPack<S, N> fma(const GenericPack<S, N>& a, const GenericPack<S, N>& b, const GenericPack<S, N>& c) {
  FGS_LANES(a.lane[i] * b.lane[i] + c.lane[i])
}
template <class S, int N>
FGS_HD GenericPack<S, N> select(const GenericMask<N>& m, const GenericPack<S, N>& a, const GenericPack<S, N>& b) {
  FGS_LANES(m.lane[i] ? a.lane[i] : b.lane[i])
}
template <int N>
FGS_HD GenericMask<N> operator&(const GenericMask<N>& a, const GenericMask<N>& b) {
  FGS_MASK_LANES(a.lane[i] && b.lane[i])
}
template <int N>
FGS_HD GenericMask<N> operator|(const GenericMask<N>& a, const GenericMask<N>& b) {
  FGS_MASK_LANES(a.lane[i] || b.lane[i])
}
template <int N>
FGS_HD GenericMask<N> operator!(const GenericMask<N>& a) {
  FGS_MASK_LANES(!a.lane[i])
}
template <int N>
FGS_HD uint32_t bits(const GenericMask<N>& a) {
  uint32_t r = 0;
  for (int i = 0; i < N; ++i) r |= static_cast<uint32_t>(a.lane[i]) << i;
  return r;
}
template <int N>
FGS_HD bool any(const GenericMask<N>& a) {
  return bits(a) != 0;
}
template <class S, int N>
FGS_HD S sum(const GenericPack<S, N>& a) {
  S r = 0;
  for (int i = 0; i < N; ++i) r += a.lane[i];
  return r;
}

// out[k] = sum(rows[k]) for 16 packs.
template <class S, int N>
FGS_HD void sum_rows(const GenericPack<S, N>* rows, S* out) {
  for (int k = 0; k < 16; ++k) out[k] = sum(rows[k]);
}

// Swaps rows and columns of `lanes` packs.
template <class S, int N>
FGS_HD void transpose(GenericPack<S, N>* rows) {
  for (int i = 0; i < N; ++i)
    for (int k = 0; k < i; ++k) {
      const S spare = rows[i].lane[k];
      rows[i].lane[k] = rows[k].lane[i];
      rows[k].lane[i] = spare;
    }
}

#undef FGS_LANES
#undef FGS_MASK_LANES
#undef FGS_BINARY
#undef FGS_UNARY
#undef FGS_COMPARE

}  // namespace FGS_ISA
}  // namespace fgs
