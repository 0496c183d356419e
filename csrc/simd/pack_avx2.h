// Eight floats in one AVX2 register (with FMA). Included only by kernels_avx2.cpp.
#pragma once

#include <cstdint>
#include <immintrin.h>

#include "../math/host_device.h"
#include "half.h"

namespace fgs {
inline namespace FGS_ISA {

struct Mask8 {
  __m256 v;
};

struct Float8Pack {
  using Scalar = float;
  using Mask = Mask8;
  static constexpr int lanes = 8;
  __m256 v;

  Float8Pack() = default;
  explicit FGS_HD Float8Pack(__m256 x) : v(x) {}
  explicit FGS_HD Float8Pack(float x) : v(_mm256_set1_ps(x)) {}
  explicit FGS_HD Float8Pack(double x) : v(_mm256_set1_ps(static_cast<float>(x))) {}
  explicit FGS_HD Float8Pack(int x) : v(_mm256_set1_ps(static_cast<float>(x))) {}
  static FGS_HD Float8Pack load(const float* p) { return Float8Pack(_mm256_loadu_ps(p)); }
  static FGS_HD Float8Pack gather(const float* p, const int32_t* index) {
    return Float8Pack(_mm256_i32gather_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)), 4));
  }
  static FGS_HD Float8Pack load(const Half* p) {
    return Float8Pack(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static FGS_HD Float8Pack load_first(const float* p, int count) {  // the other lanes are 0
    return Float8Pack(_mm256_maskload_ps(p, first_lanes(count)));
  }
  FGS_HD void store(float* p) const { _mm256_storeu_ps(p, v); }
  FGS_HD void store(Half* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  FGS_HD void store_first(float* p, int count) const { _mm256_maskstore_ps(p, first_lanes(count), v); }

 private:
  static FGS_HD __m256i first_lanes(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};
using P = Float8Pack;

FGS_HD P operator+(P a, P b) { return P(_mm256_add_ps(a.v, b.v)); }
FGS_HD P operator-(P a, P b) { return P(_mm256_sub_ps(a.v, b.v)); }
FGS_HD P operator*(P a, P b) { return P(_mm256_mul_ps(a.v, b.v)); }
FGS_HD P operator/(P a, P b) { return P(_mm256_div_ps(a.v, b.v)); }
FGS_HD P operator-(P a) { return P(_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))); }
FGS_HD P min(P a, P b) { return P(_mm256_min_ps(a.v, b.v)); }
FGS_HD P max(P a, P b) { return P(_mm256_max_ps(a.v, b.v)); }
FGS_HD P sqrt(P a) { return P(_mm256_sqrt_ps(a.v)); }
FGS_HD P abs(P a) { return P(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)); }
FGS_HD P fma(P a, P b, P c) { return P(_mm256_fmadd_ps(a.v, b.v, c.v)); }
FGS_HD P select(Mask8 m, P a, P b) { return P(_mm256_blendv_ps(b.v, a.v, m.v)); }
FGS_HD P reciprocal(P a) {  // two Newton steps on a 12-bit estimate
  __m256 r = _mm256_rcp_ps(a.v);
  r = _mm256_mul_ps(r, _mm256_fnmadd_ps(a.v, r, _mm256_set1_ps(2.0f)));
  return P(_mm256_mul_ps(r, _mm256_fnmadd_ps(a.v, r, _mm256_set1_ps(2.0f))));
}
FGS_HD P exp2(P a) {  // relative error 2e-7; 0 below 2^-126
  const __m256 x = _mm256_min_ps(_mm256_max_ps(a.v, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
  const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const P f(_mm256_sub_ps(x, whole));
  P r = fma(P(1.327003e-3f), f, P(9.675488e-3f));
  r = fma(r, f, P(5.5507331e-2f));
  r = fma(r, f, P(2.4022121e-1f));
  r = fma(r, f, P(6.9314695e-1f));
  r = fma(r, f, P(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return P(_mm256_mul_ps(r.v, _mm256_castsi256_ps(exponent)));
}
FGS_HD Mask8 operator<(P a, P b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
FGS_HD Mask8 operator<=(P a, P b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
FGS_HD Mask8 operator>(P a, P b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
FGS_HD Mask8 operator>=(P a, P b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
FGS_HD Mask8 operator&(Mask8 a, Mask8 b) { return {_mm256_and_ps(a.v, b.v)}; }
FGS_HD Mask8 operator|(Mask8 a, Mask8 b) { return {_mm256_or_ps(a.v, b.v)}; }
FGS_HD Mask8 operator!(Mask8 a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
FGS_HD P log2(P a) {
  float lane[8];
  a.store(lane);
  for (float& x : lane) x = log2(x);
  return P::load(lane);
}
FGS_HD uint32_t bits(Mask8 a) { return static_cast<uint32_t>(_mm256_movemask_ps(a.v)); }
FGS_HD bool any(Mask8 a) { return _mm256_movemask_ps(a.v) != 0; }
FGS_HD float sum(P a) {
  __m128 r = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  r = _mm_add_ps(r, _mm_movehl_ps(r, r));
  return _mm_cvtss_f32(_mm_add_ss(r, _mm_shuffle_ps(r, r, 1)));
}

// Swaps rows and columns of 8 packs.
FGS_HD void transpose(P* rows) {
  __m256 a[8], b[8];
  for (int k = 0; k < 4; ++k) {
    a[2 * k] = _mm256_unpacklo_ps(rows[2 * k].v, rows[2 * k + 1].v);
    a[2 * k + 1] = _mm256_unpackhi_ps(rows[2 * k].v, rows[2 * k + 1].v);
  }
  for (int k = 0; k < 2; ++k) {  // b[4 k + c]: columns c and c + 4 of rows 4 k .. 4 k + 3 in the two halves
    b[4 * k] = _mm256_shuffle_ps(a[4 * k], a[4 * k + 2], 0x44);
    b[4 * k + 1] = _mm256_shuffle_ps(a[4 * k], a[4 * k + 2], 0xEE);
    b[4 * k + 2] = _mm256_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0x44);
    b[4 * k + 3] = _mm256_shuffle_ps(a[4 * k + 1], a[4 * k + 3], 0xEE);
  }
  for (int c = 0; c < 4; ++c) {
    rows[c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    rows[4 + c].v = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}

// out[k] = sum(rows[k]) for 16 packs: three rounds of pairwise transposing adds on each half.
FGS_HD void sum_rows(const P* rows, float* out) {
  for (int half = 0; half < 2; ++half) {
    const P* r = rows + 8 * half;
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(r[0].v, r[1].v), _mm256_hadd_ps(r[2].v, r[3].v));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(r[4].v, r[5].v), _mm256_hadd_ps(r[6].v, r[7].v));
    _mm256_storeu_ps(out + 8 * half,
                     _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
  }
}

}  // namespace FGS_ISA
}  // namespace fgs
