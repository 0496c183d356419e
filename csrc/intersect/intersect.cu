// CUDA twin of intersect (contract: intersect.h). The visible splats are sorted by depth, then pairs are listed in that
// order and sorted stably by tile. Rows of tiles, and then pairs, are shared out evenly among threads, however many of
// them one splat has.
#include <tuple>

#include "../cuda/block.h"
#include "../cuda/lists.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int kThreads = 256;    // splats a block looks at, and rows, at a time
constexpr int kPairs = 8 * kThreads;  // pairs a block lists

// Both kernels that ask which tiles a splat meets must hear the same answer. As these are calls, not inlined, they run
// the same instructions and round alike.
template <class T>
__device__ __attribute__((noinline)) void footprint_of(Splats<T> s, int64_t i, Footprint<T>& footprint) {
  footprint = make_footprint(s, i);
}
template <class T>
__device__ __attribute__((noinline)) TileSpan row_of(const Footprint<T>& footprint, int32_t row, int32_t tiles_x) {
  return tiles_in_row(footprint, footprint.top + row, tiles_x);
}

// kThreads splats of a block, and the rows of tiles of all of them in one list.
template <class T>
struct SharedRows {
  Footprint<T> footprints[kThreads];
  int32_t ends[kThreads];  // rows of the splats up to and with this one
  int32_t parts[kThreads / kWarp];

  // Takes up splat i of each thread, if there is one; the number of rows. Ends with a barrier.
  __device__ int32_t fill(const Splats<T>& s, int64_t i, bool is_one) {
    Footprint<T>& mine = footprints[threadIdx.x];
    mine.rows = 0;
    if (is_one) footprint_of(s, i, mine);
    const Scan<int32_t> rows = block_scan<kThreads>(mine.rows, parts);
    ends[threadIdx.x] = rows.before + mine.rows;
    __syncthreads();
    return rows.total;
  }
  // The tiles of a row, and whose of the block's splats they are.
  __device__ TileSpan tiles(int32_t row, int32_t tiles_x, int32_t& owner, int32_t& tile_y) const {
    owner = first_above(ends, kThreads, row);
    const Footprint<T>& footprint = footprints[owner];
    const int32_t nth = row - (ends[owner] - footprint.rows);
    tile_y = footprint.top + nth;
    return row_of(footprint, nth, tiles_x);
  }
};

// offsets[i + 1] = the number of tiles that splat i meets; listed[block] = how many splats of the block meet any.
template <class T>
__global__ void __launch_bounds__(kThreads) count_kernel(Splats<T> s, int64_t total, int64_t* offsets,
                                                         int32_t* listed) {
  __shared__ SharedRows<T> shared;
  __shared__ int32_t counts[kThreads];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  counts[threadIdx.x] = 0;
  const int32_t rows = shared.fill(s, i, i < total);
  for (int32_t row = threadIdx.x; row < rows; row += kThreads) {
    int32_t owner, tile_y;
    const TileSpan tiles = shared.tiles(row, s.tiles_x, owner, tile_y);
    if (tiles.count) atomicAdd(&counts[owner], tiles.count);
  }
  __syncthreads();
  const int32_t count = counts[threadIdx.x];
  if (i < total) offsets[i + 1] = count;
  const int some = __syncthreads_count(count > 0);
  if (threadIdx.x == 0) listed[blockIdx.x] = some;
  if (i == 0) offsets[0] = 0;
}

struct Sizes {
  int64_t pairs, splats;
};

// Lists the splats that meet any tile, in order of their index, with their depths as keys. `listed` and `offsets` are
// summed up.
template <class T>
__global__ void __launch_bounds__(kThreads) list_splats_kernel(const T* depths, int64_t total, const int64_t* offsets,
                                                               const int32_t* listed, T* keys, int32_t* splats,
                                                               Sizes* sizes) {
  __shared__ int32_t parts[kThreads / kWarp];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool is_listed = i < total && offsets[i + 1] > offsets[i];
  const int32_t before = blockIdx.x ? listed[blockIdx.x - 1] : 0;
  const int32_t place = before + block_scan<kThreads>(static_cast<int32_t>(is_listed), parts).before;
  if (is_listed) keys[place] = depths[i], splats[place] = static_cast<int32_t>(i);
  if (i == 0) *sizes = {offsets[total], listed[gridDim.x - 1]};
}

// counts[k] = pairs of the k-th splat by depth.
__global__ void __launch_bounds__(kThreads) count_by_depth_kernel(const int32_t* order, int32_t count,
                                                                  const int64_t* offsets, int32_t* counts) {
  const int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (k < count) counts[k] = static_cast<int32_t>(offsets[order[k] + 1] - offsets[order[k]]);
}

struct PairLists {
  const int32_t* order;    // splats by depth
  const int32_t* ends;     // pairs of the splats by depth up to and with this one
  const int64_t* offsets;  // slots by splat
  int32_t splats, pairs;
  int32_t gaussians, tiles;  // of one camera
  uint32_t* pair_tiles;      // by depth, then by tile
  int32_t* pair_slots;
  int32_t *slot_tiles, *slot_splats;
};

// Lists kPairs pairs per block.
template <class T>
__global__ void __launch_bounds__(kThreads) list_pairs_kernel(Splats<T> s, PairLists lists) {
  __shared__ SharedRows<T> shared;
  __shared__ int32_t splats[kThreads], to_slots[kThreads];  // per splat: its index; from a pair's place to its slot
  __shared__ int32_t starts[kThreads], owners[kThreads], tiles[kThreads];  // per row: first pair, splat, first tile
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * kPairs, end = begin + ::min(kPairs, lists.pairs - begin);
  int32_t k = first_above(lists.ends, lists.splats, begin);
  const int32_t last = first_above(lists.ends, lists.splats, end - 1);
  int32_t at = k ? lists.ends[k - 1] : 0;  // the next row's first pair
  for (; k <= last; k += kThreads) {
    const int32_t mine = k + static_cast<int32_t>(threadIdx.x);
    if (mine <= last) {
      const int32_t i = splats[threadIdx.x] = lists.order[mine];
      to_slots[threadIdx.x] = static_cast<int32_t>(lists.offsets[i + 1]) - lists.ends[mine];
    }
    const int32_t rows = shared.fill(s, mine <= last ? splats[threadIdx.x] : 0, mine <= last);
    for (int32_t first_row = 0; first_row < rows && at < end; first_row += kThreads) {
      const int32_t row = first_row + static_cast<int32_t>(threadIdx.x);
      int32_t width = 0;
      if (row < rows) {
        int32_t owner, tile_y;
        const TileSpan span = shared.tiles(row, s.tiles_x, owner, tile_y);
        width = span.count;
        owners[threadIdx.x] = owner;
        tiles[threadIdx.x] = splats[owner] / lists.gaussians * lists.tiles + tile_y * s.tiles_x + span.first;
      }
      const Scan<int32_t> widths = block_scan<kThreads>(width, shared.parts);
      starts[threadIdx.x] = at + widths.before;
      __syncthreads();
      const int32_t next = at + widths.total, from = ::max(at, begin), many = ::min(next, end) - from;
      for (int32_t nth = threadIdx.x; nth < many; nth += kThreads) {
        const int32_t pair = from + nth;
        const int32_t of = first_above(starts, kThreads, pair) - 1, owner = owners[of];
        const int32_t slot = pair + to_slots[owner], tile = tiles[of] + pair - starts[of];
        lists.pair_tiles[pair] = static_cast<uint32_t>(tile), lists.pair_slots[pair] = slot;
        lists.slot_tiles[slot] = tile, lists.slot_splats[slot] = splats[owner];
      }
      at = next;
      __syncthreads();
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) pair_gaussians_kernel(const int32_t* pair_slots, int32_t pairs,
                                                                  const int32_t* slot_splats, int32_t* gaussians) {
  const int64_t pair = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pair < pairs) gaussians[pair] = slot_splats[pair_slots[pair]];
}

using IntersectResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
IntersectResult run(const IntersectArguments& in) {
  const Splats<T> s = in.splats<T>();
  const int64_t total = in.cameras() * in.gaussians();
  const int64_t tiles = in.tiles_x() * in.tiles_y(), all_tiles = in.cameras() * tiles;
  const Tensor& like = in.means2d;
  const OnDevice device(like);
  const auto shape = [&](int64_t jobs) { return Launch{blocks_for(jobs, kThreads), kThreads, device.stream}; };

  Tensor gaussian_offsets = in.empty(total + 1, ScalarType::Long), tile_offsets = in.empty(all_tiles + 1, ScalarType::Long);
  int64_t* offsets = mutable_data<int64_t>(gaussian_offsets);
  Sizes sizes{0, 0};
  Tensor key_memory = scratch<T>(like, total), splat_memory = scratch<int32_t>(like, total);
  T* keys = mutable_data<T>(key_memory);
  int32_t* splats = mutable_data<int32_t>(splat_memory);
  if (total == 0) {
    torch::stable::zero_(gaussian_offsets);
  } else {
    const int64_t blocks = blocks_for(total, kThreads);
    Tensor listed_memory = scratch<int32_t>(like, blocks), sizes_memory = scratch<Sizes>(like, 1);
    int32_t* listed = mutable_data<int32_t>(listed_memory);
    launch(shape(total), count_kernel<T>, s, total, offsets, listed);
    sum_up(like, offsets + 1, total, device.stream);
    sum_up(like, listed, blocks, device.stream);
    launch(shape(total), list_splats_kernel<T>, s.depths, total, offsets, listed, keys, splats,
           mutable_data<Sizes>(sizes_memory));
    sizes = read_back(data<Sizes>(sizes_memory), device.stream);
  }
  check_pair_count(sizes.pairs);
  const int32_t pairs = static_cast<int32_t>(sizes.pairs), visible = static_cast<int32_t>(sizes.splats);

  Tensor order_memory = scratch<int32_t>(like, visible), ends_memory = scratch<int32_t>(like, visible);
  int32_t *order = mutable_data<int32_t>(order_memory), *ends = mutable_data<int32_t>(ends_memory);
  {
    Tensor sorted_memory = scratch<T>(like, visible);
    sort_by_key(like, keys, mutable_data<T>(sorted_memory), splats, order, visible, 8 * sizeof(T), device.stream);
  }
  launch(shape(visible), count_by_depth_kernel, order, visible, offsets, ends);
  sum_up(like, ends, visible, device.stream);

  Tensor slot_tiles = in.empty(pairs, ScalarType::Int), pair_slots = in.empty(pairs, ScalarType::Int);
  Tensor slot_splats_memory = scratch<int32_t>(like, pairs), by_depth_memory = scratch<int32_t>(like, pairs);
  Tensor tile_memory = scratch<uint32_t>(like, pairs), sorted_memory = scratch<uint32_t>(like, pairs);
  int32_t *slot_splats = mutable_data<int32_t>(slot_splats_memory), *by_depth = mutable_data<int32_t>(by_depth_memory);
  uint32_t *pair_tiles = mutable_data<uint32_t>(tile_memory), *sorted_tiles = mutable_data<uint32_t>(sorted_memory);
  launch({blocks_for(pairs, kPairs), kThreads, device.stream}, list_pairs_kernel<T>, s,
         PairLists{order, ends, offsets, visible, pairs, static_cast<int32_t>(in.gaussians()),
                   static_cast<int32_t>(tiles), pair_tiles, by_depth, mutable_data<int32_t>(slot_tiles), slot_splats});
  sort_by_key(like, pair_tiles, sorted_tiles, by_depth, mutable_data<int32_t>(pair_slots), pairs,
              bits_up_to(all_tiles - 1), device.stream);

  Tensor pair_gaussians = in.empty(pairs, ScalarType::Int);
  find_runs(sorted_tiles, pairs, all_tiles, mutable_data<int64_t>(tile_offsets), device.stream);
  launch(shape(pairs), pair_gaussians_kernel, data<int32_t>(pair_slots), pairs, slot_splats,
         mutable_data<int32_t>(pair_gaussians));
  return {tile_offsets, pair_gaussians, pair_slots, slot_tiles, gaussian_offsets};
}

IntersectResult intersect_cuda(Tensor means2d, Tensor conics, Tensor opacities, Tensor depths, Tensor radii,
                               int64_t width, int64_t height) {
  IntersectArguments in{means2d, conics, opacities, depths, radii, width, height};
  in.check();
  return in.kind.dtype == ScalarType::Double ? run<double>(in) : run<float>(in);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) { m.impl("intersect", TORCH_BOX(&fgs::intersect_cuda)); }
