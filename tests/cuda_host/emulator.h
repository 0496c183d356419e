// Runs CUDA kernels on the CPU: the blocks of a grid in turn, the threads of a block as fibres that switch where
// threads wait for each other. Ill-formed waiting (a barrier that some threads skip, a shuffle that some lanes of the
// warp miss) is an error that names the places, never a hang.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

// For what reads and writes for other threads, which ThreadSanitizer would take for a race.
#define CUDA_HOST_UNWATCHED __attribute__((no_sanitize("thread")))

namespace cuda_host {

constexpr int kLanes = 32;

// Where in the sources threads wait.
struct Place {
  const char* operation;
  const char* file;
  int line;
};

struct Shape {
  unsigned x, y, z;
};

// Runs `kernel` once per thread. Throws std::runtime_error when the threads do not wait for each other properly.
void run(Shape grid, Shape block, size_t dynamic_shared, const std::function<void()>& kernel);

// Waits for all threads of the block that have not ended; how many of them said `yes`.
int wait_for_block(const Place& place, bool yes);

// Waits for all lanes of the warp; what they wrote is then seen by all.
void sync_warp(const Place& place, unsigned mask);

// Waits for all lanes of the warp. The last one to come calls complete() with what each of the 32 lanes deposited,
// while all stand still; then all go on. As on the device, this alone lets no lane see what another one wrote.
void wait_for_warp(const Place& place, unsigned mask, void* deposit, void (*complete)(void* const* deposits));

// Stops the kernel with an error.
[[noreturn]] void fail(const std::string& what);

// A copy to shared memory that a thread has asked for, and not yet waited for.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  size_t batch;
};

// Of the running thread: starts one more copy, of the batch that is put together; ends that batch; hands over the next
// copy, if there is one, of the batches that are followed by `prior` others.
void start_copy(void* to, const void* from, size_t bytes);
void end_batch_of_copies();
bool next_copy(size_t prior, Copy& copy);

void* dynamic_shared_memory();

// The order in which threads that may run do run: 0 = as they are numbered, 1 = backwards, others = at random.
void set_order(uint64_t order);

}  // namespace cuda_host
