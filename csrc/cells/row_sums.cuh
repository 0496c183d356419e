// Weighted sums of rows of channels, which is what blending, gathering and adding up are. A warp sums up a list in the
// list's order, its lanes side by side along the channels; few channels leave groups of lanes that take entries in turn.
// Lists are of any length: those longer than a segment are summed segment by segment first, by a warp each.
#pragma once

#include <cuda_fp16.h>

#include "../cuda/block.h"
#include "../cuda/lists.h"

namespace fgs {

constexpr int kSumThreads = 256, kSumWarps = kSumThreads / kWarp;
constexpr int64_t kSegment = 256;  // entries

// V numbers that are read and written in one piece.
template <class S, int V>
struct alignas(sizeof(S) * V) Vector {
  S at[V];
};

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ double widened(double x) { return x; }
__device__ __forceinline__ float widened(__half x) { return __half2float(x); }

__device__ __forceinline__ void store(float x, float& to) { to = x; }
__device__ __forceinline__ void store(double x, double& to) { to = x; }
__device__ __forceinline__ void store(float x, __half& to) { to = __float2half_rn(x); }

template <class T>
struct Entry {
  int32_t row;
  T weight;
};

// Entries as the matrix lists them.
template <class T>
struct MatrixEntries {
  const int32_t* rows;
  const T* weights;
  __device__ Entry<T> operator[](int64_t e) const { return {rows[e], weights[e]}; }
};

struct Range {
  int64_t begin, end;
};

// `lists` lists of `entries`; each entry names one of `row_count` rows, or none of them, and is skipped.
template <class T, class S, class Entries>
struct RowSums {
  Entries entries;
  int64_t entry_count;
  const int64_t* offsets;  // [lists + 1]
  int64_t lists;
  const S* rows;  // [row_count, channels]
  int64_t row_count;
  int32_t channels;
  int32_t lanes = 0;   // that share a row: 1, 2, 4, 8, 16 or 32
  T* parts = nullptr;  // [segments, 2, channels]: of the long lists that a segment begins and ends within

  // Within the entries, whatever the offsets say.
  __device__ Range range(int64_t list) const {
    const int64_t begin = ::min(::max(offsets[list], int64_t{0}), entry_count);
    return {begin, ::min(::max(offsets[list + 1], begin), entry_count)};
  }
  // The first channel of the j-th of this lane's N vectors of V channels.
  template <int V, int N>
  __device__ int32_t channel(int j) const {
    return ((static_cast<int32_t>(blockIdx.y) * N + j) * lanes + (lane_of_warp() & (lanes - 1))) * V;
  }
};

// Adds up entries begin .. end - 1, in every group of lanes.
template <int V, int N, class T, class S, class Entries>
__device__ __forceinline__ void add_entries(const RowSums<T, S, Entries>& s, int64_t begin, int64_t end,
                                            T (&sum)[N][V]) {
  constexpr int kBatch = 8 / N;  // rows that are asked for before the first is used
  const int lane = lane_of_warp(), groups = kWarp / s.lanes, group = lane / s.lanes;
  for (int64_t first = begin; first < end; first += kWarp) {
    Entry<T> mine{-1, T(0)};
    if (first + lane < end) mine = s.entries[first + lane];
    if (mine.row < 0 || mine.row >= s.row_count) mine = {-1, T(0)};
    const int count = static_cast<int>(::min(end - first, int64_t{kWarp}));
    for (int k = 0; k < count; k += kBatch * groups) {
      Vector<S, V> read[kBatch][N] = {};
      T weights[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int from = k + b * groups + group;
        const int32_t row = __shfl_sync(kAllLanes, mine.row, from & (kWarp - 1));
        weights[b] = __shfl_sync(kAllLanes, mine.weight, from & (kWarp - 1));
        const bool is_one = from < kWarp && row >= 0;
        const S* const there = s.rows + int64_t{row} * s.channels;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const int32_t channel = s.template channel<V, N>(j);
          if (is_one && channel < s.channels) read[b][j] = *reinterpret_cast<const Vector<S, V>*>(there + channel);
        }
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b)
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[j][v] = fma(weights[b], widened(read[b][j].at[v]), sum[j][v]);
    }
  }
  if constexpr (N == 1)  // else all lanes share one row
    for (int step = s.lanes; step < kWarp; step *= 2)
#pragma unroll
      for (int v = 0; v < V; ++v) sum[0][v] += __shfl_xor_sync(kAllLanes, sum[0][v], step);
}

// The parts of long lists that lie in a segment, a warp each.
template <int V, int N, class T, class S, class Entries>
__global__ void __launch_bounds__(kSumThreads) sum_segments_kernel(RowSums<T, S, Entries> s) {
  const int64_t segment = int64_t{blockIdx.x} * kSumWarps + warp_of_block();
  const int64_t begin = segment * kSegment, end = ::min(begin + kSegment, s.entry_count);
  if (begin >= end) return;
  int64_t done = -1;
  for (int k = 0; k < 2; ++k) {
    const int64_t list = first_above(s.offsets, s.lists + 1, k ? end - 1 : begin) - 1;
    if (list < 0 || list >= s.lists || list == done) continue;
    done = list;
    const Range range = s.range(list);
    if (range.end - range.begin <= kSegment) continue;
    T sum[N][V] = {};
    add_entries(s, ::max(range.begin, begin), ::min(range.end, end), sum);
    if (lane_of_warp() >= s.lanes) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int32_t channel = s.template channel<V, N>(j);
      if (channel >= s.channels) continue;
      Vector<T, V> part;
#pragma unroll
      for (int v = 0; v < V; ++v) part.at[v] = sum[j][v];
      *reinterpret_cast<Vector<T, V>*>(s.parts + (2 * segment + k) * s.channels + channel) = part;
    }
  }
}

// Adds up the parts of a long list.
template <int V, int N, class T, class S, class Entries>
__device__ __forceinline__ void add_parts(const RowSums<T, S, Entries>& s, const Range& range, T (&sum)[N][V]) {
  const int64_t first = range.begin / kSegment, last = (range.end - 1) / kSegment;
#pragma unroll 4
  for (int64_t segment = first; segment <= last; ++segment) {
    const bool begins_within = segment == first && range.begin % kSegment != 0;
    const T* part = s.parts + (2 * segment + begins_within) * s.channels;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int32_t channel = s.template channel<V, N>(j);
      if (channel >= s.channels) continue;
      const Vector<T, V> read = *reinterpret_cast<const Vector<T, V>*>(part + channel);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[j][v] += read.at[v];
    }
  }
}

// One list after the other to a warp, whose sum goes where `put` says.
template <int V, int N, class T, class S, class Entries, class Put>
__global__ void __launch_bounds__(kSumThreads) sum_lists_kernel(RowSums<T, S, Entries> s, int lists_per_warp, Put put) {
  for (int k = 0; k < lists_per_warp; ++k) {
    const int64_t list = (int64_t{blockIdx.x} * lists_per_warp + k) * kSumWarps + warp_of_block();
    if (list >= s.lists) return;
    const int64_t to = put.row(list);
    if (to < 0) continue;
    const Range range = s.range(list);
    T sum[N][V] = {};
    if (range.end - range.begin <= kSegment)
      add_entries(s, range.begin, range.end, sum);
    else
      add_parts(s, range, sum);
    const T factor = put.factor(s.entries, range);
    if (lane_of_warp() >= s.lanes) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int32_t channel = s.template channel<V, N>(j);
      if (channel < s.channels) put.put(to * s.channels + channel, factor, sum[j]);
    }
  }
}

// Queues the sums of all lists. Lists that follow each other go to one block, since they often share rows.
template <int V, int N, class T, class S, class Entries, class Put>
void queue_sums(const RowSums<T, S, Entries>& s, const Put& put, cudaStream_t stream) {
  const int slice = V * N * s.lanes;
  const unsigned slices = static_cast<unsigned>((s.channels + slice - 1) / slice);
  const int64_t lists_per_warp = std::clamp<int64_t>(s.lists / (1 << 15), 1, 8);
  const auto grid = [&](int64_t warps) { return dim3(blocks_for(warps, kSumWarps), slices); };
  if (s.entry_count > kSegment)
    launch({grid((s.entry_count + kSegment - 1) / kSegment), kSumThreads, stream},
           sum_segments_kernel<V, N, T, S, Entries>, s);
  launch({dim3(blocks_for(s.lists, kSumWarps * lists_per_warp), slices), kSumThreads, stream},
         sum_lists_kernel<V, N, T, S, Entries, Put>, s, static_cast<int>(lists_per_warp), put);
}

// Whether rows of channels can be read four at a time.
template <class T>
bool can_read_fours(int32_t channels, const void* a, const void* b) {
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return sizeof(T) == 4 && channels % 4 == 0 && aligned(a) && aligned(b);
}

// As many as the blocks of a grid can share.
inline int32_t checked_channels(int64_t channels) {
  STD_TORCH_CHECK(channels <= 1 << 20, "features must have at most 2^20 channels, got ", channels);
  return static_cast<int32_t>(channels);
}

// Lanes that share a row of so many vectors.
inline int32_t lanes_for(int32_t vectors) {
  return vectors >= kWarp ? kWarp : static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(vectors)));
}

// Sums up all lists. `out` is what `put` writes to.
template <class T, class S, class Entries, class Put>
void sum_rows(RowSums<T, S, Entries> s, const Put& put, const Tensor& out, cudaStream_t stream) {
  if (s.lists == 0) return;
  const int64_t segments = s.entry_count > kSegment ? (s.entry_count + kSegment - 1) / kSegment : 0;
  Tensor parts = scratch<T>(out, segments * 2 * s.channels);
  s.parts = mutable_data<T>(parts);
  const bool fours = can_read_fours<T>(s.channels, s.rows, out.const_data_ptr());
  const int32_t vectors = fours ? s.channels / 4 : s.channels;
  s.lanes = lanes_for(vectors);
  if constexpr (sizeof(T) == 4)
    if (fours)
      return vectors <= kWarp       ? queue_sums<4, 1>(s, put, stream)
             : vectors <= 2 * kWarp ? queue_sums<4, 2>(s, put, stream)
                                    : queue_sums<4, 4>(s, put, stream);
  vectors <= kWarp ? queue_sums<1, 1>(s, put, stream) : queue_sums<1, 4>(s, put, stream);
}

}  // namespace fgs
