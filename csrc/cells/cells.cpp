// CPU twin of the cell ops (contract: cells.h).
#include <algorithm>
#include <type_traits>

#include "../simd/kernels.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 256;

// go(zero of the dtype of the values, null pointer to what the features are stored in)
template <class Go>
void by_dtype(ScalarType values, ScalarType features, const Go& go) {
  if (values == ScalarType::Double) return go(0.0, static_cast<double*>(nullptr));
  features == ScalarType::Half ? go(0.0f, static_cast<Half*>(nullptr)) : go(0.0f, static_cast<float*>(nullptr));
}

Tensor blend_cells_cpu(Tensor features, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t cells) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(features, "features", "[N, C]");
  STD_TORCH_CHECK(cells >= 0, "cells must be at least 0, got ", cells);
  m.check();
  m.check_lists(cells, features.size(0));
  features = checked_features(features, "features", m);
  const int64_t C = features.size(1);
  Tensor maps = m.empty({cells, C});
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    // Threads take different channels, so that they never meet; whole cache lines each.
    const int64_t threads = torch::stable::get_num_threads(), share = (C + threads - 1) / threads;
    const int64_t slice = (share + 15) / 16 * 16, slices = (C + slice - 1) / slice;
    torch::stable::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin * slice; c < std::min(end * slice, C); c += slice)
        kernels(zero).of(stored).blend(m.view<T>(), data<S>(features), mutable_data<T>(maps), cells, C, c,
                                       std::min(slice, C - c));
    });
  });
  return maps;
}

void accumulate(const CellMatrix& m, Tensor& sums, const Tensor& maps, double rate, double floor) {
  by_dtype(m.kind.dtype, sums.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    torch::stable::parallel_for(0, m.gaussians.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).of(stored).accumulate(m.view<T>(), data<T>(maps), mutable_data<S>(sums), static_cast<T>(rate),
                                          static_cast<T>(floor), maps.size(1), begin, end);
    });
  });
}

Tensor gather_cells_cpu(Tensor maps, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t count) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(maps, "maps", "[cells, C]");
  STD_TORCH_CHECK(count >= 0, "count must be at least 0, got ", count);
  m.check();
  m.check_lists(maps.size(0), count);
  maps = checked_maps(maps, m);
  Tensor sums = m.empty({count, maps.size(1)});
  torch::stable::fill_(sums, 0.0);
  accumulate(m, sums, maps, 1.0, -1.0);
  return sums;
}

void accumulate_cells_cpu(Tensor sums, Tensor maps, double rate, double floor, Tensor values, Tensor gaussians,
                          Tensor offsets, Tensor rows) {
  CellMatrix m{values, gaussians, offsets, rows};
  check_rows(maps, "maps", "[cells, C]");
  check_shape(sums, "sums", {kAny, maps.size(1)}, "[N, C]");
  m.check();
  m.check_lists(maps.size(0), sums.size(0));
  maps = checked_maps(maps, m);
  STD_TORCH_CHECK(sums.is_contiguous(), "sums must be contiguous");
  sums = checked_features(sums, "sums", m);
  accumulate(m, sums, maps, rate, floor);
}

Tensor cell_products_cpu(Tensor features, Tensor maps, Tensor gaussians, Tensor offsets, Tensor rows) {
  check_rows(features, "features", "[N, C]");
  check_shape(maps, "maps", {kAny, features.size(1)}, "[cells, C]");
  Tensor products = torch::stable::new_empty(maps, {rows.numel()}, floating_dtype(maps, "maps"));
  CellMatrix m{products, gaussians, offsets, rows};
  m.check();
  m.check_lists(maps.size(0), features.size(0));
  features = checked_features(features, "features", m);
  maps = checked_maps(maps, m);
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    torch::stable::parallel_for(0, m.gaussians.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).of(stored).products(m.view<T>(), data<S>(features), data<T>(maps), mutable_data<T>(products),
                                        features.size(1), begin, end);
    });
  });
  return products;
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("blend_cells", TORCH_BOX(&fgs::blend_cells_cpu));
  m.impl("gather_cells", TORCH_BOX(&fgs::gather_cells_cpu));
  m.impl("accumulate_cells", TORCH_BOX(&fgs::accumulate_cells_cpu));
  m.impl("cell_products", TORCH_BOX(&fgs::cell_products_cpu));
}
