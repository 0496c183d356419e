// CPU twin of compress_cells (contract: cells.h): which Gaussian has weight in which cell.
#include <algorithm>
#include <tuple>
#include <vector>

#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kChunk = 1024;  // Gaussians a thread lists at a time

// The lists index memory.
void check_lists(const SlotWeights& in) {
  check_offsets(in.gaussian_offsets, "gaussian_offsets", in.slots(), "P");
  const int64_t* offsets = data<int64_t>(in.gaussian_offsets);
  const int64_t tiles = in.tiles();
  for (int64_t b = 0; b < in.batch; ++b) {
    const int64_t first = offsets[b * in.gaussians()], last = offsets[(b + 1) * in.gaussians()];
    STD_TORCH_CHECK(all_in(data<int32_t>(in.slot_tiles) + first, last - first, b * tiles, tiles),
                    "slot_tiles must lie in [b * tiles, (b + 1) * tiles) for the Gaussians of image b = ", b);
  }
}

template <class T, int R>
std::tuple<Tensor, Tensor, Tensor, Tensor> compress(const SlotWeights& in) {
  const int64_t N = in.gaussians(), chunks = (N + kChunk - 1) / kChunk;
  const T* w = data<T>(in.weights);
  const int64_t* slots = data<int64_t>(in.gaussian_offsets);
  const int32_t* tile = data<int32_t>(in.slot_tiles);
  const auto each_chunk = [&](const auto& work) {
    torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) work(static_cast<size_t>(k), k * kChunk, std::min(N, (k + 1) * kChunk));
    });
  };
  const auto each_slot = [&](int64_t n, const auto& work) {
    for (int64_t b = 0; b < in.batch; ++b)
      for (int64_t slot = slots[b * N + n]; slot < slots[b * N + n + 1]; ++slot) work(slot);
  };

  std::vector<int64_t> listed(static_cast<size_t>(chunks) + 1), entries(static_cast<size_t>(chunks) + 1);
  each_chunk([&](size_t k, int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      int64_t found = 0;
      each_slot(n, [&](int64_t slot) {
        for (int c = 0; c < R; ++c) found += w[slot * R + c] != T(0);
      });
      entries[k + 1] += found, listed[k + 1] += found > 0;
    }
  });
  for (size_t k = 0; k < static_cast<size_t>(chunks); ++k) listed[k + 1] += listed[k], entries[k + 1] += entries[k];
  Tensor gaussians = in.empty(listed.back(), ScalarType::Int);
  Tensor offsets = in.empty(listed.back() + 1, ScalarType::Long);
  Tensor rows = in.empty(entries.back(), ScalarType::Int);
  Tensor places = in.empty(entries.back(), ScalarType::Long);
  int32_t *id = mutable_data<int32_t>(gaussians), *row = mutable_data<int32_t>(rows);
  int64_t *offset = mutable_data<int64_t>(offsets), *place = mutable_data<int64_t>(places);
  offset[listed.back()] = entries.back();

  const int64_t across = kTile / in.cell, tiles = in.tiles(), columns = in.tiles_x();
  std::vector<int32_t> corner(static_cast<size_t>(in.batch * tiles));  // the first cell of each tile
  for (int64_t t = 0; t < in.batch * tiles; ++t)
    corner[static_cast<size_t>(t)] = static_cast<int32_t>(
        (t / tiles * in.cells_y() + t % tiles / columns * across) * in.cells_x() + t % columns * across);
  int32_t step[R];
  for (int64_t c = 0; c < R; ++c) step[c] = static_cast<int32_t>(c / across * in.cells_x() + c % across);
  each_chunk([&](size_t k, int64_t begin, int64_t end) {
    int64_t at = listed[k], e = entries[k];
    const int64_t stop = entries[k + 1];
    for (int64_t n = begin; n < end && e < stop; ++n) {
      const int64_t first = e;
      each_slot(n, [&](int64_t slot) {
        const int32_t from = corner[static_cast<size_t>(tile[slot])];
        for (int c = 0; c < R && e < stop; ++c) {  // written first, kept if there is weight: faster than a branch
          row[e] = from + step[c];
          place[e] = slot * R + c;
          e += w[slot * R + c] != T(0);
        }
      });
      if (e > first) id[at] = static_cast<int32_t>(n), offset[at++] = first;
    }
  });
  return {gaussians, offsets, rows, places};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> compress_cells_cpu(Tensor weights, Tensor slot_tiles,
                                                              Tensor gaussian_offsets, int64_t batch, int64_t width,
                                                              int64_t height, int64_t cell) {
  SlotWeights in{weights, slot_tiles, gaussian_offsets, batch, width, height, cell};
  in.check();
  check_lists(in);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    return cell == 4 ? compress<T, 16>(in) : cell == 8 ? compress<T, 4>(in) : compress<T, 1>(in);
  };
  return in.kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) { m.impl("compress_cells", TORCH_BOX(&fgs::compress_cells_cpu)); }
