// CPU twin of the cell ops (contract: cells.h).
#include <algorithm>
#include <type_traits>
#include <vector>

#include "../simd/kernels.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 256;

// go(zero of the dtype of the weights, null pointer to what the features are stored in)
template <class Go>
void by_dtype(ScalarType weights, ScalarType features, const Go& go) {
  if (weights == ScalarType::Double) return go(0.0, static_cast<double*>(nullptr));
  features == ScalarType::Half ? go(0.0f, static_cast<Half*>(nullptr)) : go(0.0f, static_cast<float*>(nullptr));
}

// The cells of every tile of every view.
std::vector<TileCells> cells_of_tiles(const CellGrid& grid) {
  std::vector<TileCells> tiles;
  tiles.reserve(static_cast<size_t>(grid.views) * static_cast<size_t>(grid.tiles));
  for (int32_t view = 0; view < grid.views; ++view)
    for (int32_t y = 0; y < grid.rows; y += grid.across())
      for (int32_t x = 0; x < grid.columns; x += grid.across()) {
        const uint32_t line = (1u << std::min(grid.across(), grid.columns - x)) - 1;
        uint32_t inside = 0;
        for (int32_t i = 0; i < std::min(grid.across(), grid.rows - y); ++i) inside |= line << i * grid.across();
        tiles.push_back({(view * grid.rows + y) * grid.columns + x, inside});
      }
  return tiles;
}

Tensor blend_cells_cpu(Tensor features, Tensor weights, Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots,
                       Tensor slot_tiles, Tensor gaussian_offsets, int64_t batch, int64_t rows, int64_t columns) {
  check_features(features, "features");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, batch, rows, columns, features.size(0)};
  m.check();
  TilePairs{tile_offsets, pair_gaussians, pair_slots}.check(m);
  m.check_lists();
  features = checked_features(features, "features", m);
  const int64_t C = features.size(1);
  Tensor maps = m.empty({batch, rows, columns, C});
  const std::vector<TileCells> tiles = cells_of_tiles(m.grid());
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    // Threads take different channels, so that they never meet; whole cache lines each.
    const int64_t threads = torch::stable::get_num_threads(), share = (C + threads - 1) / threads;
    const int64_t slice = (share + 15) / 16 * 16, slices = (C + slice - 1) / slice;
    torch::stable::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin * slice; c < std::min(end * slice, C); c += slice)
        kernels(zero).of(stored).blend(m.view<T>(), tiles.data(), data<S>(features), mutable_data<T>(maps), C, c,
                                       std::min(slice, C - c));
    });
  });
  return maps;
}

void accumulate(const CellMatrix& m, Tensor& sums, const Tensor& maps, double rate, double floor) {
  const std::vector<TileCells> tiles = cells_of_tiles(m.grid());
  by_dtype(m.kind.dtype, sums.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    torch::stable::parallel_for(0, m.count, kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).of(stored).accumulate(m.view<T>(), tiles.data(), data<T>(maps), mutable_data<S>(sums),
                                          static_cast<T>(rate), static_cast<T>(floor), maps.size(3), begin, end);
    });
  });
}

Tensor gather_cells_cpu(Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets, int64_t count) {
  check_maps(maps);
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), count};
  m.check();
  m.check_lists();
  maps = checked_maps(maps, m);
  Tensor sums = m.empty({count, maps.size(3)});
  torch::stable::fill_(sums, 0.0);
  accumulate(m, sums, maps, 1.0, -1.0);
  return sums;
}

void accumulate_cells_cpu(Tensor sums, Tensor maps, double rate, double floor, Tensor weights, Tensor slot_tiles,
                          Tensor gaussian_offsets) {
  check_maps(maps);
  check_shape(sums, "sums", {kAny, maps.size(3)}, "[N, C]");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), sums.size(0)};
  m.check();
  m.check_lists();
  maps = checked_maps(maps, m);
  STD_TORCH_CHECK(sums.is_contiguous(), "sums must be contiguous");
  sums = checked_features(sums, "sums", m);
  accumulate(m, sums, maps, rate, floor);
}

Tensor cell_products_cpu(Tensor features, Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets) {
  check_maps(maps);
  check_shape(features, "features", {kAny, maps.size(3)}, "[N, C]");
  CellMatrix m{weights, slot_tiles, gaussian_offsets, maps.size(0), maps.size(1), maps.size(2), features.size(0)};
  m.check();
  m.check_lists();
  features = checked_features(features, "features", m);
  maps = checked_maps(maps, m);
  Tensor products = m.empty({m.slots(), m.per_tile()});
  const std::vector<TileCells> tiles = cells_of_tiles(m.grid());
  by_dtype(m.kind.dtype, features.scalar_type(), [&](auto zero, auto* stored) {
    using T = decltype(zero);
    using S = std::remove_pointer_t<decltype(stored)>;
    torch::stable::parallel_for(0, m.count, kGrain, [&](int64_t begin, int64_t end) {
      kernels(zero).of(stored).products(m.view<T>(), tiles.data(), data<S>(features), data<T>(maps),
                                        mutable_data<T>(products), maps.size(3), begin, end);
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
