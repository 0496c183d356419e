// The module _C: importing it loads the ops, and it tells what was built.
#undef TORCH_TARGET_VERSION  // torch 2.11's own copy of pybind11 refuses it; nothing here is torch's
#include <pybind11/pybind11.h>

#include <string>

#include "simd/kernels.h"

PYBIND11_MODULE(_C, m) {
  m.def("build_info", [] {
    pybind11::dict info;
#if defined(FEATURE_GS_CUDA)
    info["cuda"] = true;
    info["architectures"] = FEATURE_GS_CUDA_ARCHITECTURES;
#else
    info["cuda"] = false;
    info["architectures"] = "";
#endif
    info["simd"] = fgs::kernels(0.0f).name;
    info["compiler"] = std::string("C++ ") + __VERSION__;
    return info;
  });
}
