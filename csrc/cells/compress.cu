// CUDA twin of compress_cells (contract: cells.h). Weights are counted, then listed, as one long row of numbers, so that
// every thread has the same share of them, however many belong to one Gaussian.
#include <tuple>

#include "../cuda/block.h"
#include "../cuda/lists.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int kThreads = 256, kRounds = 8;
constexpr int kNumbers = kRounds * kThreads;  // weights a block looks at; its counts of them fit 16 bits

// Up to and with a Gaussian: entries, and Gaussians that have any; how many lists were found to lead outside memory.
struct Tally {
  int64_t entries;
  int32_t listed, broken;
  __host__ __device__ Tally operator+(const Tally& other) const {
    return {entries + other.entries, listed + other.listed, broken + other.broken};
  }
};

template <class T>
struct Compress {
  const T* weights;           // [slots * cells_per_tile]
  const int32_t* slot_tiles;  // [slots]
  const int64_t* offsets;     // [batch * gaussians + 1]
  int64_t slots, numbers;     // numbers = slots * cells_per_tile
  int32_t batch, gaussians, cells_per_tile, across, tiles, tiles_x, cells_x, cells_y;
  int64_t* upto;       // entries of the blocks of numbers up to and with each
  uint16_t* in_block;  // [slots]: entries of the block before the slot's
  int32_t* broken;
  Tally* tallies;      // [gaussians]
  int64_t* shifts;     // [batch * gaussians]: from the order of the slots to that of the Gaussians; of one view none

  // Entries before a slot, in the order of the slots.
  __device__ int64_t entries_before(int64_t slot) const {
    const int64_t block = slot * cells_per_tile / kNumbers;
    return slot < slots ? (block ? upto[block - 1] : 0) + in_block[slot] : upto[(numbers - 1) / kNumbers];
  }
  // Those of one Gaussian in one view. Offsets that lead outside of memory are noted, not followed.
  __device__ int64_t entries_of(int64_t i, bool& is_broken) const {
    const int64_t begin = offsets[i], end = offsets[i + 1];
    is_broken = begin < 0 || end < begin || end > slots;
    return is_broken ? 0 : entries_before(end) - entries_before(begin);
  }
  // The view and Gaussian of a slot.
  __device__ int64_t owner(int64_t slot) const {
    return first_above(offsets, int64_t{batch} * gaussians + 1, slot) - 1;
  }
  __device__ int32_t cell(int64_t slot, int32_t c) const {
    const int32_t tile = slot_tiles[slot], view = tile / tiles, in_view = tile % tiles;
    const int32_t y = in_view / tiles_x * across + c / across, x = in_view % tiles_x * across + c % across;
    return (view * cells_y + y) * cells_x + x;
  }
};

// The kRounds numbers of a thread, a warp's side by side in each round: which of them are entries.
struct Found {
  uint32_t lanes[kRounds];  // a bit per lane
  int32_t before;           // entries of the block's earlier warps
  int32_t total;            // of the block
};

__device__ __forceinline__ int64_t number_of(int round) {
  return int64_t{blockIdx.x} * kNumbers + warp_of_block() * (kRounds * kWarp) + round * kWarp + lane_of_warp();
}

template <class T>
__device__ __forceinline__ Found find_entries(const Compress<T>& c, int32_t (&parts)[kThreads / kWarp]) {
  Found found;
  T weights[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) weights[r] = number_of(r) < c.numbers ? c.weights[number_of(r)] : T(0);
  int32_t count = 0;
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    found.lanes[r] = __ballot_sync(kAllLanes, weights[r] != T(0));
    count += __popc(found.lanes[r]);
  }
  const Scan<int32_t> scan = block_scan<kThreads>(lane_of_warp() == 0 ? count : 0, parts);
  found.before = __shfl_sync(kAllLanes, scan.before, 0);
  found.total = scan.total;
  return found;
}

// Counts the entries of each block, and those before each slot within its block.
template <class T>
__global__ void __launch_bounds__(kThreads) count_weights_kernel(Compress<T> c) {
  __shared__ int32_t parts[kThreads / kWarp];
  const Found found = find_entries(c, parts);
  int32_t before = found.before;
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int64_t number = number_of(r), slot = number / c.cells_per_tile;
    if (number < c.numbers && number % c.cells_per_tile == 0) {
      c.in_block[slot] = static_cast<uint16_t>(before + __popc(found.lanes[r] & ((1u << lane_of_warp()) - 1)));
      const int32_t tile = c.slot_tiles[slot];
      const int64_t view = c.batch > 1 ? c.owner(slot) / c.gaussians : 0;
      if (tile < view * c.tiles || tile >= (view + 1) * c.tiles) atomicMax(c.broken, 1);
    }
    before += __popc(found.lanes[r]);
  }
  if (threadIdx.x == 0) c.upto[blockIdx.x] = found.total;
}

template <class T>
__global__ void __launch_bounds__(kThreads) count_gaussians_kernel(Compress<T> c) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n >= c.gaussians) return;
  Tally tally{0, 0, n == 0 ? *c.broken : 0};
  for (int64_t i = n; i < int64_t{c.batch} * c.gaussians; i += c.gaussians) {
    bool is_broken;
    tally.entries += c.entries_of(i, is_broken);
    tally.broken |= is_broken;
  }
  if (n == 0 && (c.offsets[0] != 0 || c.offsets[int64_t{c.batch} * c.gaussians] != c.slots)) tally.broken = 1;
  tally.listed = tally.entries > 0;
  c.tallies[n] = tally;
}

template <class T>
__global__ void __launch_bounds__(kThreads) list_gaussians_kernel(Compress<T> c, int32_t* gaussians, int64_t* offsets) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n >= c.gaussians) return;
  const Tally before = n ? c.tallies[n - 1] : Tally{0, 0, 0}, upto = c.tallies[n];
  if (upto.listed > before.listed) gaussians[before.listed] = static_cast<int32_t>(n), offsets[before.listed] = before.entries;
  if (n == c.gaussians - 1) offsets[upto.listed] = upto.entries;
  if (c.batch == 1) return;
  int64_t at = before.entries;
  for (int64_t i = n; i < int64_t{c.batch} * c.gaussians; i += c.gaussians) {
    bool is_broken;
    c.shifts[i] = at - c.entries_before(c.offsets[i]);
    at += c.entries_of(i, is_broken);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) list_weights_kernel(Compress<T> c, int32_t* rows, int64_t* places) {
  __shared__ int32_t parts[kThreads / kWarp];
  const Found found = find_entries(c, parts);
  int64_t before = found.before + (blockIdx.x ? c.upto[blockIdx.x - 1] : 0);
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int64_t number = number_of(r), slot = number / c.cells_per_tile;
    if (found.lanes[r] >> lane_of_warp() & 1u) {
      int64_t at = before + __popc(found.lanes[r] & ((1u << lane_of_warp()) - 1));
      if (c.batch > 1) at += c.shifts[c.owner(slot)];
      rows[at] = c.cell(slot, static_cast<int32_t>(number % c.cells_per_tile));
      places[at] = number;
    }
    before += __popc(found.lanes[r]);
  }
}

using CompressResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class T>
CompressResult compress(const SlotWeights& in) {
  const int64_t slots = in.slots(), numbers = slots * in.cells_per_tile(), N = in.gaussians();
  const OnDevice device(in.weights);
  const Tensor& like = in.weights;
  const int64_t blocks = blocks_for(numbers, kNumbers);
  Tensor upto = scratch<int64_t>(like, blocks), in_block = scratch<uint16_t>(like, slots);
  Tensor broken = scratch<int32_t>(like, 1), tallies = scratch<Tally>(like, N);
  Tensor shifts = scratch<int64_t>(like, in.batch > 1 ? in.batch * N : 0);
  const auto number = [](int64_t n) { return static_cast<int32_t>(n); };
  const Compress<T> c{data<T>(in.weights),
                      data<int32_t>(in.slot_tiles),
                      data<int64_t>(in.gaussian_offsets),
                      slots,
                      numbers,
                      number(in.batch),
                      number(N),
                      number(in.cells_per_tile()),
                      number(kTile / in.cell),
                      number(in.tiles()),
                      number(in.tiles_x()),
                      number(in.cells_x()),
                      number(in.cells_y()),
                      mutable_data<int64_t>(upto),
                      mutable_data<uint16_t>(in_block),
                      mutable_data<int32_t>(broken),
                      mutable_data<Tally>(tallies),
                      mutable_data<int64_t>(shifts)};
  const Launch by_number{static_cast<unsigned>(blocks), kThreads, device.stream};
  const Launch by_gaussian{blocks_for(N, kThreads), kThreads, device.stream};
  Tally all{0, 0, slots > 0};  // without Gaussians there must not be slots
  if (N > 0 && slots > 0) {
    torch::stable::zero_(broken);
    launch(by_number, count_weights_kernel<T>, c);
    sum_up(like, c.upto, blocks, device.stream);
    launch(by_gaussian, count_gaussians_kernel<T>, c);
    sum_up(like, c.tallies, N, device.stream);
    all = read_back(c.tallies + N - 1, device.stream);
  }
  STD_TORCH_CHECK(!all.broken, "gaussian_offsets must rise from 0 to P = ", slots,
                  ", and slot_tiles must lie in [b * tiles, (b + 1) * tiles) for the Gaussians of image b");

  Tensor gaussians = in.empty(all.listed, ScalarType::Int), offsets = in.empty(all.listed + 1, ScalarType::Long);
  Tensor rows = in.empty(all.entries, ScalarType::Int), places = in.empty(all.entries, ScalarType::Long);
  if (all.entries == 0) {
    torch::stable::zero_(offsets);
  } else {
    launch(by_gaussian, list_gaussians_kernel<T>, c, mutable_data<int32_t>(gaussians), mutable_data<int64_t>(offsets));
    launch(by_number, list_weights_kernel<T>, c, mutable_data<int32_t>(rows), mutable_data<int64_t>(places));
  }
  return {gaussians, offsets, rows, places};
}

CompressResult compress_cells_cuda(Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets, int64_t batch,
                                   int64_t width, int64_t height, int64_t cell) {
  SlotWeights in{weights, slot_tiles, gaussian_offsets, batch, width, height, cell};
  in.check();
  return in.kind.dtype == ScalarType::Double ? compress<double>(in) : compress<float>(in);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) { m.impl("compress_cells", TORCH_BOX(&fgs::compress_cells_cuda)); }
