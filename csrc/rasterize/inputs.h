// The arguments of rasterize and of its gradient, checked: shapes on every device, the numbers in lists that index
// memory on the CPU.
#pragma once

#include <limits>
#include <tuple>

#include "../intersect/lists.h"
#include "rasterize.h"

namespace fgs {

struct RasterizeArguments {
  Tensor means2d, conics, opacities, colors, depths;
  std::optional<Tensor> features, background;
  Tensor tile_offsets, pair_gaussians, pair_slots, gaussian_offsets;
  int64_t width, height, cell;
  bool features_move_geometry;
  Kind kind = ScalarType::Float;

  void check() {
    STD_TORCH_CHECK(cell == 1 || cell == 2 || cell == 4 || cell == 8 || cell == 16,
                    "feature_cell must be 1, 2, 4, 8 or 16, got ", cell);
    STD_TORCH_CHECK(!features || cell < kBlock, "features must be absent for cells of ", kBlock,
                    " pixels or more: blend_cells takes them");
    kind = floating_kind(means2d, "means2d");
    check_shape(means2d, "means2d", {kAny, kAny, 2}, "[B, N, 2]");
    const int64_t B = cameras(), N = gaussians();
    means2d = checked(means2d, "means2d", kind, {B, N, 2}, "[B, N, 2]");
    conics = checked(conics, "conics", kind, {B, N, 3}, "[B, N, 3]");
    opacities = checked(opacities, "opacities", kind, {B, N}, "[B, N]");
    colors = checked(colors, "colors", kind, {B, N, 3}, "[B, N, 3]");
    depths = checked(depths, "depths", kind, {B, N}, "[B, N]");
    if (features) {
      check_shape(*features, "features", {N, kAny}, "[N, C]");
      STD_TORCH_CHECK(features->size(1) >= 1 && features->size(1) <= std::numeric_limits<int32_t>::max(),
                      "features must have at least one channel and less than 2^31, got ", shape_text(*features));
      features = checked(*features, "features", kind, {N, features->size(1)}, "[N, C]");
    }
    if (background) background = checked(*background, "background", kind, {3}, "[3]");
    const Kind offsets = kind.with(ScalarType::Long), indices = kind.with(ScalarType::Int);
    tile_offsets = checked(tile_offsets, "tile_offsets", offsets, {checked_tiles(B, width, height) + 1},
                           "[B * tiles + 1]");
    gaussian_offsets = checked(gaussian_offsets, "gaussian_offsets", offsets, {B * N + 1}, "[B * N + 1]");
    pair_gaussians = checked(pair_gaussians, "pair_gaussians", indices, {pairs()}, "[P]");
    pair_slots = checked(pair_slots, "pair_slots", indices, {pairs()}, "[P]");
    STD_TORCH_CHECK(B * N <= std::numeric_limits<int32_t>::max(), "B x N must stay below 2^31, got ", B, " x ", N);
  }
  void check_lists() const {
    check_offsets(tile_offsets, "tile_offsets", pairs(), "P");
    check_offsets(gaussian_offsets, "gaussian_offsets", pairs(), "P");
    check_indices(pair_gaussians, "pair_gaussians", cameras() * gaussians(), "B * N");
    check_indices(pair_slots, "pair_slots", pairs(), "P");
  }

  int64_t cameras() const { return means2d.size(0); }
  int64_t gaussians() const { return means2d.size(1); }
  int64_t channels() const { return features ? features->size(1) : 0; }
  int64_t pairs() const { return pair_gaussians.numel(); }
  int64_t tiles() const { return tile_offsets.numel() - 1; }
  int64_t cells_x() const { return (width + cell - 1) / cell; }
  int64_t cells_y() const { return (height + cell - 1) / cell; }
  int64_t cells_per_tile() const { return (kTile / cell) * (kTile / cell); }

  // Uninitialised, beside the inputs.
  Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape) const { return empty(shape, kind.dtype); }
  Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType dtype) const {
    return torch::stable::new_empty(means2d, shape, dtype);
  }

  template <class T>
  RasterizeInputs<T> raw(const Tensor& records) const {
    return {data<T>(records),
            data<T>(features),
            data<T>(background),
            data<int64_t>(tile_offsets),
            data<int32_t>(pair_gaussians),
            data<int32_t>(pair_slots),
            cameras(),
            gaussians(),
            pairs(),
            width,
            height,
            channels(),
            static_cast<int>(cell),
            features_move_geometry};
  }
};

struct RasterizeResults {
  Tensor color, alpha, depth, median, features, transmittance, last, weights;

  explicit RasterizeResults(const RasterizeArguments& in) {
    const int64_t B = in.cameras(), H = in.height, W = in.width;
    const bool pooled = in.cell >= kBlock;
    color = in.empty({B, H, W, 3}), alpha = in.empty({B, H, W}), depth = in.empty({B, H, W});
    median = in.empty({B, H, W}), transmittance = in.empty({B, H, W});
    last = in.empty({B, H, W}, ScalarType::Int);
    features = in.empty({in.features ? B : 0, in.cells_y(), in.cells_x(), in.channels()});
    weights = in.empty({pooled ? in.pairs() : 0, pooled ? in.cells_per_tile() : 0});
  }

  template <class T>
  RasterizeOutputs<T> raw() {
    return {mutable_data<T>(color),    mutable_data<T>(alpha),         mutable_data<T>(depth),
            mutable_data<T>(median),   mutable_data<T>(features),      mutable_data<T>(transmittance),
            mutable_data<int32_t>(last), mutable_data<T>(weights)};
  }

  using Tuple = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
  Tuple tuple() const { return {color, alpha, depth, median, features, transmittance, last, weights}; }
};

// What comes back from the outputs, and what the forward pass left.
struct RasterizeGradArguments {
  std::optional<Tensor> color, alpha, depth, features, weights;
  Tensor alpha_value, depth_value, transmittance, last;

  void check(const RasterizeArguments& in) {
    const int64_t B = in.cameras(), H = in.height, W = in.width;
    const Kind& kind = in.kind;
    if (color) color = checked(*color, "grad of color", kind, {B, H, W, 3}, "[B, H, W, 3]");
    if (alpha) alpha = checked(*alpha, "grad of alpha", kind, {B, H, W}, "[B, H, W]");
    if (depth) depth = checked(*depth, "grad of depth", kind, {B, H, W}, "[B, H, W]");
    if (!in.features) features = std::nullopt;
    if (features)
      features = checked(*features, "grad of features", kind, {B, in.cells_y(), in.cells_x(), in.channels()},
                         "[B, h, w, C]");
    if (in.cell < kBlock) weights = std::nullopt;
    if (weights) weights = checked(*weights, "grad of weights", kind, {in.pairs(), in.cells_per_tile()}, "[P, R]");
    alpha_value = checked(alpha_value, "alpha", kind, {B, H, W}, "[B, H, W]");
    depth_value = checked(depth_value, "depth", kind, {B, H, W}, "[B, H, W]");
    transmittance = checked(transmittance, "transmittance", kind, {B, H, W}, "[B, H, W]");
    last = checked(last, "last", kind.with(ScalarType::Int), {B, H, W}, "[B, H, W]");
  }

  // Whether anything of it reaches the splats themselves.
  bool moves_splats(bool features_move_geometry) const {
    return color || alpha || depth || weights || (features && features_move_geometry);
  }

  template <class T>
  RasterizeGrads<T> raw(Tensor& pairs, bool absgrad) const {
    return {data<T>(color),         data<T>(alpha),          data<T>(depth),
            data<T>(features),      data<T>(weights),        data<T>(depth_value),
            data<T>(alpha_value),   data<T>(transmittance),  data<int32_t>(last),
            mutable_data<T>(pairs), /*pair_features=*/nullptr, /*channel_begin=*/0,
            /*channel_count=*/0,    /*geometry=*/true,       absgrad};
  }
};

// Gradients of the splats' parameters; those of features only where they are wanted.
struct RasterizeGradResults {
  Tensor means2d, conics, opacities, colors, depths, features, absolute;

  RasterizeGradResults(const RasterizeArguments& in, bool want_features, bool absgrad) {
    const int64_t B = in.cameras(), N = in.gaussians();
    means2d = in.empty({B, N, 2}), conics = in.empty({B, N, 3}), opacities = in.empty({B, N});
    colors = in.empty({B, N, 3}), depths = in.empty({B, N});
    features = in.empty({want_features ? N : 0, in.channels()});
    absolute = in.empty({absgrad ? B : 0, N, 2});
  }

  // Nothing reaches the splats.
  void leave_splats() {
    for (Tensor* grad : {&means2d, &conics, &opacities, &colors, &depths, &absolute}) torch::stable::zero_(*grad);
  }

  using Tuple = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
  Tuple tuple() const { return {means2d, conics, opacities, colors, depths, features, absolute}; }
};

}  // namespace fgs
