// Gradients of the splats, per pair: a block walks through its tile's list from the back, a lane per pixel, a batch of
// splats at a time; the sums over a patch are made by its warp, those over the tile in order of the patches (contract
// and formula: rasterize.h).
#pragma once

#include "pull.cuh"
#include "transposed_sums.cuh"

namespace fgs {

// The number itself, in a way that keeps the compiler from working it out again in every turn of a loop.
__device__ __forceinline__ int kept_in_register(int number) {
  return __shfl_sync(kAllLanes, number, lane_of_warp());
}

// Near one over x, for x in [0.01, 1].
__device__ __forceinline__ float quick_reciprocal(float x) { return __fdividef(1.0f, x); }
__device__ __forceinline__ double quick_reciprocal(double x) { return 1.0 / x; }

// What a lane carries along, and its pixel's output gradients.
template <class T>
struct PixelGrads {
  T t = T(0);       // transmittance behind the splat at hand
  T behind = T(0);  // Σ_{j>i} w_j q_j + T_final dL/dT_final
  T color[3] = {}, z = T(0);  // dL/dcolor, dL/ddepth / Σw
  int32_t last = 0;

  __device__ PixelGrads(const RasterizeInputs<T>& in, const RasterizeGrads<T>& g, const PatchPixel<T>& pixel) {
    if (!pixel.inside) return;
    const int64_t at = pixel.index;
    last = g.last[at];
    if (last <= 0) return;
    t = g.transmittance[at];
    T toward_t = g.alpha ? -g.alpha[at] : T(0);
    for (int c = 0; c < 3 && g.color; ++c) {
      color[c] = g.color[3 * at + c];
      if (in.background) toward_t += in.background[c] * color[c];
    }
    if (g.depth) {
      z = g.depth[at] / g.alpha_value[at];
      toward_t += z * g.depth_value[at];
    }
    behind = t * toward_t;
  }

  // The pixel's share of the splat's gradients, see RasterizeGrads::pairs; `pulled` is added to dL/dw.
  template <int kValues>
  __device__ __forceinline__ void add(const Record<T>& r, T dx, T dy, T raw, bool blended, T pulled,
                                      T (&values)[kValues]) {
    const T alpha = blended ? min(raw, T(kMaxAlpha)) : T(0);
    const T through = quick_reciprocal(T(1) - alpha);
    t *= through;
    const T w = alpha * t;
    const T q_color = fma(r.color[0], color[0], fma(r.color[1], color[1], r.color[2] * color[2]));
    const T q = fma(r.depth, z, q_color + pulled);
    const T g_alpha = t * q - through * behind;
    behind = fma(w, q, behind);
    const T m = raw <= T(kMaxAlpha) ? alpha * g_alpha : T(0);
    const T mx = m * dx, my = m * dy;
    values[0] = w * color[0], values[1] = w * color[1], values[2] = w * color[2], values[3] = w * z;
    values[4] = m, values[5] = mx, values[6] = my;
    values[7] = mx * dx, values[8] = mx * dy, values[9] = my * dy;
    if constexpr (kValues > 10) {  // conic · (mx, my), from a, b, c = log2(e) (xx/2, xy, yy/2)
      values[10] = abs(fma(2 * r.splat.a, mx, r.splat.b * my));
      values[11] = abs(fma(r.splat.b, mx, 2 * r.splat.c * my));
    }
  }
};

template <class T, Pull kPull, int kValues>
struct BackwardMemory {
  static constexpr int kBatch = kBackwardBatch<T>;
  Chunk<T> records[2][kBatch * kChunks<T>];
  int32_t slots[2][kBatch];
  unsigned listed[2][kPatches];  // the splats of the batch with a sum
  int deepest[kPatches];
  union {
    T sums[2][kPatches][kBatch][kValues];
    PullStage<T, kPull> stage;
  };
  PullMemory<T, kPull> pulled;
};

// Blocks that a multiprocessor is to hold, for which the compiler sees to it that registers do. Before compute capability
// 8.0 there is room for four.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kMostBackwardBlocks = 4;
#else
constexpr int kMostBackwardBlocks = 5;
#endif
template <class T, Pull kPull>
constexpr int kBackwardBlocks = kPull == Pull::kFeatures ? 2
                                : sizeof(T) == 8         ? 3
                                : kPull == Pull::kCells  ? 4
                                                         : kMostBackwardBlocks;

template <class T, Pull kPull, bool kAbsolute>
__global__ void __launch_bounds__(kTileThreads, kBackwardBlocks<T, kPull>)
    backward_kernel(RasterizeInputs<T> in, RasterizeGrads<T> g) {
  constexpr int kValues = kAbsolute ? 12 : 10, kBatch = kBackwardBatch<T>, kBatchChunks = kBatch * kChunks<T>;
  using Memory = BackwardMemory<T, kPull, kValues>;
  Memory& shared = *dynamic_shared<Memory>();
  const Tile2D tile(in, blockIdx.x);
  if (tile.count == 0) return;
  const int warp = warp_of_block(), thread = static_cast<int>(threadIdx.x);
  const int lane = kept_in_register(lane_of_warp()), mine = kept_in_register(sum_of_lane<kValues>(lane));
  const PatchPixel<T> pixel(in, tile, warp);
  const PatchTest<T> test(tile, pixel);
  PixelGrads<T> grads(in, g, pixel);
  WeightPull<T, kPull> pull(in, g, tile, pixel);
  const int deepest = largest_of_warp(grads.last);
  if (lane == 0) shared.deepest[warp] = deepest;
  __syncthreads();
  int end = 0;
  for (const int each : shared.deepest) end = each > end ? each : end;
  end = smaller(end, tile.count);
  const auto pair_row = [&](int32_t slot) -> T* {
    return slot < 0 ? nullptr : g.pairs + static_cast<int64_t>(slot) * kCudaRecord;
  };
  for (int64_t k = int64_t{end} * kValues + thread; k < int64_t{tile.count} * kValues; k += kTileThreads)
    if (T* row = pair_row(tile.slot(in, static_cast<int>(k / kValues)))) row[k % kValues] = T(0);

  // The k-th splat of a batch stands at place back - 1 - k.
  const auto fetch = [&](int back, Chunk<T>& chunk) {
    const int place = back - 1 - thread / kChunks<T>;
    if (thread < kBatchChunks && place >= 0) chunk = tile.chunk(in, place, thread % kChunks<T>);
  };
  const auto fetch_slots = [&](int back, int batch) {
    const int place = back - 1 - thread;
    if (thread < kBatch && place >= 0) tile.fetch_slot(in, place, shared.slots[batch][thread]);
    __pipeline_commit();
  };
  Chunk<T> fetched{};
  fetch(end, fetched);
  fetch_slots(end, 0);
  if (thread < kBatchChunks) shared.records[0][thread] = fetched;
  pull.fetch(end);
  pull.put(shared.pulled, 0);
  __syncthreads();
  for (int back = end, batch = 0; back > 0; back -= kBatch, batch ^= 1) {
    const int here = smaller(back, kBatch);
    fetch(back - kBatch, fetched);
    pull.fetch(back - kBatch);

    const bool reached = lane < here && back - 1 - lane < deepest &&
                         test(load_record(shared.records[batch] + lane * kChunks<T>));
    unsigned hits = __ballot_sync(kAllLanes, reached), listed = 0;
    pull.prepare(shared.stage, shared.pulled, hits, back);
    while (hits) {
      const int i = take_first(hits), place = back - 1 - i;
      const Record<T> r = load_record(shared.records[batch] + i * kChunks<T>);
      const T dx = pixel.x - r.splat.x, dy = pixel.y - r.splat.y;
      const T raw = raw_alpha<T, T>(r.splat, dx, dy);
      const bool blended = place < grads.last && raw >= T(kMinAlpha);
      if (!__any_sync(kAllLanes, blended)) continue;
      T values[kValues];
      grads.add(r, dx, dy, raw, blended, pull(shared.pulled, batch, i), values);
      const T sum = transposed_sums(values, lane);
      if (mine >= 0) shared.sums[batch][warp][i][mine] = sum;
      listed |= 1u << i;
    }
    if (lane == 0) shared.listed[batch][warp] = listed;
    if (thread < kBatchChunks) shared.records[1 - batch][thread] = fetched;
    pull.put(shared.pulled, 1 - batch);
    __pipeline_wait_prior(0);
    __syncthreads();

    fetch_slots(back - kBatch, 1 - batch);  // not before: the barrier ends the reading of those there
    for (int k = thread; k < here * kValues; k += kTileThreads) {
      const int i = k / kValues, value = k % kValues;
      T sum = T(0);
#pragma unroll
      for (int patch = 0; patch < kPatches; ++patch)
        if (shared.listed[batch][patch] >> i & 1) sum += shared.sums[batch][patch][i][value];
      if (T* row = pair_row(tile.checked_slot(in, shared.slots[batch][i]))) row[value] = sum;
    }
  }
}

}  // namespace fgs
