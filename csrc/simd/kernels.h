// The table of inner loops, one table per instruction set; the best one the processor can run is chosen once.
#pragma once

#include <cstdint>

#include "../cells/cells.h"
#include "../project/project.h"
#include "../rasterize/rasterize.h"
#include "half.h"
#include "scratch.h"

namespace fgs {

// The loops over features that are stored as S. `tiles` are the cells of every tile.
template <class T, class S>
struct CellKernels {
  void (*blend)(const SlotWeights<T>&, const TileCells* tiles, const S* features, T* maps, int64_t C, int64_t begin,
                int64_t count);
  void (*accumulate)(const SlotWeights<T>&, const TileCells* tiles, const T* maps, S* sums, T rate, T floor, int64_t C,
                     int64_t first, int64_t last);
  void (*products)(const SlotWeights<T>&, const TileCells* tiles, const S* features, const T* maps, T* out, int64_t C,
                   int64_t first, int64_t last);
};

template <class T>
struct Kernels {
  const char* name;
  int lanes;
  void (*project)(const ProjectInputs<T>&, const ProjectOutputs<T>&, int64_t camera, int64_t begin, int64_t end);
  void (*project_backward)(const ProjectInputs<T>&, const ProjectGrads<T>&, int64_t begin, int64_t end);
  void (*rasterize_tile)(const RasterizeInputs<T>&, const RasterizeOutputs<T>&, int64_t tile, Scratch&);
  void (*rasterize_tile_backward)(const RasterizeInputs<T>&, const RasterizeGrads<T>&, int64_t tile, Scratch&);
  CellKernels<T, T> cells;
  CellKernels<T, Half> half_cells;

  const CellKernels<T, T>& of(const T*) const { return cells; }
  const CellKernels<T, Half>& of(const Half*) const { return half_cells; }
};

// FEATURE_GS_SIMD=generic|avx2|avx512 in the environment asks for a lower level than the processor offers.
const Kernels<float>& kernels(float);
const Kernels<double>& kernels(double);

extern const Kernels<float> kGenericKernels;
extern const Kernels<double> kDoubleKernels;
#if defined(__x86_64__)
extern const Kernels<float> kAvx2Kernels;
extern const Kernels<float> kAvx512Kernels;
#endif

}  // namespace fgs
