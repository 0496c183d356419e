// The host's side of the stand-in for CUDA's runtime, and the few functions of torch that ask for a GPU.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <map>
#include <mutex>
#include <utility>

#include "cuda_runtime.h"

namespace {

std::string message;               // of the last launch that failed
cudaError_t last = cudaSuccess;    // until it is asked for
int capability = 90;
int waits = 0;  // of the host, since somebody asked
std::map<const void*, size_t> granted;  // dynamic shared memory beyond 48 KB, by kernel

// Bytes of a multiprocessor, and of a block.
int all_shared_memory() {
  return (capability >= 120 ? 100 : capability >= 90 ? 228 : capability >= 80 ? 164 : 64) << 10;
}
int most_shared_memory() { return all_shared_memory() - (capability >= 80 ? 1 << 10 : 0); }

}  // namespace

namespace cuda_host {

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const auto granted_here = granted.find(kernel);
  const size_t most = granted_here == granted.end() ? size_t{48} << 10 : granted_here->second;
  cudaError_t status = cudaErrorInvalidValue;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535)
    message = "the grid has no blocks or too many";
  else if (!block.x || !block.y || !block.z || block.x * block.y * block.z > 1024 || block.z > 64)
    message = "a block must have 1 to 1024 threads";
  else if (config.dynamicSmemBytes > most)
    message = "more than " + std::to_string(most) + " bytes of dynamic shared memory";
  else
    try {
      run({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, config.dynamicSmemBytes, body);
      return cudaSuccess;
    } catch (const std::exception& error) {
      status = cudaErrorLaunchFailure;
      message = error.what();
    }
  return last = status;
}

}  // namespace cuda_host

const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : message.c_str(); }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess             ? "cudaSuccess"
         : error == cudaErrorInvalidValue ? "cudaErrorInvalidValue"
                                          : "cudaErrorLaunchFailure";
}
cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++waits;
  return cudaSuccess;
}
cudaError_t cudaFuncGetName(const char**, const void*) { return cudaErrorInvalidValue; }
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes > most_shared_memory()) {
    message = "more shared memory than a device of capability " + std::to_string(capability) + " has";
    return last = cudaErrorInvalidValue;
  }
  granted[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = capability;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor             ? capability / 10
           : attribute == cudaDevAttrComputeCapabilityMinor           ? capability % 10
           : attribute == cudaDevAttrMultiProcessorCount              ? 4
           : attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? all_shared_memory()
                                                                      : most_shared_memory();
  return cudaSuccess;
}

// For the tests: see build.py.
extern "C" __attribute__((visibility("default"))) void cuda_host_set_order(uint64_t order) { cuda_host::set_order(order); }
extern "C" __attribute__((visibility("default"))) void cuda_host_set_capability(int wanted) { capability = wanted; }
extern "C" __attribute__((visibility("default"))) int cuda_host_waits() { return std::exchange(waits, 0); }

// torch's own of these names want a GPU; inside this library (linked with -Bsymbolic) these come first.
extern "C" {
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
}
