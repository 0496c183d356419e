// Stands in for CUB's radix sort: stable, by the bits [begin_bit, end_bit) of the keys, floats in order of their
// values (-0 before +0). The first call, without temporary storage, asks how much is needed.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace cub {

template <class T>
struct DoubleBuffer {
  T* d_buffers[2];
  int selector = 0;

  DoubleBuffer(T* current, T* other) : d_buffers{current, other} {}
  T* Current() { return d_buffers[selector]; }
  T* Alternate() { return d_buffers[selector ^ 1]; }
};

struct DeviceRadixSort {
  template <class Key, class Value, class Count>
  static cudaError_t SortPairs(void* storage, size_t& bytes, const Key* keys_in, Key* keys_out, const Value* values_in,
                               Value* values_out, Count count, int begin_bit = 0, int end_bit = sizeof(Key) * 8,
                               cudaStream_t = nullptr) {
    const size_t needed = 256 + static_cast<size_t>(count) * (sizeof(Key) + sizeof(Value));
    if (!storage) {
      bytes = needed;
      return cudaSuccess;
    }
    if (bytes < needed || begin_bit < 0 || end_bit > static_cast<int>(sizeof(Key) * 8)) return cudaErrorInvalidValue;
    std::memset(storage, 0xFF, needed);  // a sanitizer sees storage that is not there
    sort(keys_in, keys_out, values_in, values_out, static_cast<size_t>(count), begin_bit, end_bit);
    return cudaSuccess;
  }

  template <class Key, class Value, class Count>
  static cudaError_t SortPairs(void* storage, size_t& bytes, DoubleBuffer<Key>& keys, DoubleBuffer<Value>& values,
                               Count count, int begin_bit = 0, int end_bit = sizeof(Key) * 8,
                               cudaStream_t stream = nullptr) {
    const cudaError_t status = SortPairs(storage, bytes, keys.Current(), keys.Alternate(), values.Current(),
                                         values.Alternate(), count, begin_bit, end_bit, stream);
    if (storage) keys.selector ^= 1, values.selector ^= 1;
    return status;
  }

 private:
  template <class Key>
  static auto ordered(Key key) {  // an unsigned number that is ordered as the key is
    if constexpr (std::is_floating_point_v<Key>) {
      using Bits = std::conditional_t<sizeof(Key) == 4, uint32_t, uint64_t>;
      const Bits bits = cuda_host::same_bits<Bits>(key), sign = Bits{1} << (sizeof(Key) * 8 - 1);
      return static_cast<Bits>(bits & sign ? ~bits : bits | sign);
    } else {
      using Bits = std::make_unsigned_t<Key>;
      const Bits sign = std::is_signed_v<Key> ? Bits{1} << (sizeof(Key) * 8 - 1) : Bits{0};
      return static_cast<Bits>(static_cast<Bits>(key) ^ sign);
    }
  }

  template <class Key, class Value>
  static void sort(const Key* keys_in, Key* keys_out, const Value* values_in, Value* values_out, size_t count,
                   int begin_bit, int end_bit) {
    const auto part = [&](size_t i) {
      const uint64_t bits = static_cast<uint64_t>(ordered(keys_in[i])) >> begin_bit;
      return end_bit - begin_bit >= 64 ? bits : bits & ((uint64_t{1} << (end_bit - begin_bit)) - 1);
    };
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return part(a) < part(b); });
    for (size_t i = 0; i < count; ++i) {
      keys_out[i] = keys_in[order[i]];
      values_out[i] = values_in[order[i]];
    }
  }
};

}  // namespace cub
