// The arguments of ssim and of its gradient, checked.
#pragma once

#include "../checks.h"
#include "ssim.h"

namespace fgs {

struct ImageShape {
  int64_t batch, height, width, channels;
  FGS_HD int64_t row() const { return width * channels; }
  FGS_HD int64_t image() const { return height * row(); }
};

inline ImageShape shape_of(const Tensor& image) {
  check_shape(image, "image", {kAny, kAny, kAny, kAny}, "[B, H, W, C]");
  const ImageShape shape{image.size(0), image.size(1), image.size(2), image.size(3)};
  STD_TORCH_CHECK(shape.image() > 0, "image must have pixels and channels, got ", shape_text(image));
  return shape;
}

inline Tensor checked_map(const Tensor& t, const char* name, const Kind& kind, const ImageShape& s) {
  return checked(t, name, kind, {s.batch, s.height, s.width, s.channels}, "[B, H, W, C]");
}

}  // namespace fgs
