// Stands in for CUDA's <cuda_runtime.h> when g++ compiles the .cu files to run on the CPU: what kernels and their
// launches use of it, on the emulator's threads. Memory of the device is memory of the host.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// The sanitizers watch static variables closer than thread_local ones; but only the latter lie together, so that the
// emulator can spoil what a block must not find there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define __shared__ static
#else
#define __shared__ thread_local
#endif

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = cuda_host::kLanes;

// ---------------------------------------------------------------------------------------------- waiting for others
#define CUDA_HOST_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_HOST_PLACE) { cuda_host::wait_for_block({"__syncthreads", file, line}, false); }
inline int __syncthreads_count(int yes, CUDA_HOST_PLACE) {
  return cuda_host::wait_for_block({"__syncthreads_count", file, line}, yes != 0);
}
inline int __syncthreads_or(int yes, CUDA_HOST_PLACE) {
  return cuda_host::wait_for_block({"__syncthreads_or", file, line}, yes != 0) != 0;
}
inline int __syncthreads_and(int yes, CUDA_HOST_PLACE) {
  return cuda_host::wait_for_block({"__syncthreads_and", file, line}, yes == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CUDA_HOST_PLACE) {
  cuda_host::sync_warp({"__syncwarp", file, line}, mask);
}

namespace cuda_host {

template <class T>
struct Shuffle {
  T mine;
  int from;  // lane
  T result;
};

// What `from` deposited, for every lane.
template <class T>
CUDA_HOST_UNWATCHED T shuffle(const Place& place, unsigned mask, T mine, int from) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "not a type that CUDA shuffles");
  Shuffle<T> deposit{mine, from, mine};
  wait_for_warp(place, mask, &deposit, [](void* const* deposits) CUDA_HOST_UNWATCHED {
    for (int lane = 0; lane < kLanes; ++lane) {
      auto* to = static_cast<Shuffle<T>*>(deposits[lane]);
      to->result = static_cast<const Shuffle<T>*>(deposits[to->from])->mine;
    }
  });
  return deposit.result;
}

inline int lane() { return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kLanes; }

struct Vote {
  bool yes;
  unsigned result;  // a bit per lane
};

CUDA_HOST_UNWATCHED inline unsigned vote(const Place& place, unsigned mask, bool yes) {
  Vote deposit{yes, 0};
  wait_for_warp(place, mask, &deposit, [](void* const* deposits) CUDA_HOST_UNWATCHED {
    unsigned result = 0;
    for (int lane = 0; lane < kLanes; ++lane)
      result |= static_cast<unsigned>(static_cast<const Vote*>(deposits[lane])->yes) << lane;
    for (int lane = 0; lane < kLanes; ++lane) static_cast<Vote*>(deposits[lane])->result = result;
  });
  return deposit.result;
}

}  // namespace cuda_host

// `width` cuts the warp into groups that shuffle among themselves.
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = warpSize, CUDA_HOST_PLACE) {
  const int me = cuda_host::lane(), base = me / width * width;
  return cuda_host::shuffle({"__shfl_sync", file, line}, mask, value, base + (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, CUDA_HOST_PLACE) {
  const int me = cuda_host::lane(), from = me ^ bits;
  return cuda_host::shuffle({"__shfl_xor_sync", file, line}, mask, value, from / width <= me / width ? from : me);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, CUDA_HOST_PLACE) {
  const int me = cuda_host::lane(), from = me - static_cast<int>(by);
  return cuda_host::shuffle({"__shfl_up_sync", file, line}, mask, value, from >= me / width * width ? from : me);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, CUDA_HOST_PLACE) {
  const int me = cuda_host::lane(), from = me + static_cast<int>(by);
  return cuda_host::shuffle({"__shfl_down_sync", file, line}, mask, value, from / width == me / width ? from : me);
}
inline unsigned __ballot_sync(unsigned mask, int yes, CUDA_HOST_PLACE) {
  return cuda_host::vote({"__ballot_sync", file, line}, mask, yes != 0);
}
inline int __any_sync(unsigned mask, int yes, CUDA_HOST_PLACE) {
  return cuda_host::vote({"__any_sync", file, line}, mask, yes != 0) != 0;
}
inline int __all_sync(unsigned mask, int yes, CUDA_HOST_PLACE) {
  return cuda_host::vote({"__all_sync", file, line}, mask, yes != 0) == 0xFFFFFFFFu;
}

// ------------------------------------------------------------------------------------------------ memory, numbers
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int> ||
                std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>);
  return std::atomic_ref<T>(*at).fetch_add(value, std::memory_order_relaxed);
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T>(*at).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  const T before = std::atomic_ref<T>(*at).load(std::memory_order_relaxed);
  if (before < value) std::atomic_ref<T>(*at).store(value, std::memory_order_relaxed);
  return before;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  const T before = std::atomic_ref<T>(*at).load(std::memory_order_relaxed);
  if (value < before) std::atomic_ref<T>(*at).store(value, std::memory_order_relaxed);
  return before;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __ldg(const T* from) { return *from; }
template <class T>
T __ldcs(const T* from) { return *from; }
template <class T>
void __stcs(T* to, std::type_identity_t<T> value) { *to = value; }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __clzll(long long bits) { return bits ? __builtin_clzll(static_cast<unsigned long long>(bits)) : 64; }
inline int __mul24(int a, int b) { return a * b; }

namespace cuda_host {
template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace cuda_host

inline int __float_as_int(float x) { return cuda_host::same_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_host::same_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_host::same_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_host::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_host::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_host::same_bits<double>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

#define CUDA_HOST_MIN_MAX(T)                              \
  inline T min(T a, T b) { return a < b ? a : b; }        \
  inline T max(T a, T b) { return a > b ? a : b; }
CUDA_HOST_MIN_MAX(int)
CUDA_HOST_MIN_MAX(unsigned)
CUDA_HOST_MIN_MAX(long)
CUDA_HOST_MIN_MAX(unsigned long)
CUDA_HOST_MIN_MAX(long long)
CUDA_HOST_MIN_MAX(unsigned long long)
CUDA_HOST_MIN_MAX(float)
CUDA_HOST_MIN_MAX(double)

// ------------------------------------------------------------------------------------------------- the host's side
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaFuncAttributes {
  int ptxVersion;  // the capability that the code was made for
};
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace cuda_host {
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<Parameters...> copies(std::forward<Arguments>(arguments)...);
  return cuda_host::launch(*config, reinterpret_cast<const void*>(kernel), [&] { std::apply(kernel, copies); });
}

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaFuncGetName(const char** name, const void* kernel);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (bytes) std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
