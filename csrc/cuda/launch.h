// How an op gets to its kernels: torch's device and stream, memory of torch's caching allocator, the launch itself.
// There is no <<<...>>> in this project, so any C++20 compiler can read the .cu files (tests/cuda_host).
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <utility>

#include "../checks.h"

namespace fgs {

// Also forgets the error, so that whoever asks the runtime next, torch above all, is not told of ours.
inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) static_cast<void>(cudaGetLastError());
  STD_TORCH_CHECK(status == cudaSuccess, what, " failed: ", cudaGetErrorString(status), " (",
                  cudaGetErrorName(status), ")");
}

// Makes the device of an op's inputs the current one for as long as it lives; `stream` is torch's current one there.
struct OnDevice {
  explicit OnDevice(const Tensor& input) : guard(input.get_device_index()) {
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(input.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
  }

  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
};

// `count` uninitialised numbers of type T on the device of `like`, for as long as the Tensor lives.
template <class T>
Tensor scratch(const Tensor& like, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

// Blocks of `threads` for `count` jobs, one each.
inline unsigned blocks_for(int64_t count, int64_t threads) {
  const int64_t blocks = (count + threads - 1) / threads;
  STD_TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "a grid of ", blocks,
                  " blocks is more than the device can run at once");
  return static_cast<unsigned>(blocks);
}

struct Launch {
  dim3 blocks, threads;
  cudaStream_t stream;
  size_t dynamic_shared = 0;  // bytes, what dynamic_shared() of block.h points at
};

// Queues kernel(arguments...) on the stream. A grid without blocks is nothing to do.
template <class... Parameters, class... Arguments>
void launch(const Launch& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0 || shape.blocks.z == 0) return;
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shape.dynamic_shared > kWithoutAsking)
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.dynamic_shared)),
               "asking for shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.dynamic_shared;
  config.stream = shape.stream;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (status == cudaSuccess) return;
  const char* name = "a kernel";
  cudaFuncGetName(&name, reinterpret_cast<const void*>(kernel));
  check_cuda(status, (std::string("launching ") + name).c_str());
}

}  // namespace fgs
