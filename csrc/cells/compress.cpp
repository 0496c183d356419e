// CPU twin of compress_cells (contract: cells.h): which Gaussian has weight in which cell.
#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "../math/morton.h"
#include "cells.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 512;

// The weights as rasterize and intersect leave them, checked: the lists index memory.
struct SlotWeights {
  Tensor weights, slot_tiles, gaussian_offsets;
  int64_t batch, width, height, cell;

  void check() {
    STD_TORCH_CHECK(cell == 4 || cell == 8 || cell == 16, "cell must be 4, 8 or 16, got ", cell);
    STD_TORCH_CHECK(batch > 0 && width > 0 && height > 0, "there must be at least one pixel, got ", batch,
                    " images of ", width, " x ", height);
    STD_TORCH_CHECK(batch * cells_x() * cells_y() < std::numeric_limits<int32_t>::max(), "too many cells");
    const int64_t slots = slot_tiles.numel();
    weights = checked(weights, "weights", floating_dtype(weights, "weights"), {slots, cells_per_tile()},
                      "[P, (16 / cell)²]");
    slot_tiles = checked(slot_tiles, "slot_tiles", ScalarType::Int, {slots}, "[P]");
    check_shape(gaussian_offsets, "gaussian_offsets", {kAny}, "[B * N + 1]");
    const int64_t total = gaussian_offsets.numel() - 1;
    STD_TORCH_CHECK(total >= 0 && total % batch == 0, "gaussian_offsets must be [B * N + 1], got ",
                    shape_text(gaussian_offsets), " for B = ", batch);
    gaussian_offsets = checked(gaussian_offsets, "gaussian_offsets", ScalarType::Long, {total + 1}, "[B * N + 1]");
    const int64_t* offsets = data<int64_t>(gaussian_offsets);
    STD_TORCH_CHECK(offsets[0] == 0 && offsets[total] == slots && std::is_sorted(offsets, offsets + total + 1),
                    "gaussian_offsets must rise from 0 to P = ", slots);
    uint32_t largest = 0;  // negative numbers count as huge
    const int32_t* tile = data<int32_t>(slot_tiles);
    for (int64_t k = 0; k < slots; ++k) largest = std::max(largest, static_cast<uint32_t>(tile[k]));
    STD_TORCH_CHECK(slots == 0 || largest < batch * tiles(), "slot_tiles must lie in [0, B * tiles)");
  }
  int64_t gaussians() const { return (gaussian_offsets.numel() - 1) / batch; }
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
  Tensor counts = torch::stable::empty({N}, ScalarType::Int), keys = torch::stable::empty({N}, ScalarType::Int);
  int32_t *count = mutable_data<int32_t>(counts), *key = mutable_data<int32_t>(keys);
  torch::stable::parallel_for(0, N, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      int32_t found = 0;
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
