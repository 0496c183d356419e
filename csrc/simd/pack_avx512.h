// Sixteen floats in one AVX-512 register. Included only by kernels_avx512.cpp.
#pragma once

#include <cstdint>
#include <immintrin.h>

#include "../math/host_device.h"
#include "half.h"

namespace fgs {
inline namespace FGS_ISA {

struct Mask16 {
  __mmask16 v;
};

struct Float16Pack {
  using Scalar = float;
  using Mask = Mask16;
  static constexpr int lanes = 16;
  __m512 v;

  Float16Pack() = default;
  explicit FGS_HD Float16Pack(__m512 x) : v(x) {}
  explicit FGS_HD Float16Pack(float x) : v(_mm512_set1_ps(x)) {}
  explicit FGS_HD Float16Pack(double x) : v(_mm512_set1_ps(static_cast<float>(x))) {}
  explicit FGS_HD Float16Pack(int x) : v(_mm512_set1_ps(static_cast<float>(x))) {}
  static FGS_HD Float16Pack load(const float* p) { return Float16Pack(_mm512_loadu_ps(p)); }
  static FGS_HD Float16Pack gather(const float* p, const int32_t* index) {
    return Float16Pack(_mm512_i32gather_ps(_mm512_loadu_si512(index), p, 4));
  }
  static FGS_HD Float16Pack load(const Half* p) {
    return Float16Pack(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static FGS_HD Float16Pack load_first(const float* p, int count) {  // the other lanes are 0
    return Float16Pack(_mm512_maskz_loadu_ps(first_lanes(count), p));
  }
  FGS_HD void store(float* p) const { _mm512_storeu_ps(p, v); }
  FGS_HD void store(Half* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  FGS_HD void store_first(float* p, int count) const { _mm512_mask_storeu_ps(p, first_lanes(count), v); }

 private:
  static FGS_HD __mmask16 first_lanes(int count) {
    return static_cast<__mmask16>(count >= 16 ? 0xFFFFu : (1u << count) - 1);
  }
};
using P = Float16Pack;

FGS_HD P operator+(P a, P b) { return P(_mm512_add_ps(a.v, b.v)); }
FGS_HD P operator-(P a, P b) { return P(_mm512_sub_ps(a.v, b.v)); }
FGS_HD P operator*(P a, P b) { return P(_mm512_mul_ps(a.v, b.v)); }
FGS_HD P operator/(P a, P b) { return P(_mm512_div_ps(a.v, b.v)); }
FGS_HD P operator-(P a) { return P(_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))); }
FGS_HD P min(P a, P b) { return P(_mm512_min_ps(a.v, b.v)); }
FGS_HD P max(P a, P b) { return P(_mm512_max_ps(a.v, b.v)); }
FGS_HD P sqrt(P a) { return P(_mm512_sqrt_ps(a.v)); }
FGS_HD P abs(P a) { return P(_mm512_abs_ps(a.v)); }
FGS_HD P fma(P a, P b, P c) { return P(_mm512_fmadd_ps(a.v, b.v, c.v)); }
FGS_HD P select(Mask16 m, P a, P b) { return P(_mm512_mask_blend_ps(m.v, b.v, a.v)); }
FGS_HD P reciprocal(P a) {  // one Newton step on a 14-bit estimate
  const __m512 r = _mm512_rcp14_ps(a.v);
  return P(_mm512_mul_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(2.0f))));
}
FGS_HD P exp2_polynomial(P f) {  // 2^f on [-0.5, 0.5], relative error 2e-7
  P r = fma(P(1.327003e-3f), f, P(9.675488e-3f));
  r = fma(r, f, P(5.5507331e-2f));
  r = fma(r, f, P(2.4022121e-1f));
  r = fma(r, f, P(6.9314695e-1f));
  return fma(r, f, P(1.0f));
}
FGS_HD P exp2(P a) {
  const __m512 whole = _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return P(_mm512_scalef_ps(exp2_polynomial(P(_mm512_sub_ps(a.v, whole))).v, whole));
}
FGS_HD Mask16 operator<(P a, P b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
FGS_HD Mask16 operator<=(P a, P b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
FGS_HD Mask16 operator>(P a, P b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
FGS_HD Mask16 operator>=(P a, P b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
FGS_HD Mask16 operator&(Mask16 a, Mask16 b) { return {static_cast<__mmask16>(a.v & b.v)}; }
FGS_HD Mask16 operator|(Mask16 a, Mask16 b) { return {static_cast<__mmask16>(a.v | b.v)}; }
FGS_HD Mask16 operator!(Mask16 a) { return {static_cast<__mmask16>(~a.v)}; }
FGS_HD P log2(P a) {
  float lane[16];
  a.store(lane);
  for (float& x : lane) x = log2(x);
  return P::load(lane);
}
FGS_HD uint32_t bits(Mask16 a) { return a.v; }
FGS_HD bool any(Mask16 a) { return a.v != 0; }
FGS_HD float sum(P a) { return _mm512_reduce_add_ps(a.v); }

// Swaps rows and columns of 16 packs.
FGS_HD void transpose(P* rows) {
  __m512 a[16], b[16];
  for (int k = 0; k < 8; ++k) {
    a[2 * k] = _mm512_unpacklo_ps(rows[2 * k].v, rows[2 * k + 1].v);
    a[2 * k + 1] = _mm512_unpackhi_ps(rows[2 * k].v, rows[2 * k + 1].v);
  }
  for (int k = 0; k < 4; ++k) {  // b[4 k + c]: column c + 4 q of rows 4 k .. 4 k + 3 in quarter q
    const __m512d low0 = _mm512_castps_pd(a[4 * k]), high0 = _mm512_castps_pd(a[4 * k + 1]);
    const __m512d low1 = _mm512_castps_pd(a[4 * k + 2]), high1 = _mm512_castps_pd(a[4 * k + 3]);
    b[4 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low0, low1));
    b[4 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low0, low1));
    b[4 * k + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high0, high1));
    b[4 * k + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high0, high1));
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 even0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), odd0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xDD);
    const __m512 even1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xDD);
    rows[c].v = _mm512_shuffle_f32x4(even0, even1, 0x88);
    rows[8 + c].v = _mm512_shuffle_f32x4(even0, even1, 0xDD);
    rows[4 + c].v = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    rows[12 + c].v = _mm512_shuffle_f32x4(odd0, odd1, 0xDD);
  }
}

// out[k] = sum(rows[k]) for 16 packs: four rounds of pairwise transposing adds.
FGS_HD void sum_rows(const P* rows, float* out) {
  __m512 a[8], b[4];
  for (int k = 0; k < 8; ++k) {  // halves of rows k and k + 8 side by side
    const __m512 low = rows[k].v, high = rows[k + 8].v;
    a[k] = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x44), _mm512_shuffle_f32x4(low, high, 0xEE));
  }
  for (int k = 0; k < 4; ++k)  // quarters of rows k, k + 4, k + 8, k + 12
    b[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a[k], a[k + 4], 0x88), _mm512_shuffle_f32x4(a[k], a[k + 4], 0xDD));
  const __m512 c0 = _mm512_add_ps(_mm512_unpacklo_ps(b[0], b[2]), _mm512_unpackhi_ps(b[0], b[2]));
  const __m512 c1 = _mm512_add_ps(_mm512_unpacklo_ps(b[1], b[3]), _mm512_unpackhi_ps(b[1], b[3]));
  const __m512 d = _mm512_add_ps(_mm512_unpacklo_ps(c0, c1), _mm512_unpackhi_ps(c0, c1));
  // The 128-bit quarter q of d holds rows {0, 1, 2, 3} + 4 s(q), where s lists the order the rounds above leave.
  _mm512_storeu_ps(out, _mm512_shuffle_f32x4(d, d, 0xD8));
}

}  // namespace FGS_ISA
}  // namespace fgs
