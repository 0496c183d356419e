// CUDA twin of the cell ops (contract: cells.h). Blending goes through the lists of intersect by tile, the other way
// through those by Gaussian, so that every sum is one warp's, in the list's order; nothing is listed, sorted or waited
// for.
#include "inputs.h"
#include "row_sums.cuh"

namespace fgs {
namespace {

// go(zero of the dtype of the weights, null pointer to what the features are stored in)
template <class Go>
void by_dtype(ScalarType weights, ScalarType features, const Go& go) {
  if (weights == ScalarType::Double) return go(0.0, static_cast<double*>(nullptr));
  features == ScalarType::Half ? go(0.0f, static_cast<__half*>(nullptr)) : go(0.0f, static_cast<float*>(nullptr));
}

// Sums as they are.
template <class T>
struct Store {
  T* to;
  __device__ bool wants(const Seen<T>&) const { return true; }
  template <int V>
  __device__ void put(int64_t at, T, const T (&sum)[V]) const {
    Vector<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) out.at[v] = sum[v];
    *reinterpret_cast<Vector<T, V>*>(to + at) = out;
  }
};

// Adds `rate` times the sums, divided by floor + Σ weights if floor >= 0; what nothing is added to is not touched.
template <class T, class S>
struct AddTo {
  S* to;
  T rate, floor;
  __device__ bool wants(const Seen<T>& seen) const { return seen.entries > 0; }
  template <int V>
  __device__ void put(int64_t at, T total, const T (&sum)[V]) const {
    const T factor = floor < T(0) ? rate : floor + total > T(0) ? rate / (floor + total) : T(0);
    Vector<S, V>& place = *reinterpret_cast<Vector<S, V>*>(to + at);
    Vector<S, V> out = place;
#pragma unroll
    for (int v = 0; v < V; ++v) store(fma(factor, sum[v], widened(out.at[v])), out.at[v]);
    place = out;
  }
};

Tensor blend_cells_cuda(Tensor features, Tensor weights, Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots,
                        Tensor slot_tiles, Tensor gaussian_offsets, int64_t batch, int64_t rows, int64_t columns) {
  check_features(features, "features");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, batch, rows, columns, features.size(0)};
  m.check();
  TilePairs pairs{tile_offsets, pair_gaussians, pair_slots};
  pairs.check(m);
  features = checked_features(features, "features", m);
  const OnDevice device(features);
  const int32_t C = checked_channels(features.size(1));
  Tensor maps = m.empty({batch, rows, columns, C});
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    const TileLists<T> lists{data<T>(m.weights),
                             data<int64_t>(pairs.tile_offsets),
                             data<int32_t>(pairs.pair_gaussians),
                             data<int32_t>(pairs.pair_slots),
                             m.slots(),
                             m.count,
                             m.grid()};
    sum_rows(RowSums<T, S, TileLists<T>>{lists, data<S>(features), C}, Store<T>{mutable_data<T>(maps)}, maps,
             device.stream);
  });
  return maps;
}

// What gather_cells and accumulate_cells sum up.
template <class T>
RowSums<T, T, GaussianLists<T>> by_gaussian(const CellMatrix& m, const Tensor& maps) {
  return {{m.view<T>()}, data<T>(maps), checked_channels(maps.size(3))};
}

Tensor gather_cells_cuda(Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets, int64_t count) {
  check_maps(maps);
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), count};
  m.check();
  maps = checked_maps(maps, m);
  const OnDevice device(maps);
  Tensor sums = m.empty({count, maps.size(3)});
  by_dtype(m.kind.dtype, m.kind.dtype, [&](auto zero, auto*) {
    using T = decltype(zero);
    sum_rows(by_gaussian<T>(m, maps), Store<T>{mutable_data<T>(sums)}, sums, device.stream);
  });
  return sums;
}

void accumulate_cells_cuda(Tensor sums, Tensor maps, double rate, double floor, Tensor weights, Tensor slot_tiles,
                           Tensor gaussian_offsets) {
  check_maps(maps);
  check_shape(sums, "sums", {kAny, maps.size(3)}, "[N, C]");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), sums.size(0)};
  m.check();
  maps = checked_maps(maps, m);
  STD_TORCH_CHECK(sums.is_contiguous(), "sums must be contiguous");
  sums = checked_features(sums, "sums", m);
  const OnDevice device(sums);
  by_dtype(m.kind.dtype, sums.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    sum_rows(by_gaussian<T>(m, maps),
             AddTo<T, S>{mutable_data<S>(sums), static_cast<T>(rate), static_cast<T>(floor)}, sums, device.stream);
  });
}

template <class T, class S>
struct Products {
  GaussianLists<T> lists;
  const S* features;        // [count, channels]
  const T* maps;            // [cells, channels]
  int32_t channels, lanes;  // lanes that share an entry
  T* out;                   // [slots, per_tile]
};

// A warp takes 32 entries, one after the other or, with few channels, several at once.
template <int V, class T, class S>
__global__ void __launch_bounds__(kSumThreads) products_kernel(Products<T, S> p) {
  const int64_t entries = p.lists.a.slots << p.lists.entries_bits();
  const int64_t first = (int64_t{blockIdx.x} * kSumWarps + warp_of_block()) * kWarp;
  if (first >= entries) return;
  const int lane = lane_of_warp(), groups = kWarp / p.lanes;
  const int64_t e = first + lane;
  int32_t gaussian = -1, cell = -1;
  if (e < entries && p.lists.a.weights[e] != T(0)) {
    const int64_t owner = p.lists.owner(e >> p.lists.entries_bits());
    if (owner >= 0) {
      const int32_t view = static_cast<int32_t>(owner / p.lists.a.count);
      gaussian = static_cast<int32_t>(owner - view * p.lists.a.count);
      cell = p.lists.entry(gaussian, view, e).row;
    }
  }
  const unsigned ones = __ballot_sync(kAllLanes, cell >= 0);
  T mine = 0;
  for (int k = 0; k < kWarp; k += groups) {
    if (ones >> k << (kWarp - groups) == 0) continue;
    const int from = k + lane / p.lanes;
    const int32_t of = __shfl_sync(kAllLanes, gaussian, from), in = __shfl_sync(kAllLanes, cell, from);
    T product = 0;
    if (in >= 0) {
      const S* feature = p.features + int64_t{of} * p.channels;
      const T* map = p.maps + int64_t{in} * p.channels;
#pragma unroll 4
      for (int32_t c = (lane & (p.lanes - 1)) * V; c < p.channels; c += p.lanes * V) {
        const auto a = *reinterpret_cast<const Vector<S, V>*>(feature + c);
        const auto b = *reinterpret_cast<const Vector<T, V>*>(map + c);
#pragma unroll
        for (int v = 0; v < V; ++v) product = fma(widened(a.at[v]), b.at[v], product);
      }
    }
    for (int step = p.lanes / 2; step > 0; step /= 2) product += __shfl_xor_sync(kAllLanes, product, step);
    const T answer = __shfl_sync(kAllLanes, product, (lane & (groups - 1)) * p.lanes);
    if (lane >= k && lane < k + groups) mine = answer;
  }
  if (e < entries) p.out[e] = mine;
}

Tensor cell_products_cuda(Tensor features, Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets) {
  check_maps(maps);
  check_shape(features, "features", {kAny, maps.size(3)}, "[N, C]");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), features.size(0)};
  m.check();
  features = checked_features(features, "features", m);
  maps = checked_maps(maps, m);
  const OnDevice device(maps);
  Tensor products = m.empty({m.slots(), m.per_tile()});
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    const int32_t C = checked_channels(maps.size(3));
    const bool fours = can_read_fours<T>(C, features.const_data_ptr(), maps.const_data_ptr());
    const Products<T, S> p{{m.view<T>()}, data<S>(features), data<T>(maps), C, lanes_for(fours ? C / 4 : C),
                           mutable_data<T>(products)};
    const Launch shape{blocks_for(products.numel(), kSumThreads), kSumThreads, device.stream};
    if constexpr (sizeof(T) == 4)
      if (fours) return launch(shape, products_kernel<4, T, S>, p);
    launch(shape, products_kernel<1, T, S>, p);
  });
  return products;
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) {
  m.impl("blend_cells", TORCH_BOX(&fgs::blend_cells_cuda));
  m.impl("gather_cells", TORCH_BOX(&fgs::gather_cells_cuda));
  m.impl("accumulate_cells", TORCH_BOX(&fgs::accumulate_cells_cuda));
  m.impl("cell_products", TORCH_BOX(&fgs::cell_products_cuda));
}
