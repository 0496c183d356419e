// CPU twin of the cell ops (contract: cells.h).
#include "cells.h"

#include <algorithm>
#include <optional>

#include "../intersect/lists.h"
#include "../simd/kernels.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 256;

// The matrix as its user hands it over, checked: the lists index memory.
struct CellMatrix {
  Tensor values, gaussians, offsets, rows;
  ScalarType dtype = ScalarType::Float;

  // cells and count: how many cells and Gaussians there are.
  void check(int64_t cells, int64_t count) {
    const int64_t entries = rows.numel(), listed = gaussians.numel();
    dtype = floating_dtype(values, "values");
    values = checked(values, "values", dtype, {entries}, "[E]");
    rows = checked(rows, "rows", ScalarType::Int, {entries}, "[E]");
    gaussians = checked(gaussians, "gaussians", ScalarType::Int, {listed}, "[K]");
    offsets = checked(offsets, "offsets", ScalarType::Long, {listed + 1}, "[K + 1]");
    check_offsets(offsets, "offsets", entries, "E");
    check_indices(rows, "rows", cells, "cells");
    check_indices(gaussians, "gaussians", count, "N");
  }
  template <class T>
  SparseCells<T> view() const {
    return {gaussians.numel(), data<int32_t>(gaussians), data<int64_t>(offsets), data<int32_t>(rows),
            data<T>(values)};
  }
};

Tensor checked_rows(const Tensor& t, const char* name, const char* layout) {
  check_shape(t, name, {kAny, kAny}, layout);
  STD_TORCH_CHECK(t.size(1) >= 1, name, " must have at least one channel, got ", shape_text(t));
  return checked(t, name, floating_dtype(t, name), {t.size(0), t.size(1)}, layout);
}

void check_same(const Tensor& t, const char* name, const CellMatrix& m) {
  STD_TORCH_CHECK(t.scalar_type() == m.dtype, name, " must have the dtype of values (",
                  torch::headeronly::toString(m.dtype), "), got ", torch::headeronly::toString(t.scalar_type()));
}

template <class Go>
void by_dtype(ScalarType dtype, const Go& go) {
  dtype == ScalarType::Double ? go(0.0) : go(0.0f);
}

Tensor blend_cells_cpu(Tensor features, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t cells) {
  CellMatrix m{values, gaussians, offsets, rows};
  features = checked_rows(features, "features", "[N, C]");
  STD_TORCH_CHECK(cells >= 0, "cells must be at least 0, got ", cells);
  m.check(cells, features.size(0));
  check_same(features, "features", m);
  const int64_t C = features.size(1);
  Tensor maps = torch::stable::empty({cells, C}, m.dtype);
  by_dtype(m.dtype, [&](auto zero) {
    using T = decltype(zero);
    // Threads take different channels, so that they never meet; whole cache lines each.
    const int64_t threads = torch::stable::get_num_threads(), share = (C + threads - 1) / threads;
    const int64_t slice = (share + 15) / 16 * 16, slices = (C + slice - 1) / slice;
    torch::stable::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin * slice; c < std::min(end * slice, C); c += slice)
        kernels(zero).blend_cells(m.view<T>(), data<T>(features), mutable_data<T>(maps), cells, C, c,
                                  std::min(slice, C - c));
    });
  });
  return maps;
}

void accumulate(const CellMatrix& m, Tensor& sums, const Tensor& maps, const std::optional<Tensor>& rates) {
  by_dtype(m.dtype, [&](auto zero) {
    using T = decltype(zero);
    torch::stable::parallel_for(0, m.gaussians.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).accumulate_cells(m.view<T>(), data<T>(maps), data<T>(rates), mutable_data<T>(sums), maps.size(1),
                                     begin, end);
    });
  });
}

Tensor gather_cells_cpu(Tensor maps, Tensor values, Tensor gaussians, Tensor offsets, Tensor rows, int64_t count) {
  CellMatrix m{values, gaussians, offsets, rows};
  maps = checked_rows(maps, "maps", "[cells, C]");
  STD_TORCH_CHECK(count >= 0, "count must be at least 0, got ", count);
  m.check(maps.size(0), count);
  check_same(maps, "maps", m);
  Tensor sums = torch::stable::empty({count, maps.size(1)}, m.dtype);
  torch::stable::fill_(sums, 0.0);
  accumulate(m, sums, maps, std::nullopt);
  return sums;
}

void accumulate_cells_cpu(Tensor sums, Tensor maps, std::optional<Tensor> rates, Tensor values, Tensor gaussians,
                          Tensor offsets, Tensor rows) {
  CellMatrix m{values, gaussians, offsets, rows};
  maps = checked_rows(maps, "maps", "[cells, C]");
  check_shape(sums, "sums", {kAny, maps.size(1)}, "[N, C]");
  m.check(maps.size(0), sums.size(0));
  check_same(maps, "maps", m);
  check_cpu(sums, "sums");
  check_same(sums, "sums", m);
  STD_TORCH_CHECK(sums.is_contiguous(), "sums must be contiguous");
  if (rates) rates = checked(*rates, "rates", m.dtype, {sums.size(0)}, "[N]");
  accumulate(m, sums, maps, rates);
}

Tensor cell_products_cpu(Tensor features, Tensor maps, Tensor gaussians, Tensor offsets, Tensor rows) {
  features = checked_rows(features, "features", "[N, C]");
  check_shape(maps, "maps", {kAny, features.size(1)}, "[cells, C]");
  maps = checked_rows(maps, "maps", "[cells, C]");
  Tensor products = torch::stable::empty({rows.numel()}, features.scalar_type());
  CellMatrix m{products, gaussians, offsets, rows};
  m.check(maps.size(0), features.size(0));
  check_same(maps, "maps", m);
  by_dtype(m.dtype, [&](auto zero) {
    using T = decltype(zero);
    torch::stable::parallel_for(0, m.gaussians.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).cell_products(m.view<T>(), data<T>(features), data<T>(maps), mutable_data<T>(products),
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
