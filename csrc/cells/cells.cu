// CUDA twin of the cell ops (contract: cells.h). To blend, the entries are first sorted by cell, so that every sum is
// one warp's, in the list's order; the other way the matrix already lists them so.
#include "inputs.h"
#include "row_sums.cuh"

namespace fgs {
namespace {

// go(zero of the dtype of the values, null pointer to what the features are stored in)
template <class Go>
void by_dtype(ScalarType values, ScalarType features, const Go& go) {
  if (values == ScalarType::Double) return go(0.0, static_cast<double*>(nullptr));
  features == ScalarType::Half ? go(0.0f, static_cast<__half*>(nullptr)) : go(0.0f, static_cast<float*>(nullptr));
}

// The Gaussian of an entry; -1 if it is none of `count`.
template <class T>
__device__ __forceinline__ int32_t gaussian_of(const SparseCells<T>& a, int64_t e, int64_t count) {
  const int64_t k = first_above(a.offsets, a.count + 1, e) - 1;
  const int32_t gaussian = k >= 0 && k < a.count ? a.gaussians[k] : -1;
  return gaussian < count ? gaussian : -1;
}

// The matrix's entries with their cells as keys; those outside of it get the key `cells`.
template <class T>
__global__ void __launch_bounds__(kSumThreads) list_entries_kernel(SparseCells<T> a, int64_t entries, int64_t cells,
                                                                   int64_t count, uint32_t* keys, Entry<T>* listed) {
  const int64_t e = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (e >= entries) return;
  const int32_t gaussian = gaussian_of(a, e, count), cell = a.rows[e];
  keys[e] = static_cast<uint32_t>(gaussian >= 0 && cell >= 0 && cell < cells ? cell : cells);
  listed[e] = {gaussian, a.values[e]};
}

// Where the sums of blend_cells go.
template <class T>
struct ToCells {
  T* maps;
  __device__ int64_t row(int64_t cell) const { return cell; }
  template <class Entries>
  __device__ T factor(const Entries&, const Range&) const {
    return T(1);
  }
  template <int V>
  __device__ void put(int64_t at, T, const T (&sum)[V]) const {
    Vector<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) out.at[v] = sum[v];
    *reinterpret_cast<Vector<T, V>*>(maps + at) = out;
  }
};

// Where those of accumulate_cells are added.
template <class T, class S>
struct ToGaussians {
  S* sums;
  const int32_t* gaussians;
  int64_t count;
  T rate, floor;
  __device__ int64_t row(int64_t k) const {
    const int32_t gaussian = gaussians[k];
    return gaussian < count ? gaussian : -1;
  }
  template <class Entries>
  __device__ T factor(const Entries& entries, const Range& range) const {
    if (floor < T(0)) return rate;
    T total = 0;
    for (int64_t e = range.begin + lane_of_warp(); e < range.end; e += kWarp) total += entries[e].weight;
    total = floor + warp_sum(total);
    return total > T(0) ? rate / total : T(0);
  }
  template <int V>
  __device__ void put(int64_t at, T factor, const T (&sum)[V]) const {
    Vector<S, V>& place = *reinterpret_cast<Vector<S, V>*>(sums + at);
    Vector<S, V> out = place;
#pragma unroll
    for (int v = 0; v < V; ++v) store(fma(factor, sum[v], widened(out.at[v])), out.at[v]);
    place = out;
  }
};

Tensor blend_cells_cuda(Tensor features, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t cells) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(features, "features", "[N, C]");
  m.check();
  STD_TORCH_CHECK(cells >= 0 && cells <= std::numeric_limits<int32_t>::max(), "cells must be in [0, 2^31), got ", cells);
  STD_TORCH_CHECK(m.entries() <= std::numeric_limits<int32_t>::max(), m.entries(),
                  " entries are more than 2^31 - 1; render fewer cameras at once or a smaller image");
  features = checked_features(features, "features", m);
  const OnDevice device(features);
  const int64_t N = features.size(0), entries = m.entries();
  const int32_t C = checked_channels(features.size(1));
  Tensor maps = m.empty({cells, C});
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    Tensor sorted_memory = scratch<Entry<T>>(features, entries), starts = scratch<int64_t>(features, cells + 1);
    Entry<T>* sorted = mutable_data<Entry<T>>(sorted_memory);
    {
      Tensor keys = scratch<uint32_t>(features, entries), sorted_keys = scratch<uint32_t>(features, entries);
      Tensor listed = scratch<Entry<T>>(features, entries);
      launch({blocks_for(entries, kSumThreads), kSumThreads, device.stream}, list_entries_kernel<T>, m.view<T>(),
             entries, cells, N, mutable_data<uint32_t>(keys), mutable_data<Entry<T>>(listed));
      sort_by_key(features, data<uint32_t>(keys), mutable_data<uint32_t>(sorted_keys), data<Entry<T>>(listed), sorted,
                  static_cast<int32_t>(entries), bits_up_to(cells), device.stream);
      find_runs(data<uint32_t>(sorted_keys), static_cast<int32_t>(entries), cells, mutable_data<int64_t>(starts),
                device.stream);
    }
    sum_rows(RowSums<T, S, const Entry<T>*>{sorted, entries, data<int64_t>(starts), cells, data<S>(features), N, C},
             ToCells<T>{mutable_data<T>(maps)}, maps, device.stream);
  });
  return maps;
}

void accumulate(const CellMatrix& m, Tensor& sums, const Tensor& maps, double rate, double floor) {
  const OnDevice device(sums);
  by_dtype(m.kind.dtype, sums.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    const SparseCells<T> a = m.view<T>();
    sum_rows(RowSums<T, T, MatrixEntries<T>>{{a.rows, a.values}, m.entries(), a.offsets, a.count, data<T>(maps),
                                             maps.size(0), checked_channels(maps.size(1))},
             ToGaussians<T, S>{mutable_data<S>(sums), a.gaussians, sums.size(0), static_cast<T>(rate),
                               static_cast<T>(floor)},
             sums, device.stream);
  });
}

Tensor gather_cells_cuda(Tensor maps, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t count) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(maps, "maps", "[cells, C]");
  STD_TORCH_CHECK(count >= 0, "count must be at least 0, got ", count);
  m.check();
  maps = checked_maps(maps, m);
  Tensor sums = m.empty({count, maps.size(1)});
  torch::stable::zero_(sums);
  accumulate(m, sums, maps, 1.0, -1.0);
  return sums;
}

void accumulate_cells_cuda(Tensor sums, Tensor maps, double rate, double floor, Tensor values, Tensor gaussians,
                           Tensor offsets, Tensor rows) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(maps, "maps", "[cells, C]");
  check_shape(sums, "sums", {kAny, maps.size(1)}, "[N, C]");
  m.check();
  maps = checked_maps(maps, m);
  STD_TORCH_CHECK(sums.is_contiguous(), "sums must be contiguous");
  sums = checked_features(sums, "sums", m);
  accumulate(m, sums, maps, rate, floor);
}

template <class T, class S>
struct Products {
  SparseCells<T> matrix;  // without values
  int64_t entries;
  const S* features;  // [count, channels]
  const T* maps;      // [cells, channels]
  int64_t count, cells;
  int32_t channels, lanes;  // lanes that share an entry
  T* out;
};

// A warp takes 32 entries, one after the other or, with few channels, several at once.
template <int V, class T, class S>
__global__ void __launch_bounds__(kSumThreads) products_kernel(Products<T, S> p) {
  const int64_t first = (int64_t{blockIdx.x} * kSumWarps + warp_of_block()) * kWarp;
  if (first >= p.entries) return;
  const int lane = lane_of_warp(), groups = kWarp / p.lanes;
  const int64_t e = first + lane;
  int32_t gaussian = -1, cell = -1;
  if (e < p.entries) {
    gaussian = gaussian_of(p.matrix, e, p.count), cell = p.matrix.rows[e];
    if (cell < 0 || cell >= p.cells) gaussian = -1;
  }
  T mine = 0;
  for (int k = 0; k < kWarp && first + k < p.entries; k += groups) {
    const int from = k + lane / p.lanes;
    const int32_t of = __shfl_sync(kAllLanes, gaussian, from), in = __shfl_sync(kAllLanes, cell, from);
    T product = 0;
    if (of >= 0) {
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
  if (e < p.entries) p.out[e] = mine;
}

Tensor cell_products_cuda(Tensor features, Tensor maps, Tensor gaussians, Tensor offsets, Tensor rows) {
  check_rows(features, "features", "[N, C]");
  check_shape(maps, "maps", {kAny, features.size(1)}, "[cells, C]");
  Tensor products = torch::stable::new_empty(maps, {rows.numel()}, floating_dtype(maps, "maps"));
  CellMatrix m{products, gaussians, offsets, rows};
  m.check();
  features = checked_features(features, "features", m);
  maps = checked_maps(maps, m);
  const OnDevice device(maps);
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    const int32_t C = checked_channels(maps.size(1));
    const bool fours = can_read_fours<T>(C, features.const_data_ptr(), maps.const_data_ptr());
    const Products<T, S> p{m.view<T>(),    m.entries(),  data<S>(features), data<T>(maps),
                           features.size(0), maps.size(0), C,
                           lanes_for(fours ? C / 4 : C), mutable_data<T>(products)};
    const Launch shape{blocks_for(m.entries(), kSumThreads), kSumThreads, device.stream};
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
