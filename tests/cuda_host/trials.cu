// Kernels that show what the emulator does, right and wrong ones; called by test_cuda_host_emulator.py.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <mma.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cuda/block.h"
#include "../../csrc/cuda/launch.h"

using namespace fgs;
namespace wmma = nvcuda::wmma;

namespace {

std::string message;

template <class Work>
const char* message_of(const Work& work) {
  try {
    work();
    message.clear();
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

}  // namespace

// Exports trial_<name>(in, out, n) for a kernel of n blocks of 64 threads; it returns the error, "" for none.
#define TRIAL(name)                                                                                               \
  static __global__ void name(const float* in, float* out, int n);                                                \
  extern "C" __attribute__((visibility("default"))) const char* trial_##name(const float* in, float* out, int n) { \
    return message_of([&] { launch({static_cast<unsigned>(n), 64, nullptr}, name, in, out, n); });                \
  }                                                                                                               \
  static __global__ void name([[maybe_unused]] const float* in, [[maybe_unused]] float* out, [[maybe_unused]] int n)

TRIAL(reverse) {
  __shared__ float values[64];
  values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

TRIAL(reverse_without_barrier) {
  __shared__ float values[64];
  values[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = values[63 - threadIdx.x];
}

TRIAL(read_what_nobody_wrote) {
  __shared__ float values[64];
  if (threadIdx.x != 5) values[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

TRIAL(barrier_for_some) {
  if (threadIdx.x < 40)
    __syncthreads();
  else
    __syncthreads_or(1);
}

TRIAL(end_before_barrier) {  // allowed: the others do not wait for threads that have ended
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = static_cast<float>(__syncthreads_count(threadIdx.x % 2));
}

TRIAL(end_before_shuffle) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_xor_sync(kAllLanes, in[threadIdx.x], 1);
}

TRIAL(two_shuffles) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16)
    value = __shfl_sync(kAllLanes, value, 0);
  else
    value = __shfl_sync(kAllLanes, value, 1);
  out[threadIdx.x] = value;
}

TRIAL(shuffle_against_barrier) {
  if (threadIdx.x % 32 < 16)
    __syncwarp();
  else
    __syncthreads();
}

TRIAL(half_a_mask) { out[threadIdx.x] = __shfl_sync(0xFFFFu, in[threadIdx.x], 0); }

TRIAL(shuffles) {  // 64 numbers each
  const float value = in[threadIdx.x];
  const int lane = lane_of_warp();
  float* to = out + threadIdx.x;
  to[0] = __shfl_sync(kAllLanes, value, (lane + 3) % 32);
  to[64] = __shfl_sync(kAllLanes, value, 1, 8);
  to[128] = __shfl_xor_sync(kAllLanes, value, 5);
  to[192] = __shfl_up_sync(kAllLanes, value, 3);
  to[256] = __shfl_down_sync(kAllLanes, value, 3, 16);
}

TRIAL(votes) {
  const bool yes = in[threadIdx.x] > 0.5f;
  float* to = out + threadIdx.x;
  to[0] = static_cast<float>(__popc(__ballot_sync(kAllLanes, yes)));
  to[64] = static_cast<float>(__any_sync(kAllLanes, yes));
  to[128] = static_cast<float>(__all_sync(kAllLanes, yes));
  to[192] = static_cast<float>(__syncthreads_count(yes));
  to[256] = static_cast<float>(__syncthreads_or(yes) + 2 * __syncthreads_and(yes));
}

TRIAL(sums) {
  __shared__ float parts[2];
  __shared__ int places[2];
  float* to = out + threadIdx.x;
  to[0] = warp_sum(in[threadIdx.x]);
  to[64] = block_sum<64>(in[threadIdx.x], parts);
  const Scan<int> scan = block_scan<64>(static_cast<int>(threadIdx.x % 5), places);
  to[128] = static_cast<float>(scan.before), to[192] = static_cast<float>(scan.total);
}

TRIAL(atomics) {
  atomicAdd(out, 1.0f);
  atomicAdd(reinterpret_cast<int*>(out) + 1, 2);
  atomicMax(reinterpret_cast<int*>(out) + 2, static_cast<int>(threadIdx.x));
}

TRIAL(copies) {  // two batches; what is read before it has come, then what has come
  __shared__ __align__(16) float values[2][64];
  const int t = static_cast<int>(threadIdx.x);
  if (t % 2 == 0) __pipeline_memcpy_async(&values[0][t], in + t, 8);
  __pipeline_commit();
  if (t % 4 == 0) __pipeline_memcpy_async(&values[1][t], in + t, 16);
  __pipeline_commit();
  out[t] = t % 2 == 0 ? values[0][t] : NAN;
  __pipeline_wait_prior(1);
  __syncthreads();
  out[64 + t] = values[0][63 - t];
  out[128 + t] = t % 4 == 0 ? values[1][t] : NAN;
  __pipeline_wait_prior(0);
  __syncthreads();
  out[192 + t] = values[1][63 - t];
}

TRIAL(copy_of_12_bytes) {
  __shared__ __align__(16) float values[64];
  if (threadIdx.x == 5) __pipeline_memcpy_async(values, in, 12);
}

TRIAL(misplaced_copy) {
  __shared__ __align__(16) float values[64];
  if (threadIdx.x == 5) __pipeline_memcpy_async(values + 2, in, 16);
}

TRIAL(copies_to_one_place) {
  __shared__ float values[64];
  for (int k = 0; k < n + 1; ++k) {
    __pipeline_memcpy_async(values + threadIdx.x, in + threadIdx.x, 4);
    __pipeline_commit();
  }
  __pipeline_wait_prior(0);
}

TRIAL(end_before_copy) {
  __shared__ float values[64];
  __pipeline_memcpy_async(values + threadIdx.x, in + threadIdx.x, 4);
  if (threadIdx.x != 5) __pipeline_commit();
  __pipeline_wait_prior(0);
}

TRIAL(outside_shared_memory) {
  __shared__ float values[64];
  float* volatile shifted = values + n;
  shifted[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[0];
}

static __global__ void fill_dynamic(float* out, int count) {
  float* values = dynamic_shared<float>();
  for (int i = threadIdx.x; i < count; i += 64) values[i] = static_cast<float>(i);
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += 64) out[i] = values[count - 1 - i];
}

extern "C" __attribute__((visibility("default"))) const char* trial_dynamic(float* out, int count) {
  return message_of([&] {
    launch({1, 64, nullptr, count * sizeof(float)}, fill_dynamic, out, count);
  });
}

// The error that the next to ask the runtime would be told of.
extern "C" __attribute__((visibility("default"))) int trial_last_error() { return cudaGetLastError(); }

// c = a b, a [16, 8], b [8, 16]; `by_column`: b is stored as its transpose.
template <class Layout>
static __global__ void multiply(const float* a, const float* b, float* c, int misplaced) {
  using wmma::precision::tf32;
  constexpr int K = 8;
  __shared__ __align__(32) float left[16 * K + 8], right[K * 16 + 8];
  for (int i = threadIdx.x; i < 16 * K; i += 32) left[i] = a[i], right[i] = b[i];
  __syncwarp();
  wmma::fragment<wmma::matrix_a, 16, 16, K, tf32, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, K, tf32, Layout> fb;
  wmma::fragment<wmma::accumulator, 16, 16, K, float> fc;
  wmma::load_matrix_sync(fa, left + misplaced, K);
  wmma::load_matrix_sync(fb, right, std::is_same_v<Layout, wmma::row_major> ? 16 : K);
  wmma::fill_fragment(fc, 1.0f);
  wmma::mma_sync(fc, fa, fb, fc);
  for (int i = 0; i < fc.num_elements; ++i) fc.x[i] -= 1.0f;
  wmma::store_matrix_sync(c, fc, 16, wmma::mem_row_major);
}

extern "C" __attribute__((visibility("default"))) const char* trial_multiply(int by_column, const float* a,
                                                                             const float* b, float* c, int misplaced) {
  return message_of([&] {
    launch({1, 32, nullptr}, by_column ? multiply<wmma::col_major> : multiply<wmma::row_major>, a, b, c, misplaced);
  });
}

template <class Key>
static void sort_keys(const Key* keys, Key* sorted, const int* values, int* sorted_values, int count, int begin, int end) {
  size_t bytes = 0;
  check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted, values, sorted_values, count, begin, end),
             "asking");
  std::vector<char> storage(bytes);
  check_cuda(cub::DeviceRadixSort::SortPairs(storage.data(), bytes, keys, sorted, values, sorted_values, count, begin,
                                             end),
             "sorting");
}

extern "C" __attribute__((visibility("default"))) void trial_sort_float(const float* keys, float* sorted,
                                                                        const int* values, int* sorted_values,
                                                                        int count) {
  sort_keys(keys, sorted, values, sorted_values, count, 0, 32);
}
extern "C" __attribute__((visibility("default"))) void trial_sort_bits(const int* keys, int* sorted, const int* values,
                                                                       int* sorted_values, int count, int begin,
                                                                       int end) {
  sort_keys(reinterpret_cast<const unsigned*>(keys), reinterpret_cast<unsigned*>(sorted), values, sorted_values, count,
            begin, end);
}
extern "C" __attribute__((visibility("default"))) void trial_scan(const int* numbers, int64_t* before, int64_t* upto,
                                                                  int count) {
  size_t bytes = 0;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, numbers, before, count);
  std::vector<char> storage(bytes);
  cub::DeviceScan::ExclusiveSum(storage.data(), bytes, numbers, before, count);
  cub::DeviceScan::InclusiveSum(storage.data(), bytes, numbers, upto, count);
}
