// Fills a table of kernels (kernels.h) for a pack type.
#pragma once

#include "../cells/cells_kernel.h"
#include "../project/project_kernel.h"
#include "../rasterize/backward.h"
#include "kernels.h"

namespace fgs {
inline namespace FGS_ISA {

template <class P>
void rasterize_any_tile(const RasterizeInputs<typename P::Scalar>& in, const RasterizeOutputs<typename P::Scalar>& out,
                        int64_t tile, Scratch& scratch) {
  if (in.pooled()) return rasterize_tile<P, FeatureCells::kPooled>(in, out, tile, scratch);
  if (!in.channels) return rasterize_tile<P, FeatureCells::kNone>(in, out, tile, scratch);
  rasterize_tile<P, FeatureCells::kPixels>(in, out, tile, scratch);
}

template <class P>
void rasterize_any_tile_backward(const RasterizeInputs<typename P::Scalar>& in,
                                 const RasterizeGrads<typename P::Scalar>& g, int64_t tile, Scratch& scratch) {
  const bool weights = g.pair_features != nullptr;
  const bool pull = g.weights || (in.features_move_geometry && g.features && g.geometry);
  const auto run = [&]<bool kWeights, bool kPull>() {
    if (g.absgrad) return rasterize_tile_backward<P, kWeights, kPull, true>(in, g, tile, scratch);
    rasterize_tile_backward<P, kWeights, kPull, false>(in, g, tile, scratch);
  };
  if (weights && pull) return run.template operator()<true, true>();
  if (weights) return run.template operator()<true, false>();
  if (pull) return run.template operator()<false, true>();
  run.template operator()<false, false>();
}

template <class P>
constexpr Kernels<typename P::Scalar> make_kernels(const char* name) {
  return {name,
          P::lanes,
          &project_forward<P>,
          &project_backward<P>,
          &rasterize_any_tile<P>,
          &rasterize_any_tile_backward<P>,
          {&blend_cells<P, typename P::Scalar>, &accumulate_cells<P, typename P::Scalar>,
           &cell_products<P, typename P::Scalar>},
          {&blend_cells<P, Half>, &accumulate_cells<P, Half>, &cell_products<P, Half>}};
}

}  // namespace FGS_ISA
}  // namespace fgs
