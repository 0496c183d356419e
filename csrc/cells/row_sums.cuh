// Weighted sums of rows of channels, which is what blending, gathering and adding up are. A warp sums up a list in the
// list's order, its lanes side by side along the channels; few channels leave groups of lanes that take entries in turn.
// Most entries have no weight: a warp looks at many and keeps the others. A Gaussian may be in every tile: what is longer
// than a segment is summed segment by segment first, by a warp each. A tile's list is not cut: behind what hides the rest,
// it has no weight.
#pragma once

#include <cuda_fp16.h>

#include "../cuda/block.h"
#include "entries.cuh"

namespace fgs {

constexpr int kSumThreads = 256, kSumWarps = kSumThreads / kWarp;
constexpr int kLookedAt = 4;  // entries that a lane looks at together

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

// What of a list was looked at.
template <class T>
struct Seen {
  T total;          // of the weights; of one lane, while a warp looks
  int32_t entries;  // with weight
};

// What is summed: `rows` [., channels], which the entries of the lists name.
template <class T, class S, class Lists>
struct RowSums {
  Lists lists;
  const S* rows;
  int32_t channels;
  int32_t lanes = 0;  // that share a row: 1, 2, 4, 8, 16 or 32
  // Of each segment's first and last long range, if it has one: [segments, 2, channels], [segments, 2].
  T* parts = nullptr;
  Seen<T>* seen = nullptr;

  // The first channel of the j-th of this lane's N vectors of V channels.
  template <int V, int N>
  __device__ int32_t channel(int j) const {
    return ((static_cast<int32_t>(blockIdx.y) * N + j) * lanes + (lane_of_warp() & (lanes - 1))) * V;
  }
};

// A warp's memory for the entries that it keeps.
template <class T>
using Kept = Entry<T>[kLookedAt * kWarp];

// Adds up the entries of a list in a range: every group of lanes its own.
template <int V, int N, class T, class S, class Lists>
__device__ __forceinline__ void add_entries(const RowSums<T, S, Lists>& s, int64_t list, int32_t r, const Range& range,
                                            Kept<T>& kept, T (&sum)[N][V], Seen<T>& seen) {
  constexpr int kBatch = 8 / N;  // rows that are asked for before the first is used
  const int lane = lane_of_warp(), groups = kWarp / s.lanes, group = lane / s.lanes;
  const int64_t end = range.end << s.lists.entries_bits();
  for (int64_t first = range.begin << s.lists.entries_bits(); first < end; first += kLookedAt * kWarp) {
    Entry<T> mine[kLookedAt];
#pragma unroll
    for (int j = 0; j < kLookedAt; ++j) {
      const int64_t e = first + j * kWarp + lane;
      mine[j] = e < end ? s.lists.entry(list, r, e) : Entry<T>{-1, T(0)};
    }
    int count = 0;
#pragma unroll
    for (int j = 0; j < kLookedAt; ++j) {
      const bool is_one = mine[j].row >= 0;
      const unsigned ones = __ballot_sync(kAllLanes, is_one);
      if (is_one) kept[count + __popc(ones & ((1u << lane) - 1))] = mine[j];
      if (is_one) seen.total += mine[j].weight;
      count += __popc(ones);
    }
    seen.entries += count;
    __syncwarp();
    for (int k = 0; k < count; k += kBatch * groups) {
      Vector<S, V> read[kBatch][N] = {};
      T weights[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int from = k + b * groups + group;
        const Entry<T> one = from < count ? kept[from] : Entry<T>{-1, T(0)};
        const S* const there = s.rows + int64_t{one.row} * s.channels;
        weights[b] = one.weight;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const int32_t channel = s.template channel<V, N>(j);
          if (one.row >= 0 && channel < s.channels)
            read[b][j] = *reinterpret_cast<const Vector<S, V>*>(there + channel);
        }
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b)
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[j][v] = fma(weights[b], widened(read[b][j].at[v]), sum[j][v]);
    }
    __syncwarp();  // before other entries are kept
  }
}

// Σ over the groups of lanes, in every group.
template <int V, int N, class T, class S, class Lists>
__device__ __forceinline__ void add_groups(const RowSums<T, S, Lists>& s, T (&sum)[N][V]) {
  if constexpr (N == 1)  // else all lanes share one row
    for (int step = s.lanes; step < kWarp; step *= 2)
#pragma unroll
      for (int v = 0; v < V; ++v) sum[0][v] += __shfl_xor_sync(kAllLanes, sum[0][v], step);
}

// The parts of long ranges that lie in a segment, a warp each.
template <int V, int N, class T, class S>
__global__ void __launch_bounds__(kSumThreads) sum_segments_kernel(RowSums<T, S, GaussianLists<T>> s) {
  __shared__ Kept<T> kept[kSumWarps];
  const GaussianLists<T>& lists = s.lists;
  const int64_t segment = int64_t{blockIdx.x} * kSumWarps + warp_of_block();
  const int64_t begin = segment * lists.segment(), end = ::min(begin + lists.segment(), lists.a.slots);
  if (begin >= end) return;
  int64_t done = -1;
  for (int k = 0; k < 2; ++k) {
    const int64_t i = lists.owner(k ? end - 1 : begin);
    if (i < 0 || i == done) continue;
    done = i;
    const Range range = run(lists.a.offsets, i, lists.a.slots);
    if (range.end - range.begin <= lists.segment()) continue;
    const int32_t view = static_cast<int32_t>(i / lists.a.count);
    T sum[N][V] = {};
    Seen<T> seen{T(0), 0};
    add_entries(s, i - view * lists.a.count, view, {::max(range.begin, begin), ::min(range.end, end)},
                kept[warp_of_block()], sum, seen);
    add_groups(s, sum);
    seen.total = warp_sum(seen.total);
    if (blockIdx.y == 0 && lane_of_warp() == 0) s.seen[2 * segment + k] = seen;
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

// Adds up the parts of a long range: the sums in the first group of lanes, the total in the first lane.
template <int V, int N, class T, class S>
__device__ __forceinline__ void add_parts(const RowSums<T, S, GaussianLists<T>>& s, const Range& range, T (&sum)[N][V],
                                          Seen<T>& seen) {
  const int64_t length = s.lists.segment(), first = range.begin / length, last = (range.end - 1) / length;
#pragma unroll 4
  for (int64_t segment = first; segment <= last; ++segment) {
    const bool begins_within = segment == first && range.begin % length != 0;
    const int64_t at = 2 * segment + begins_within;
    seen.entries += s.seen[at].entries;
    if (lane_of_warp() == 0) seen.total += s.seen[at].total;
    if (lane_of_warp() >= s.lanes) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int32_t channel = s.template channel<V, N>(j);
      if (channel >= s.channels) continue;
      const Vector<T, V> read = *reinterpret_cast<const Vector<T, V>*>(s.parts + at * s.channels + channel);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[j][v] += read.at[v];
    }
  }
}

// One list after the other to a warp. put.wants(seen): whether the sum is asked for; put.put(at, total, sum) takes V
// channels of it, the first of which is number `at` of what is written, and the total of the weights.
template <int V, int N, class T, class S, class Lists, class Put>
__global__ void __launch_bounds__(kSumThreads) sum_lists_kernel(RowSums<T, S, Lists> s, int lists_per_warp, Put put) {
  __shared__ Kept<T> kept[kSumWarps];
  for (int k = 0; k < lists_per_warp; ++k) {
    const int64_t list = (int64_t{blockIdx.x} * lists_per_warp + k) * kSumWarps + warp_of_block();
    if (list >= s.lists.lists()) return;
    const int64_t to = s.lists.row(list);
    if (to < 0) continue;
    T sum[N][V] = {};
    Seen<T> seen{T(0), 0};
    for (int32_t r = 0; r < s.lists.ranges(); ++r) {
      const Range range = s.lists.range(list, r);
      if constexpr (Lists::kHasSegments)
        if (range.end - range.begin > s.lists.segment()) {
          add_parts(s, range, sum, seen);
          continue;
        }
      add_entries(s, list, r, range, kept[warp_of_block()], sum, seen);
    }
    if (!put.wants(seen)) continue;
    add_groups(s, sum);
    const T total = warp_sum(seen.total);
    if (lane_of_warp() >= s.lanes) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int32_t channel = s.template channel<V, N>(j);
      if (channel < s.channels) put.put(to * s.channels + channel, total, sum[j]);
    }
  }
}

// Queues the sums of all lists. Lists that follow each other go to one block, since they often share rows.
template <int V, int N, class T, class S, class Lists, class Put>
void queue_sums(const RowSums<T, S, Lists>& s, const Put& put, int64_t segments, cudaStream_t stream) {
  const int slice = V * N * s.lanes;
  const unsigned slices = static_cast<unsigned>((s.channels + slice - 1) / slice);
  const int64_t lists = s.lists.lists(), lists_per_warp = std::clamp<int64_t>(lists / (1 << 15), 1, 8);
  const auto grid = [&](int64_t warps) { return dim3(blocks_for(warps, kSumWarps), slices); };
  if constexpr (Lists::kHasSegments)
    launch({grid(segments), kSumThreads, stream}, sum_segments_kernel<V, N, T, S>, s);
  launch({dim3(blocks_for(lists, kSumWarps * lists_per_warp), slices), kSumThreads, stream},
         sum_lists_kernel<V, N, T, S, Lists, Put>, s, static_cast<int>(lists_per_warp), put);
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
template <class T, class S, class Lists, class Put>
void sum_rows(RowSums<T, S, Lists> s, const Put& put, const Tensor& out, cudaStream_t stream) {
  const int64_t lists = s.lists.lists();
  if (lists == 0) return;
  int64_t segments = 0;
  if constexpr (Lists::kHasSegments)
    if (s.lists.a.slots > s.lists.segment()) segments = (s.lists.a.slots - 1) / s.lists.segment() + 1;
  Tensor parts = scratch<T>(out, segments * 2 * s.channels), seen = scratch<Seen<T>>(out, segments * 2);
  s.parts = mutable_data<T>(parts), s.seen = mutable_data<Seen<T>>(seen);
  const bool fours = can_read_fours<T>(s.channels, s.rows, out.const_data_ptr());
  const int32_t vectors = fours ? s.channels / 4 : s.channels;
  s.lanes = lanes_for(vectors);
  // Few lists: rather more warps, that look at the same entries, than more channels to a warp.
  const bool one = vectors <= kWarp || lists < 1 << 14;
  if constexpr (sizeof(T) == 4)
    if (fours)
      return one                    ? queue_sums<4, 1>(s, put, segments, stream)
             : vectors <= 2 * kWarp ? queue_sums<4, 2>(s, put, segments, stream)
                                    : queue_sums<4, 4>(s, put, segments, stream);
  one ? queue_sums<1, 1>(s, put, segments, stream) : queue_sums<1, 4>(s, put, segments, stream);
}

}  // namespace fgs
