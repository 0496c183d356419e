// CPU twin of intersect (contract: intersect.h). Splats are worked on in chunks of fixed size; each chunk lists its
// pairs in order of the splats. Then the splats are sorted by depth and their pairs dealt to the tiles in that order.
#include <algorithm>
#include <bit>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "../parallel.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kChunk = 2048;  // splats
constexpr int64_t kSegments = 8;  // of a depth order

// Calls visit(tile_y, tiles) for each row of tiles that splat i meets.
template <class T, class Visit>
void for_each_row(const Splats<T>& s, int64_t i, const Visit& visit) {
  const Footprint<T> footprint = make_footprint(s, i);
  for (int32_t tile_y = footprint.top; tile_y < footprint.top + footprint.rows; ++tile_y)
    if (const TileSpan tiles = tiles_in_row(footprint, tile_y, s.tiles_x); tiles.count > 0) visit(tile_y, tiles);
}

// Indices of the visible splats of one camera, by depth and then by index.
template <class T>
std::vector<int32_t> by_depth(const Splats<T>& s, int64_t begin, int64_t end) {
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(end - begin));
  for (int64_t i = begin; i < end; ++i)
    if (s.radii[i] > 0) order.push_back(static_cast<int32_t>(i));
  if constexpr (std::is_same_v<T, double>) {
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return s.depths[a] < s.depths[b]; });
  } else {  // radix sort, three passes of 11 bits; the bits of a float order like the float, sign apart
    struct Item {
      uint32_t key;
      int32_t index;
    };
    std::vector<Item> items(order.size()), spare(order.size());
    std::vector<uint32_t> starts(3 << 11);
    for (size_t k = 0; k < order.size(); ++k) {
      const uint32_t raw = std::bit_cast<uint32_t>(s.depths[order[k]]);
      const uint32_t key = raw ^ (raw >> 31 ? 0xFFFFFFFFu : 0x80000000u);
      items[k] = {key, order[k]};
      for (int pass = 0; pass < 3; ++pass) ++starts[(pass << 11) + (key >> (11 * pass) & 2047)];
    }
    for (int pass = 0; pass < 3; ++pass) {
      uint32_t* start = starts.data() + (pass << 11);
      std::exclusive_scan(start, start + 2048, start, 0u);
      for (const Item& item : items) spare[start[item.key >> (11 * pass) & 2047]++] = item;
      items.swap(spare);
    }
    for (size_t k = 0; k < order.size(); ++k) order[k] = items[k].index;
  }
  return order;
}

template <class T>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> run(const IntersectArguments& in) {
  const Splats<T> s = in.splats<T>();
  const int64_t cameras = in.cameras(), gaussians = in.gaussians(), total = cameras * gaussians;
  const int64_t tiles = in.tiles_x() * in.tiles_y(), all_tiles = cameras * tiles;
  const int64_t chunks = (total + kChunk - 1) / kChunk;
  Tensor gaussian_offsets = in.empty(total + 1, ScalarType::Long);
  int64_t* offsets = mutable_data<int64_t>(gaussian_offsets);
  offsets[0] = 0;
  std::vector<std::vector<int32_t>> chunk_tiles(static_cast<size_t>(chunks));
  // Cameras own disjoint ranges of tiles, so their depth orders can be used one after the other.
  std::vector<std::vector<int32_t>> orders(static_cast<size_t>(cameras));
  share_work(cameras + chunks, 1, [&](int64_t job, Scratch&) {
    if (job < cameras) {
      orders[static_cast<size_t>(job)] = by_depth(s, job * gaussians, (job + 1) * gaussians);
      return;
    }
    const int64_t begin = (job - cameras) * kChunk, end = std::min(begin + kChunk, total);
    std::vector<int32_t>& list = chunk_tiles[static_cast<size_t>(job - cameras)];
    list.reserve(4 * kChunk);
    for (int64_t i = begin; i < end; ++i) {
      const size_t before = list.size();
      const int64_t base = i / gaussians * tiles;
      for_each_row(s, i, [&](int64_t tile_y, TileSpan row) {
        const int64_t first = base + tile_y * s.tiles_x + row.first;
        for (int64_t k = 0; k < row.count; ++k) list.push_back(static_cast<int32_t>(first + k));
      });
      offsets[i + 1] = static_cast<int64_t>(list.size() - before);
    }
  });
  std::inclusive_scan(offsets + 1, offsets + total + 1, offsets + 1);
  const int64_t pairs = offsets[total];
  check_pair_count(pairs);

  Tensor slot_tiles = in.empty(pairs, ScalarType::Int);
  int32_t* tile_of = mutable_data<int32_t>(slot_tiles);
  share_work(chunks, 1, [&](int64_t chunk, Scratch&) {
    const std::vector<int32_t>& list = chunk_tiles[static_cast<size_t>(chunk)];
    std::copy(list.begin(), list.end(), tile_of + offsets[chunk * kChunk]);
  });

  // A stable counting sort by tile: each camera's depth order is cut into segments with a cursor per tile each.
  const auto for_each_pair = [&](int64_t job, const auto& visit) {
    const std::vector<int32_t>& order = orders[static_cast<size_t>(job / kSegments)];
    const size_t segment = static_cast<size_t>(job % kSegments);
    const size_t begin = order.size() * segment / kSegments, end = order.size() * (segment + 1) / kSegments;
    for (size_t k = begin; k < end; ++k)
      for (int64_t slot = offsets[order[k]]; slot < offsets[order[k] + 1]; ++slot) visit(order[k], slot);
  };
  std::vector<int64_t> cursors(static_cast<size_t>(cameras * kSegments * tiles));
  const auto cursor = [&](int64_t job, int64_t tile) -> int64_t& {
    return cursors[static_cast<size_t>((job - job / kSegments) * tiles + tile)];  // tile counts all cameras' tiles
  };
  share_work(cameras * kSegments, 1, [&](int64_t job, Scratch&) {
    for_each_pair(job, [&](int32_t, int64_t slot) { ++cursor(job, tile_of[slot]); });
  });
  Tensor tile_offsets = in.empty(all_tiles + 1, ScalarType::Long);
  int64_t* tile_start = mutable_data<int64_t>(tile_offsets);
  int64_t placed = 0;
  for (int64_t tile = 0; tile < all_tiles; ++tile) {
    tile_start[tile] = placed;
    for (int64_t segment = 0; segment < kSegments; ++segment)
      placed += std::exchange(cursor(tile / tiles * kSegments + segment, tile), placed);
  }
  tile_start[all_tiles] = placed;

  Tensor pair_gaussians = in.empty(pairs, ScalarType::Int);
  Tensor pair_slots = in.empty(pairs, ScalarType::Int);
  int32_t* gaussian_of = mutable_data<int32_t>(pair_gaussians);
  int32_t* slot_of = mutable_data<int32_t>(pair_slots);
  share_work(cameras * kSegments, 1, [&](int64_t job, Scratch&) {
    for_each_pair(job, [&](int32_t i, int64_t slot) {
      const int64_t at = cursor(job, tile_of[slot])++;
      gaussian_of[at] = i;
      slot_of[at] = static_cast<int32_t>(slot);
    });
  });
  return {std::move(tile_offsets), std::move(pair_gaussians), std::move(pair_slots), std::move(slot_tiles),
          std::move(gaussian_offsets)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> intersect_cpu(Tensor means2d, Tensor conics, Tensor opacities,
                                                                 Tensor depths, Tensor radii, int64_t width,
                                                                 int64_t height) {
  IntersectArguments in{means2d, conics, opacities, depths, radii, width, height};
  in.check();
  return in.kind.dtype == ScalarType::Double ? run<double>(in) : run<float>(in);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) { m.impl("intersect", TORCH_BOX(&fgs::intersect_cpu)); }
