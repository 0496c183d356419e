// Shape, dtype and device checks of the ops, with messages that say what was expected and what came:
// "means must be [N, 3], got [7, 4]".
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>
#include <optional>
#include <string>

namespace fgs {

using torch::stable::Tensor;
using torch::headeronly::ScalarType;

constexpr int64_t kAny = -1;

inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

// `shape` holds sizes, kAny where any size will do; `layout` is how the message spells it, e.g. "[N, 3]".
inline void check_shape(const Tensor& t, const char* name, std::initializer_list<int64_t> shape, const char* layout) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  int64_t axis = 0;
  std::string wanted = "[";
  for (const int64_t size : shape) {
    same = same && (size == kAny || t.size(axis) == size);
    wanted += (axis ? ", " : "") + (size == kAny ? std::string("*") : std::to_string(size));
    ++axis;
  }
  STD_TORCH_CHECK(same, name, " must be ", layout, " = ", wanted, "], got ", shape_text(t));
}

// What the inputs of one call have in common. A dtype alone stands for the CPU, which is all that the CPU twins get.
struct Kind {
  Kind(ScalarType dtype_) : dtype(dtype_) {}
  Kind(ScalarType dtype_, torch::stable::Device device_) : dtype(dtype_), device(device_) {}
  Kind with(ScalarType other) const { return {other, device}; }

  ScalarType dtype;
  torch::stable::Device device = torch::headeronly::DeviceType::CPU;
};

inline std::string device_text(torch::stable::Device device) {
  if (device.is_cpu()) return "the CPU";
  if (device.is_cuda()) return "cuda:" + std::to_string(device.index());
  return "device type " + std::to_string(static_cast<int>(device.type()));
}

inline void check_device(const Tensor& t, const char* name, const Kind& kind) {
  const torch::stable::Device device = t.device();
  const bool same = device.type() == kind.device.type() && (device.is_cpu() || device.index() == kind.device.index());
  STD_TORCH_CHECK(same, name, " must be on ", device_text(kind.device),
                  " like the other inputs, got ", device_text(device));
}

// Checks dtype, device, shape and makes the tensor contiguous.
inline Tensor checked(const Tensor& t, const char* name, const Kind& kind, std::initializer_list<int64_t> shape,
                      const char* layout) {
  check_device(t, name, kind);
  check_shape(t, name, shape, layout);
  STD_TORCH_CHECK(t.scalar_type() == kind.dtype, name, " must have the dtype of the other inputs (",
                  torch::headeronly::toString(kind.dtype), "), got ", torch::headeronly::toString(t.scalar_type()));
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

inline ScalarType floating_dtype(const Tensor& t, const char* name) {
  const ScalarType dtype = t.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, name, " must be float32 or float64, got ",
                  torch::headeronly::toString(dtype));
  return dtype;
}

// The kind of the first input, which the others must be of.
inline Kind floating_kind(const Tensor& t, const char* name) { return {floating_dtype(t, name), t.device()}; }

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
T* mutable_data(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// Null for an absent optional input.
template <class T>
const T* data(const std::optional<Tensor>& t) {
  return t ? data<T>(*t) : nullptr;
}

}  // namespace fgs
