// Sorting, running sums and searching in lists on the device. Working memory is torch's.
#pragma once

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <bit>

#include "launch.h"

namespace fgs {

// Sorts by the lowest `bits` bits of the keys; what has equal keys keeps its order. `like` says where to work.
template <class Key, class Value>
void sort_by_key(const Tensor& like, const Key* keys, Key* sorted_keys, const Value* values, Value* sorted_values,
                 int32_t count, int bits, cudaStream_t stream) {
  if (count == 0) return;
  size_t bytes = 0;
  const auto sort = [&](void* memory) {
    check_cuda(cub::DeviceRadixSort::SortPairs(memory, bytes, keys, sorted_keys, values, sorted_values, count, 0, bits,
                                               stream),
               "sorting");
  };
  sort(nullptr);
  Tensor memory = scratch<char>(like, static_cast<int64_t>(bytes));
  sort(mutable_data<char>(memory));
}

// How many bits numbers up to `largest` have, at least one.
inline int bits_up_to(int64_t largest) {
  return std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(largest))));
}

// numbers[i] becomes the sum of all up to and with it.
template <class T>
void sum_up(const Tensor& like, T* numbers, int64_t count, cudaStream_t stream) {
  if (count == 0) return;
  size_t bytes = 0;
  const auto scan = [&](void* memory) {
    check_cuda(cub::DeviceScan::InclusiveSum(memory, bytes, numbers, numbers, count, stream), "summing up");
  };
  scan(nullptr);
  Tensor memory = scratch<char>(like, static_cast<int64_t>(bytes));
  scan(mutable_data<char>(memory));
}

// Waits for the stream and reads one value.
template <class T>
T read_back(const T* from, cudaStream_t stream) {
  T value;
  check_cuda(cudaMemcpyAsync(&value, from, sizeof value, cudaMemcpyDeviceToHost, stream), "reading a size back");
  check_cuda(cudaStreamSynchronize(stream), "waiting for the device");
  return value;
}

// The first of `count` rising numbers that is above `value`; `count` when there is none.
template <class T, class Index, class Value>
__device__ __forceinline__ Index first_above(const T* numbers, Index count, Value value) {
  Index low = 0, high = count;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (numbers[middle] > value)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// offsets[run] = how many of `count` rising keys are below `run`.
template <class Key>
__global__ void __launch_bounds__(256) find_runs_kernel(const Key* keys, int32_t count, int64_t runs,
                                                        int64_t* offsets) {
  const int64_t run = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (run <= runs) offsets[run] = run ? first_above(keys, count, static_cast<Key>(run - 1)) : 0;
}

// offsets [runs + 1]: the keys that are `run`, of `count` sorted ones, are at offsets[run] .. offsets[run + 1].
template <class Key>
void find_runs(const Key* keys, int32_t count, int64_t runs, int64_t* offsets, cudaStream_t stream) {
  launch({blocks_for(runs + 1, 256), 256, stream}, find_runs_kernel<Key>, keys, count, runs, offsets);
}

}  // namespace fgs
