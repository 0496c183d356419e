// Packs splats into records before, and sums the slots of each Gaussian after: the same order every time.
#pragma once

#include "../cuda/launch.h"
#include "features.cuh"
#include "inputs.h"

namespace fgs {

constexpr int kSumThreads = 256;
constexpr int64_t kShortRun = 32;  // slots that one thread, or warp, sums by itself

// The run of slots of splat i, inside [0, pairs].
struct Run {
  int64_t begin, end;
  __device__ Run(const int64_t* offsets, int64_t i, int64_t pairs) : begin(offsets[i]), end(offsets[i + 1]) {
    if (begin < 0 || begin > pairs) begin = pairs;
    if (end < begin || end > pairs) end = begin;
  }
};

// What project puts out, per splat, and what the sums make of its gradient.
template <class T>
struct SplatArrays {
  const T *means2d, *conics, *opacities, *colors, *depths;
  const int64_t* gaussian_offsets;
  int64_t count, pairs;
};

template <class T>
__global__ void __launch_bounds__(kSumThreads) pack_kernel(SplatArrays<T> in, T* records) {
  const int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (i >= in.count || in.gaussian_offsets[i] == in.gaussian_offsets[i + 1]) return;  // in no list: never read
  const Splat<T> s = make_splat(in.means2d[2 * i], in.means2d[2 * i + 1], in.conics[3 * i], in.conics[3 * i + 1],
                                in.conics[3 * i + 2], in.opacities[i]);
  const T* rgb = in.colors + 3 * i;
  const T record[kCudaRecord] = {s.x,    s.y,    s.a,    s.b,          s.c,            s.log2_opacity,
                                 rgb[0], rgb[1], rgb[2], in.depths[i], T(0.5) / s.a, T(0.5) / s.c};
  Chunk<T>* to = reinterpret_cast<Chunk<T>*>(records) + i * kChunks<T>;
#pragma unroll
  for (int part = 0; part < kChunks<T>; ++part) {
    Chunk<T> chunk;
#pragma unroll
    for (int k = 0; k < kWide<T>; ++k) chunk.at[k] = record[part * kWide<T> + k];
    to[part] = chunk;
  }
}

template <class T>
SplatArrays<T> splat_arrays(const RasterizeArguments& in) {
  return {data<T>(in.means2d), data<T>(in.conics), data<T>(in.opacities), data<T>(in.colors), data<T>(in.depths),
          data<int64_t>(in.gaussian_offsets), in.cameras() * in.gaussians(), in.pairs()};
}

template <class T>
Tensor pack_records(const OnDevice& device, const RasterizeArguments& in) {
  const SplatArrays<T> arrays = splat_arrays<T>(in);
  Tensor records = in.empty({arrays.count, kCudaRecord});
  launch({blocks_for(arrays.count, kSumThreads), kSumThreads, device.stream}, pack_kernel<T>, arrays,
         mutable_data<T>(records));
  return records;
}

template <class T>
struct SplatGrads {
  T *means2d, *conics, *opacities, *colors, *depths, *absolute;  // the last may be null
};

template <class T>
__device__ __forceinline__ void add_row(const T* pairs, int64_t slot, T (&sum)[kCudaRecord]) {
  const Chunk<T>* row = reinterpret_cast<const Chunk<T>*>(pairs + slot * kCudaRecord);
#pragma unroll
  for (int part = 0; part < kChunks<T>; ++part) {
    const Chunk<T> chunk = row[part];
#pragma unroll
    for (int k = 0; k < kWide<T>; ++k) sum[part * kWide<T> + k] += chunk.at[k];
  }
}

// A thread per splat; long runs are shared by the lanes of its warp.
template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_pairs_kernel(SplatArrays<T> in, const T* pairs, SplatGrads<T> out) {
  const int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  Run run(in.gaussian_offsets, i < in.count ? i : 0, in.pairs);
  if (i >= in.count) run.end = run.begin;
  T sum[kCudaRecord] = {};
  const bool is_long = run.end - run.begin > kShortRun;
  if (!is_long)
    for (int64_t slot = run.begin; slot < run.end; ++slot) add_row(pairs, slot, sum);
  for (unsigned left = __ballot_sync(kAllLanes, is_long); left;) {
    const int owner = take_first(left);
    const int64_t begin = __shfl_sync(kAllLanes, static_cast<long long>(run.begin), owner);
    const int64_t end = __shfl_sync(kAllLanes, static_cast<long long>(run.end), owner);
    T share[kCudaRecord] = {};
    for (int64_t slot = begin + lane_of_warp(); slot < end; slot += kWarp) add_row(pairs, slot, share);
#pragma unroll
    for (int k = 0; k < kCudaRecord; ++k) {
      const T total = warp_sum(share[k]);
      if (lane_of_warp() == owner) sum[k] = total;
    }
  }
  if (i >= in.count) return;
  SplatGrad<T> g{};
  if (run.begin < run.end)
    g = splat_vjp(in.conics[3 * i], in.conics[3 * i + 1], in.conics[3 * i + 2], in.opacities[i],
                  Moments<T>{sum[4], sum[5], sum[6], sum[7], sum[8], sum[9]});
  out.means2d[2 * i] = g.x, out.means2d[2 * i + 1] = g.y;
  out.conics[3 * i] = g.xx, out.conics[3 * i + 1] = g.xy, out.conics[3 * i + 2] = g.yy;
  out.opacities[i] = g.opacity;
  for (int c = 0; c < 3; ++c) out.colors[3 * i + c] = sum[c];
  out.depths[i] = sum[3];
  if (out.absolute)
    out.absolute[2 * i] = sum[10] / T(kLog2E), out.absolute[2 * i + 1] = sum[11] / T(kLog2E);
}

template <class T>
void sum_pairs(const OnDevice& device, const RasterizeArguments& in, const T* pairs, RasterizeGradResults& out) {
  const SplatArrays<T> arrays = splat_arrays<T>(in);
  launch({blocks_for(arrays.count, kSumThreads), kSumThreads, device.stream}, sum_pairs_kernel<T>, arrays, pairs,
         SplatGrads<T>{mutable_data<T>(out.means2d), mutable_data<T>(out.conics), mutable_data<T>(out.opacities),
                       mutable_data<T>(out.colors), mutable_data<T>(out.depths),
                       out.absolute.numel() ? mutable_data<T>(out.absolute) : nullptr});
}

// A round of channels of the features' gradient: out[n, begin + c] = Σ of the slots of Gaussian n in all cameras.
template <class T>
struct FeatureSums {
  const int64_t* gaussian_offsets;  // [cameras * gaussians + 1]
  int64_t cameras, gaussians, pairs;
  const T* pair_features;  // [pairs, pair_stride(count)]
  int64_t begin, count, channels;
  T* out;                  // [gaussians, channels]

  __device__ Run run(int64_t camera, int64_t n) const {
    return Run(gaussian_offsets, camera * gaussians + n, pairs);
  }
};

// A warp per Gaussian, a chunk of channels per lane; the warps of a block share long runs.
template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_pair_features_kernel(FeatureSums<T> in) {
  constexpr int kWarps = kSumThreads / kWarp;
  __shared__ Chunk<T> shares[kWarps][kWarp];
  const int warp = warp_of_block(), lane = lane_of_warp();
  const int64_t first = int64_t{blockIdx.x} * kWarps, n = first + warp;
  const int64_t stride = pair_stride(in.count), channel = (int64_t{blockIdx.y} * kWarp + lane) * kWide<T>;
  const auto slots = [&](int64_t gaussian) {
    int64_t total = 0;
    for (int64_t b = 0; b < in.cameras; ++b) total += in.run(b, gaussian).end - in.run(b, gaussian).begin;
    return total;
  };
  // Σ over slots of the Gaussian: every step-th from `from` on, in each camera.
  const auto sum = [&](int64_t gaussian, int from, int step) {
    Chunk<T> total{};
    for (int64_t b = 0; b < in.cameras && channel < stride; ++b) {
      const Run run = in.run(b, gaussian);
#pragma unroll 4
      for (int64_t slot = run.begin + from; slot < run.end; slot += step)
        add_chunk(total, *reinterpret_cast<const Chunk<T>*>(in.pair_features + slot * stride + channel));
    }
    return total;
  };
  const auto write = [&](int64_t gaussian, const Chunk<T>& total) {
    T* to = in.out + gaussian * in.channels + in.begin + channel;
    if (channel + kWide<T> <= in.count && reinterpret_cast<uintptr_t>(to) % sizeof(Chunk<T>) == 0) {
      *reinterpret_cast<Chunk<T>*>(to) = total;
      return;
    }
#pragma unroll
    for (int k = 0; k < kWide<T>; ++k)
      if (channel + k < in.count) to[k] = total.at[k];
  };
  const bool is_long = n < in.gaussians && slots(n) > kShortRun;
  if (n < in.gaussians && !is_long) write(n, sum(n, 0, 1));
  if (!__syncthreads_or(is_long)) return;
  for (int owner = 0; owner < kWarps; ++owner) {
    if (first + owner >= in.gaussians || slots(first + owner) <= kShortRun) continue;
    shares[warp][lane] = sum(first + owner, warp, kWarps);
    __syncthreads();
    if (warp == owner) {
      Chunk<T> total{};
      for (int each = 0; each < kWarps; ++each) add_chunk(total, shares[each][lane]);
      write(n, total);
    }
    __syncthreads();
  }
}

}  // namespace fgs
