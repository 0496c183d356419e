// Stands in for CUDA's copies to shared memory that a thread does not wait for. They take place when it waits at last:
// until then, nobody finds there what was before, nor what will be.
#pragma once

#include <cuda_runtime.h>

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  if (bytes != 4 && bytes != 8 && bytes != 16) cuda_host::fail("__pipeline_memcpy_async copies 4, 8 or 16 bytes");
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    cuda_host::fail("__pipeline_memcpy_async needs addresses of whole " + std::to_string(bytes) + " bytes");
  for (size_t k = 0; k < bytes; ++k) static_cast<unsigned char*>(to)[k] = 0xFF;  // one by one: ThreadSanitizer sees it
  cuda_host::start_copy(to, from, bytes);
}

inline void __pipeline_commit() { cuda_host::end_batch_of_copies(); }

inline void __pipeline_wait_prior(size_t prior) {
  for (cuda_host::Copy copy; cuda_host::next_copy(prior, copy);) std::memcpy(copy.to, copy.from, copy.bytes);
}
