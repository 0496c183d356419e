// Marks a function as usable on the host and, under nvcc, on the device; and names the scalar operations that the
// formulas in this folder are written with. The same names exist for SIMD packs (csrc/simd), so one formula serves
// float, double, a pack of floats and a CUDA thread.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define FGS_HD __host__ __device__ __forceinline__
#else
#define FGS_HD inline __attribute__((always_inline))
#endif

// Every translation unit that is compiled for an instruction set of its own names that set here, so that the linker
// never mixes functions of two sets.
#ifndef FGS_ISA
#define FGS_ISA portable
#endif

namespace fgs {
inline namespace FGS_ISA {

// On the device rounded once, for sure: left to itself, the compiler may fuse in one kernel and not in the next, and the
// passes that go over a pixel's list must agree on every alpha.
#if defined(__CUDA_ARCH__)
FGS_HD float fma(float a, float b, float c) { return ::__fmaf_rn(a, b, c); }
FGS_HD double fma(double a, double b, double c) { return ::__fma_rn(a, b, c); }
#else
FGS_HD float fma(float a, float b, float c) { return a * b + c; }
FGS_HD double fma(double a, double b, double c) { return a * b + c; }
#endif
FGS_HD float min(float a, float b) { return a < b ? a : b; }
FGS_HD double min(double a, double b) { return a < b ? a : b; }
FGS_HD float max(float a, float b) { return a > b ? a : b; }
FGS_HD double max(double a, double b) { return a > b ? a : b; }
FGS_HD float sqrt(float x) { return ::sqrtf(x); }
FGS_HD double sqrt(double x) { return ::sqrt(x); }
FGS_HD float abs(float x) { return ::fabsf(x); }
FGS_HD double abs(double x) { return ::fabs(x); }
FGS_HD float exp2(float x) { return ::exp2f(x); }
FGS_HD double exp2(double x) { return ::exp2(x); }
FGS_HD float log2(float x) { return ::log2f(x); }
FGS_HD double log2(double x) { return ::log2(x); }
FGS_HD float reciprocal(float x) { return 1.0f / x; }
FGS_HD double reciprocal(double x) { return 1.0 / x; }
FGS_HD float select(bool condition, float a, float b) { return condition ? a : b; }
FGS_HD double select(bool condition, double a, double b) { return condition ? a : b; }

}  // namespace FGS_ISA
}  // namespace fgs
