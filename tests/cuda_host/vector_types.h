// CUDA's short vectors, with its alignments: float4 is read and written in one piece on the device.
#pragma once

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define CUDA_HOST_VECTORS(T, name, size)                                                              \
  struct alignas(2 * size) name##2 { T x, y; };                                                       \
  struct name##3 { T x, y, z; };                                                                      \
  struct alignas(4 * size > 16 ? 16 : 4 * size) name##4 { T x, y, z, w; };                            \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                          \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                  \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_HOST_VECTORS(float, float, 4)
CUDA_HOST_VECTORS(double, double, 8)
CUDA_HOST_VECTORS(int, int, 4)
CUDA_HOST_VECTORS(unsigned, uint, 4)
CUDA_HOST_VECTORS(short, short, 2)
CUDA_HOST_VECTORS(unsigned short, ushort, 2)
CUDA_HOST_VECTORS(unsigned char, uchar, 1)
CUDA_HOST_VECTORS(long long, longlong, 8)
CUDA_HOST_VECTORS(unsigned long long, ulonglong, 8)
