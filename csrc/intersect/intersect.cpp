// CPU twin of intersect (contract: intersect.h): count, prefix sum, fill in Gaussian order, sort Gaussians by depth,
// then one stable counting sort by tile.
#include "intersect.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "../checks.h"
#include "../math/ellipse.h"

namespace fgs {
namespace {

template <class T>
struct Splats {
  const T *means2d, *conics, *opacities, *depths;
  const int32_t* radii;
  int64_t tiles_x, tiles_y;

  // Calls visit(tile_y, first tile_x, last tile_x) for each row of tiles that splat i meets.
  template <class Visit>
  void for_each_row(int64_t i, const Visit& visit) const {
    if (radii[i] <= 0) return;
    const T x = means2d[2 * i], y = means2d[2 * i + 1];
    const Ellipse<T> e = make_ellipse(conics[3 * i], conics[3 * i + 1], conics[3 * i + 2], ellipse_reach(opacities[i]));
    if (!(e.det > T(0)) || !(std::abs(x) + std::abs(y) + e.half_width + e.half_height < T(1e30))) return;
    const T margin = T(kEllipseMargin), last_center = T(kTile - 0.5), half = T(0.5);
    const auto first_tile = [&](T low, int64_t count) {
      return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(std::clamp((low - last_center) / kTile, T(-1), T(count)))), 0,
                        count);
    };
    const auto last_tile = [&](T high, int64_t count) {
      return std::clamp<int64_t>(static_cast<int64_t>(std::floor(std::clamp((high - half) / kTile, T(-1), T(count)))), -1,
                        count - 1);
    };
    const int64_t top = first_tile(y - e.half_height - margin, tiles_y);
    const int64_t bottom = last_tile(y + e.half_height + margin, tiles_y);
    for (int64_t tile_y = top; tile_y <= bottom; ++tile_y) {
      const T band_top = T(tile_y * kTile) + half - y;
      const Interval<T> dx = extent_in_band(e, band_top, band_top + T(kTile - 1));
      if (!(dx.low <= dx.high)) continue;
      const int64_t first = first_tile(x + dx.low, tiles_x), last = last_tile(x + dx.high, tiles_x);
      if (first <= last) visit(tile_y, first, last);
    }
  }
};

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
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> run(const Splats<T>& s, int64_t cameras, int64_t gaussians) {
  constexpr int64_t kGrain = 1024;
  const int64_t total = cameras * gaussians, tiles = s.tiles_x * s.tiles_y, all_tiles = cameras * tiles;
  Tensor gaussian_offsets = torch::stable::empty({total + 1}, ScalarType::Long);
  int64_t* offsets = mutable_data<int64_t>(gaussian_offsets);
  offsets[0] = 0;
  torch::stable::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t count = 0;
      s.for_each_row(i, [&](int64_t, int64_t first, int64_t last) { count += last - first + 1; });
      offsets[i + 1] = count;
    }
  });
  std::inclusive_scan(offsets + 1, offsets + total + 1, offsets + 1);
  const int64_t pairs = offsets[total];
  STD_TORCH_CHECK(pairs <= std::numeric_limits<int32_t>::max(), "intersect: ", pairs,
                  " tile-Gaussian pairs are more than 2^31 - 1; render fewer cameras at once or a smaller image");

  Tensor slot_tiles = torch::stable::empty({pairs}, ScalarType::Int);
  int32_t* tile_of = mutable_data<int32_t>(slot_tiles);
  torch::stable::parallel_for(0, total, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t* next = tile_of + offsets[i];
      const int64_t base = i / gaussians * tiles;
      s.for_each_row(i, [&](int64_t tile_y, int64_t first, int64_t last) {
        for (int64_t x = first; x <= last; ++x) *next++ = static_cast<int32_t>(base + tile_y * s.tiles_x + x);
      });
    }
  });

  // Cameras own disjoint ranges of tiles, so their depth orders can be laid one after the other.
  std::vector<std::vector<int32_t>> orders(static_cast<size_t>(cameras));
  torch::stable::parallel_for(0, cameras, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      orders[static_cast<size_t>(b)] = by_depth(s, b * gaussians, (b + 1) * gaussians);
  });

  Tensor tile_offsets = torch::stable::empty({all_tiles + 1}, ScalarType::Long);
  Tensor pair_gaussians = torch::stable::empty({pairs}, ScalarType::Int);
  Tensor pair_slots = torch::stable::empty({pairs}, ScalarType::Int);
  int64_t* tile_start = mutable_data<int64_t>(tile_offsets);
  std::fill(tile_start, tile_start + all_tiles + 1, 0);
  for (int64_t slot = 0; slot < pairs; ++slot) ++tile_start[tile_of[slot] + 1];
  std::inclusive_scan(tile_start, tile_start + all_tiles + 1, tile_start);
  int32_t* gaussian_of = mutable_data<int32_t>(pair_gaussians);
  int32_t* slot_of = mutable_data<int32_t>(pair_slots);
  std::vector<int64_t> cursor(tile_start, tile_start + all_tiles);
  for (const auto& order : orders) {
    for (const int32_t i : order) {
      for (int64_t slot = offsets[i]; slot < offsets[i + 1]; ++slot) {
        const int64_t at = cursor[static_cast<size_t>(tile_of[slot])]++;
        gaussian_of[at] = i;
        slot_of[at] = static_cast<int32_t>(slot);
      }
    }
  }
  return {std::move(tile_offsets), std::move(pair_gaussians), std::move(pair_slots), std::move(slot_tiles),
          std::move(gaussian_offsets)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> intersect_cpu(Tensor means2d, Tensor conics, Tensor opacities,
                                                                 Tensor depths, Tensor radii, int64_t width,
                                                                 int64_t height) {
  const ScalarType dtype = floating_dtype(means2d, "means2d");
  check_shape(means2d, "means2d", {kAny, kAny, 2}, "[B, N, 2]");
  const int64_t B = means2d.size(0), N = means2d.size(1);
  means2d = checked(means2d, "means2d", dtype, {B, N, 2}, "[B, N, 2]");
  conics = checked(conics, "conics", dtype, {B, N, 3}, "[B, N, 3]");
  opacities = checked(opacities, "opacities", dtype, {B, N}, "[B, N]");
  depths = checked(depths, "depths", dtype, {B, N}, "[B, N]");
  radii = checked(radii, "radii", ScalarType::Int, {B, N}, "[B, N]");
  STD_TORCH_CHECK(width > 0 && height > 0, "the image must have at least one pixel, got ", width, " x ", height);
  STD_TORCH_CHECK(B * N <= std::numeric_limits<int32_t>::max(), "B x N must stay below 2^31, got ", B, " x ", N);
  const int64_t tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    return run(Splats<T>{data<T>(means2d), data<T>(conics), data<T>(opacities), data<T>(depths), data<int32_t>(radii),
                         tiles_x, tiles_y},
               B, N);
  };
  return dtype == ScalarType::Double ? go(0.0) : go(0.0f);
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) { m.impl("intersect", TORCH_BOX(&fgs::intersect_cpu)); }
