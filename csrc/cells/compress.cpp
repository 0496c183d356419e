// CPU twin of compress_cells (contract: cells.h): which Gaussian has weight in which cell.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "../intersect/lists.h"
#include "../math/morton.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 512;

// The weights as rasterize and intersect leave them, checked: the lists index memory.
struct SlotWeights {
  Tensor weights, slot_tiles, gaussian_offsets;
  int64_t batch, width, height, cell;

  void check() {
    STD_TORCH_CHECK(cell == 4 || cell == 8 || cell == 16, "cell must be 4, 8 or 16, got ", cell);
    checked_tiles(batch, width, height);
    STD_TORCH_CHECK(batch * cells_x() * cells_y() <= std::numeric_limits<int32_t>::max(), batch, " images of ", width,
                    " x ", height, " must have less than 2^31 cells of ", cell, " x ", cell, " pixels");
    const int64_t slots = slot_tiles.numel(), total = gaussian_offsets.numel() - 1;
    weights = checked(weights, "weights", floating_dtype(weights, "weights"), {slots, cells_per_tile()},
                      "[P, (16 / cell)²]");
    slot_tiles = checked(slot_tiles, "slot_tiles", ScalarType::Int, {slots}, "[P]");
    STD_TORCH_CHECK(total >= 0 && total <= std::numeric_limits<int32_t>::max() && total == batch * gaussians(),
                    "gaussian_offsets must be [B * N + 1], got ", shape_text(gaussian_offsets), " for B = ", batch);
    gaussian_offsets = checked(gaussian_offsets, "gaussian_offsets", ScalarType::Long, {total + 1}, "[B * N + 1]");
    check_offsets(gaussian_offsets, "gaussian_offsets", slots, "P");
    const int64_t* offsets = data<int64_t>(gaussian_offsets);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t first = offsets[b * gaussians()], last = offsets[(b + 1) * gaussians()];
      STD_TORCH_CHECK(all_in(data<int32_t>(slot_tiles) + first, last - first, b * tiles(), tiles()),
                      "slot_tiles must lie in [b * tiles, (b + 1) * tiles) for the Gaussians of image b = ", b);
    }
  }
  int64_t gaussians() const { return batch ? (gaussian_offsets.numel() - 1) / batch : 0; }
  int64_t cells_per_tile() const { return (kTile / cell) * (kTile / cell); }
  int64_t tiles_x() const { return (width + kTile - 1) / kTile; }
  int64_t tiles() const { return tiles_x() * ((height + kTile - 1) / kTile); }
  int64_t cells_x() const { return (width + cell - 1) / cell; }
  int64_t cells_y() const { return (height + cell - 1) / cell; }
};

// Place of every tile on a curve through the image that keeps neighbours together.
std::vector<int32_t> tile_ranks(const SlotWeights& in) {
  std::vector<std::pair<uint64_t, int32_t>> keyed;
  for (int64_t t = 0; t < in.tiles(); ++t)
    keyed.emplace_back(morton(static_cast<uint64_t>(t % in.tiles_x()), static_cast<uint64_t>(t / in.tiles_x())),
                       static_cast<int32_t>(t));
  std::sort(keyed.begin(), keyed.end());
  std::vector<int32_t> rank(keyed.size());
  for (size_t k = 0; k < keyed.size(); ++k) rank[static_cast<size_t>(keyed[k].second)] = static_cast<int32_t>(k);
  return rank;
}

template <class T>
std::tuple<Tensor, Tensor, Tensor, Tensor> compress(const SlotWeights& in) {
  const int64_t N = in.gaussians(), R = in.cells_per_tile(), tiles = in.tiles();
  const T* w = data<T>(in.weights);
  const int64_t* slots = data<int64_t>(in.gaussian_offsets);
  const int32_t* tile = data<int32_t>(in.slot_tiles);
  const std::vector<int32_t> rank = tile_ranks(in);

  // How many entries each Gaussian has, and by which tile it is listed.
  std::vector<int64_t> counts(static_cast<size_t>(N));
  std::vector<int32_t> keys(static_cast<size_t>(N));
  int64_t* count = counts.data();
  int32_t* key = keys.data();
  torch::stable::parallel_for(0, N, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      int64_t found = 0;
      int64_t first = -1;
      for (int64_t b = in.batch - 1; b >= 0; --b) {
        const int64_t from = slots[b * N + n], to = slots[b * N + n + 1];
        for (int64_t k = from * R; k < to * R; ++k) found += w[k] != T(0);
        if (from < to) first = tile[from] % tiles;
      }
      count[n] = found;
      key[n] = found ? rank[static_cast<size_t>(first)] : -1;
    }
  });
  std::vector<int64_t> start(static_cast<size_t>(tiles) + 1);
  int64_t total = 0;
  for (int64_t n = 0; n < N; ++n) {
    total += count[n];
    if (key[n] >= 0) ++start[static_cast<size_t>(key[n]) + 1];
  }
  for (size_t t = 0; t < static_cast<size_t>(tiles); ++t) start[t + 1] += start[t];
  const int64_t listed = start.back();
  Tensor gaussians = torch::stable::empty({listed}, ScalarType::Int);
  Tensor offsets = torch::stable::empty({listed + 1}, ScalarType::Long);
  Tensor rows = torch::stable::empty({total}, ScalarType::Int);
  Tensor places = torch::stable::empty({total}, ScalarType::Long);
  int32_t *id = mutable_data<int32_t>(gaussians), *row = mutable_data<int32_t>(rows);
  int64_t *offset = mutable_data<int64_t>(offsets), *place = mutable_data<int64_t>(places);
  for (int64_t n = 0; n < N; ++n)
    if (key[n] >= 0) id[start[static_cast<size_t>(key[n])]++] = static_cast<int32_t>(n);
  offset[0] = 0;
  for (int64_t k = 0; k < listed; ++k) offset[k + 1] = offset[k] + count[id[k]];

  const int64_t across = kTile / in.cell, columns = in.tiles_x(), per_image = in.cells_x() * in.cells_y();
  torch::stable::parallel_for(0, listed, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      int64_t e = offset[k];
      for (int64_t b = 0; b < in.batch; ++b)
        for (int64_t s = slots[b * N + id[k]]; s < slots[b * N + id[k] + 1]; ++s) {
          const uint32_t at = static_cast<uint32_t>(tile[s] - b * tiles), wide = static_cast<uint32_t>(columns);
          const int64_t corner = b * per_image + at / wide * across * in.cells_x() + at % wide * across;
          for (int64_t c = 0; c < R; ++c) {
            if (w[s * R + c] == T(0)) continue;
            row[e] = static_cast<int32_t>(corner + c / across * in.cells_x() + c % across);
            place[e++] = s * R + c;
          }
        }
    }
  });
  return {gaussians, offsets, rows, places};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> compress_cells_cpu(Tensor weights, Tensor slot_tiles,
                                                              Tensor gaussian_offsets, int64_t batch, int64_t width,
                                                              int64_t height, int64_t cell) {
  SlotWeights in{weights, slot_tiles, gaussian_offsets, batch, width, height, cell};
  in.check();
  return in.weights.scalar_type() == ScalarType::Double ? compress<double>(in) : compress<float>(in);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) { m.impl("compress_cells", TORCH_BOX(&fgs::compress_cells_cpu)); }
