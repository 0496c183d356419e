// Features of cells of 1 or 2 pixels, and their gradients: warps list the splats that their patches see, with the
// weights there, and multiply the lists with slices of channels. Features have one list for all slices; for gradients,
// whose cells stay in registers, each slice makes its own.
#pragma once

#include "products.cuh"

namespace fgs {

constexpr int kBlendThreads = 128;  // half a tile
constexpr int kBlendPatches = kBlendThreads / kWarp;
constexpr int kFeatureBatch = 64;   // splats staged at a time

template <class P>
struct BlendMemory {
  using T = typename P::Scalar;
  Chunk<T> records[kFeatureBatch * kChunks<T>];
  alignas(32) typename P::Weight weights[kBlendPatches][P::kListed][PatchCells<P::kCell>::kCount];
  int32_t listed[kBlendPatches][P::kListed];
  typename P::Stage stages[kBlendPatches];
};

// P: how the products are made. The grid: half tiles. Warps share splats, and wait for nothing else.
template <class P>
__global__ void __launch_bounds__(kBlendThreads, P::kBlocksPerSM)
    blend_features_kernel(RasterizeInputs<typename P::Scalar> in, const int32_t* last, typename P::Scalar* out) {
  using T = typename P::Scalar;
  using Cells = PatchCells<P::kCell>;
  BlendMemory<P>& shared = *dynamic_shared<BlendMemory<P>>();
  const Tile2D tile(in, blockIdx.x / 2);
  const int warp = warp_of_block(), lane = lane_of_warp();
  const PatchPixel<T> pixel(in, tile, static_cast<int>(blockIdx.x % 2) * kBlendPatches + warp);
  const PatchTest<T> test(tile, pixel);
  const Cells cells(in, tile, pixel);
  const int mine = pixel.inside ? last[pixel.index] : 0;
  WeightWalk<T, P::kCell> walk(tile, pixel, mine);
  const int deepest = smaller(largest_of_warp(mine), tile.count);

  P product(shared.stages[warp]);
  int rows = 0;
  bool more = false;  // than was listed before
  const int end = deepest ? deepest : 1;  // so that patches without splats are written, too
  for (int first = 0; __syncthreads_or(first < end); first += kFeatureBatch) {
    const int here = smaller(tile.count - first, kFeatureBatch);
    for (int k = threadIdx.x; k < here * kChunks<T>; k += kBlendThreads)
      shared.records[k] = tile.chunk(in, first + k / kChunks<T>, k % kChunks<T>);
    __syncthreads();
    for (int group = 0; group < kFeatureBatch && first + group < end; group += kWarp) {
      const Chunk<T>* record = shared.records + group * kChunks<T>;
      const int place = first + group + lane;
      const bool reached = place < deepest && test(load_record(record + lane * kChunks<T>));
      const int32_t gaussian = reached ? tile.gaussian(in, place) : 0;
      for (unsigned hits = __ballot_sync(kAllLanes, reached); hits;) {
        const int i = take_first(hits);
        const T w = walk.next(load_record(record + i * kChunks<T>).splat, first + group + i);
        if (!__any_sync(kAllLanes, w > T(0))) continue;
        walk.template write<P>(w, shared.weights[warp][rows]);
        if (lane == i) shared.listed[warp][rows] = gaussian;
        ++rows;
      }
      if (first + group + kWarp < end && rows <= P::kListed - kWarp) continue;
      __syncwarp();
      for (int64_t begin = 0; begin < in.channels; begin += P::kChannels) {
        const int64_t left = in.channels - begin;
        const Slice<T> features{in.features + begin, in.channels,
                                static_cast<int>(left < P::kChannels ? left : P::kChannels)};
        product.clear();
        product.add(shared.weights[warp], shared.listed[warp], rows, features, shared.stages[warp]);
        product.write(cells, out + begin, in.channels, features.channels, more, shared.stages[warp]);
      }
      __syncwarp();
      rows = 0, more = true;
    }
  }
}

// Gradients of features, per pair: the block's warps list the splats of a batch with their weights, multiply them with
// the gradients of their patches' cells, and the block adds up what the warps have for each splat.
template <class P>
struct SpreadMemory {
  using T = typename P::Scalar;
  Chunk<T> records[2][P::kBatch * kChunks<T>];
  alignas(32) T weights[kPatches][P::kBatch][P::kStride];
  alignas(32) T results[kPatches][P::kRows][P::kRowStride];
  int32_t slots[2][P::kBatch];
  unsigned listed[kPatches];  // which splats of the batch
  int deepest[kPatches];
};

// Channels of a row of pair_features: rows begin where a chunk does.
FGS_HD int64_t pair_stride(int64_t channel_count) { return (channel_count + 3) / 4 * 4; }

// The grid: tiles along x, slices of the round's channels along y.
template <class P>
__global__ void __launch_bounds__(kTileThreads, P::kBlocksPerSM)
    spread_features_kernel(RasterizeInputs<typename P::Scalar> in, RasterizeGrads<typename P::Scalar> g) {
  using T = typename P::Scalar;
  constexpr int kBatchChunks = P::kBatch * kChunks<T>, kSliceChunks = P::kChannels / kWide<T>;
  SpreadMemory<P>& shared = *dynamic_shared<SpreadMemory<P>>();
  const Tile2D tile(in, blockIdx.x);
  if (tile.count == 0) return;
  const int warp = warp_of_block(), lane = lane_of_warp(), thread = static_cast<int>(threadIdx.x);
  const PatchPixel<T> pixel(in, tile, warp);
  const PatchTest<T> test(tile, pixel);
  const int mine = pixel.inside ? g.last[pixel.index] : 0;
  WeightWalk<T, P::kCell> walk(tile, pixel, mine);
  const int deepest = largest_of_warp(mine);
  if (lane == 0) shared.deepest[warp] = deepest;

  const int64_t begin = int64_t{blockIdx.y} * P::kChannels, left = g.channel_count - begin;
  const Slice<T> grads{g.features + g.channel_begin + begin, in.channels,
                       static_cast<int>(left < P::kChannels ? left : P::kChannels)};
  const P product(PatchCells<P::kCell>(in, tile, pixel), grads, shared.results[warp]);

  const int64_t stride = pair_stride(g.channel_count);
  const auto pair_chunk = [&](int32_t slot, int chunk) -> Chunk<T>* {
    const int64_t channel = begin + chunk * kWide<T>;
    if (slot < 0 || channel >= stride) return nullptr;
    return reinterpret_cast<Chunk<T>*>(g.pair_features + slot * stride + channel);
  };
  if (thread < kBatchChunks && thread / kChunks<T> < tile.count)
    shared.records[0][thread] = tile.chunk(in, thread / kChunks<T>, thread % kChunks<T>);
  if (thread < P::kBatch && thread < tile.count) tile.fetch_slot(in, thread, shared.slots[0][thread]);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  int end = 0;
  for (const int each : shared.deepest) end = each > end ? each : end;
  end = smaller(end, tile.count);

  for (int first = 0; first < end; first += P::kBatch) {
    const int here = smaller(end - first, P::kBatch), batch = first / P::kBatch % 2, next = first + P::kBatch;
    const bool fetch = thread < kBatchChunks && next + thread / kChunks<T> < end;
    Chunk<T> fetched{};
    if (fetch) fetched = tile.chunk(in, next + thread / kChunks<T>, thread % kChunks<T>);
    if (thread < P::kBatch && next + thread < end) tile.fetch_slot(in, next + thread, shared.slots[1 - batch][thread]);
    __pipeline_commit();

    unsigned listed = 0;
    int rows = 0;
    const bool reached = lane < here && first + lane < deepest &&
                         test(load_record(shared.records[batch] + smaller(lane, here - 1) * kChunks<T>));
    for (unsigned hits = __ballot_sync(kAllLanes, reached); hits;) {
      const int i = take_first(hits);
      const T w = walk.next(load_record(shared.records[batch] + i * kChunks<T>).splat, first + i);
      if (!__any_sync(kAllLanes, w > T(0))) continue;
      walk.template write<P>(w, shared.weights[warp][rows++]);
      listed |= 1u << i;
    }
    if (lane == 0) shared.listed[warp] = listed;
    if (fetch) shared.records[1 - batch][thread] = fetched;
    __pipeline_wait_prior(0);
    __syncwarp();

    for (int done = 0;; done += P::kRows) {  // a second round where one patch of the tile has more than kRows splats
      product.multiply(shared.weights[warp] + done, smaller(rows - done, P::kRows), shared.results[warp]);
      __syncthreads();
      for (int k = thread; k < here * kSliceChunks; k += kTileThreads) {
        const int i = k / kSliceChunks, chunk = k % kSliceChunks;
        Chunk<T>* to = pair_chunk(tile.checked_slot(in, shared.slots[batch][i]), chunk);
        if (!to) continue;
        Chunk<T> sum{};
        bool any = done == 0;
#pragma unroll
        for (int patch = 0; patch < kPatches; ++patch) {
          const unsigned patch_listed = shared.listed[patch];
          const int row = __popc(patch_listed & ((1u << i) - 1)) - done;
          if (!(patch_listed >> i & 1) || row < 0 || row >= P::kRows) continue;
          const Chunk<T> part = *reinterpret_cast<const Chunk<T>*>(&shared.results[patch][row][chunk * kWide<T>]);
          add_chunk(sum, part);
          any = true;
        }
        if (!any) continue;
        if (done) add_chunk(sum, *to);
        *to = sum;
      }
      if (!__syncthreads_or(rows > done + P::kRows)) break;
    }
  }
  for (int64_t k = int64_t{end} * kSliceChunks + thread; k < int64_t{tile.count} * kSliceChunks; k += kTileThreads) {
    const int32_t slot = tile.slot(in, static_cast<int>(k / kSliceChunks));
    if (Chunk<T>* to = pair_chunk(slot, static_cast<int>(k % kSliceChunks))) *to = {};
  }
}

}  // namespace fgs
