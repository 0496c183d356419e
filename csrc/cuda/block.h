// What the threads of a warp or of a block do together. All threads of the warp or block take part; every result is
// the same from run to run.
#pragma once

#include <cuda_runtime.h>

namespace fgs {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
__device__ __forceinline__ int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarp; }

// The shared memory asked for at launch, as an array of T; it begins at whole 32 bytes, as matrix products want.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(32) int4 dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
#else
  return static_cast<T*>(cuda_host::dynamic_shared_memory());
#endif
}

// Σ over the warp, in every lane: pairs of lanes, pairs of pairs, ...
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Σ over the lanes up to and with this one.
template <class T>
__device__ __forceinline__ T warp_inclusive_sum(T value) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, step);
    if (lane_of_warp() >= step) value += before;
  }
  return value;
}

// Σ over a block of kThreads, in every thread. `parts` is shared memory, free again after the next barrier.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T value, T (&parts)[kThreads / kWarp]) {
  static_assert(kThreads % kWarp == 0);
  const T mine = warp_sum(value);
  if (lane_of_warp() == 0) parts[warp_of_block()] = mine;
  __syncthreads();
  T total = parts[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarp; ++warp) total += parts[warp];
  return total;
}

template <class T>
struct Scan {
  T before;  // Σ over the threads before this one
  T total;   // Σ over all
};

// The running sum of integers over a block of kThreads. `parts` is shared memory, free again after the next barrier.
template <int kThreads, class T>
__device__ __forceinline__ Scan<T> block_scan(T value, T (&parts)[kThreads / kWarp]) {
  static_assert(kThreads % kWarp == 0);
  const T upto = warp_inclusive_sum(value);
  if (lane_of_warp() == kWarp - 1) parts[warp_of_block()] = upto;
  __syncthreads();
  Scan<T> scan{upto - value, T(0)};
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) {
    if (warp < warp_of_block()) scan.before += parts[warp];
    scan.total += parts[warp];
  }
  return scan;
}

}  // namespace fgs
