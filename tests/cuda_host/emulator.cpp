#include "emulator.h"

#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda_runtime.h"
#include "fibre.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_host {
namespace {

enum class State { ready, at_barrier, at_warp, ended };

struct Thread {
  Fibre fibre;
  State state = State::ready;
  uint3 index;
  Place place;      // where it waits
  void* deposit;    // of a warp operation
  int answer;       // of a barrier
  std::deque<Copy> copies;
  size_t batches = 0;  // of copies that have ended
};

std::mutex one_launch_at_a_time;
std::deque<Thread> threads;  // whose fibres stay where they are
std::vector<int> waiting;  // lanes of each warp
std::deque<int> ready;  // threads that may run
size_t count = 0;        // of threads in the block
size_t ended = 0;
int saying_yes = 0;
int running = -1;
Fibre scheduler;
const std::function<void()>* body = nullptr;
std::string failure;
struct alignas(32) Piece {
  char bytes[32];
};
std::vector<Piece> dynamic_memory;
uint64_t order = 0;
std::mt19937_64 random_numbers;

std::string text(const Place& place) {
  std::string file = place.file;
  return std::string(place.operation) + " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line);
}

std::string name(int thread) {
  const uint3 i = threads[static_cast<size_t>(thread)].index;
  return "thread (" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ") of block (" +
         std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ")";
}

bool same(const Place& a, const Place& b) {
  return a.line == b.line && !std::strcmp(a.operation, b.operation) && !std::strcmp(a.file, b.file);
}

Thread& current() { return threads[static_cast<size_t>(running)]; }

void stand_still() {
  release(&ended);  // the end of the block comes after all that its threads did
  switch_fibre(current().fibre, scheduler);
}

// A fibre runs its thread of one block after the other.
void thread_main() {
  entered_fibre(scheduler);
  for (;; stand_still()) {
    acquire(&body);
    try {
      (*body)();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!current().copies.empty()) failure = name(running) + " has ended before the copies that it did not wait for";
    ++ended;
    current().state = State::ended;
  }
}

// What the threads' `__shared__` variables hold at the start of a block: nothing that a kernel should read. They are
// the only thread_local variables of the library (except under AddressSanitizer, see cuda_runtime.h).
void spoil_shared_memory() {
  static thread_local char marker;
  const auto visit = [](dl_phdr_info* info, size_t, void* data) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& header = info->dlpi_phdr[i];
      char* begin = static_cast<char*>(info->dlpi_tls_data);
      if (header.p_type != PT_TLS || !begin || data < begin || data >= begin + header.p_memsz) continue;
      std::memset(begin, 0xFF, header.p_memsz);
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(visit, &marker);
  if (!dynamic_memory.empty()) std::memset(dynamic_memory.data(), 0xFF, dynamic_memory.size() * sizeof(Piece));
}

int next_ready() {
  if (order > 1) std::swap(ready[random_numbers() % ready.size()], ready.back());
  const int thread = order ? ready.back() : ready.front();
  order ? ready.pop_back() : ready.pop_front();
  return thread;
}

void resume(int thread) {
  running = thread;
  threadIdx = current().index;
  switch_fibre(scheduler, current().fibre);
}

// All threads stand still. Lets them pass the barrier that all have reached, or says why they never will.
void release_barrier() {
  const Thread* first = nullptr;
  for (size_t t = 0; t < count; ++t) {
    const Thread& thread = threads[t];
    if (thread.state == State::ended) continue;
    if (thread.state == State::at_warp) {
      size_t missing = t / kLanes * kLanes;
      while (threads[missing].state == State::at_warp) ++missing;
      const Thread& other = threads[missing];
      failure = name(static_cast<int>(t)) + " waits in " + text(thread.place) + " for all lanes of its warp, but " +
                name(static_cast<int>(missing)) +
                (other.state == State::ended ? " has ended" : " waits in " + text(other.place));
      return;
    }
    if (!first) first = &thread;
    if (!same(first->place, thread.place)) {
      failure = "the threads of a block wait at different barriers: " + text(first->place) + ", but " +
                name(static_cast<int>(t)) + " in " + text(thread.place);
      return;
    }
  }
  for (size_t t = 0; t < count; ++t) {
    if (threads[t].state == State::ended) continue;
    threads[t].state = State::ready;
    threads[t].answer = saying_yes;
    ready.push_back(static_cast<int>(t));
  }
  saying_yes = 0;
}

void run_block(Shape block) {
  spoil_shared_memory();
  ended = 0, saying_yes = 0;
  ready.clear();
  size_t t = 0;
  for (unsigned z = 0; z < block.z; ++z)
    for (unsigned y = 0; y < block.y; ++y)
      for (unsigned x = 0; x < block.x; ++x, ++t) {
        threads[t].index = {x, y, z};
        if (threads[t].state != State::ended) start_fibre(threads[t].fibre, &thread_main);  // new or cut short
        threads[t].state = State::ready;
        threads[t].copies.clear();
        ready.push_back(static_cast<int>(t));
      }
  std::fill(waiting.begin(), waiting.end(), 0);
  release(&body);
  while (failure.empty() && ended < count) {
    if (ready.empty())
      release_barrier();
    else
      resume(next_ready());
  }
  acquire(&ended);
}

}  // namespace

void run(Shape grid, Shape block, size_t dynamic_shared, const std::function<void()>& kernel) {
  const std::lock_guard lock(one_launch_at_a_time);
  count = size_t{block.x} * block.y * block.z;
  if (count == 0 || count > 1024) throw std::runtime_error("a block must have 1 to 1024 threads");
  if (threads.size() < count) threads.resize(count);
  waiting.resize((count + kLanes - 1) / kLanes);
  gridDim = {grid.x, grid.y, grid.z}, blockDim = {block.x, block.y, block.z};
  dynamic_memory.assign((dynamic_shared + sizeof(Piece) - 1) / sizeof(Piece), Piece{});
  body = &kernel;
  failure.clear();
  random_numbers.seed(order);
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  std::vector<int64_t> turns(static_cast<size_t>(blocks));
  for (int64_t b = 0; b < blocks; ++b) turns[static_cast<size_t>(b)] = order == 1 ? blocks - 1 - b : b;
  if (order > 1) std::shuffle(turns.begin(), turns.end(), random_numbers);
  for (const int64_t b : turns) {
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(block);
    if (!failure.empty()) throw std::runtime_error(failure);
  }
}

int wait_for_block(const Place& place, bool yes) {
  saying_yes += yes;
  current().place = place;
  current().state = State::at_barrier;
  release(&saying_yes);
  stand_still();
  acquire(&saying_yes);
  return current().answer;
}

void wait_for_warp(const Place& place, unsigned mask, void* deposit, void (*complete)(void* const* deposits)) {
  if (mask != 0xFFFFFFFFu) fail(text(place) + " must have the mask of all lanes");
  const int first = running / kLanes * kLanes;
  if (first + kLanes > static_cast<int>(count)) fail(text(place) + " needs a whole warp of " + std::to_string(kLanes));
  for (int lane = first; lane < first + kLanes; ++lane) {
    const Thread& other = threads[static_cast<size_t>(lane)];
    if (other.state == State::at_warp && !same(other.place, place))
      fail(name(running) + " waits in " + text(place) + " for all lanes of its warp, but " + name(lane) +
           " waits in " + text(other.place));
  }
  current().place = place, current().deposit = deposit;
  current().state = State::at_warp;
  if (++waiting[static_cast<size_t>(first / kLanes)] == kLanes) {
    waiting[static_cast<size_t>(first / kLanes)] = 0;
    void* deposits[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) deposits[lane] = threads[static_cast<size_t>(first + lane)].deposit;
    if (complete) complete(deposits);
    for (int lane = first; lane < first + kLanes; ++lane) {
      threads[static_cast<size_t>(lane)].state = State::ready;
      ready.push_back(lane);
    }
  }
  stand_still();
}

void sync_warp(const Place& place, unsigned mask) {
  int& warp = waiting[static_cast<size_t>(running / kLanes)];
  release(&warp);
  wait_for_warp(place, mask, nullptr, nullptr);
  acquire(&warp);
}

void fail(const std::string& what) {
  failure = what;
  stand_still();
  std::abort();
}

void start_copy(void* to, const void* from, size_t bytes) {
  for (const Copy& other : current().copies)
    if (to < static_cast<char*>(other.to) + other.bytes && other.to < static_cast<char*>(to) + bytes)
      fail(name(running) + " starts a copy to where another one is still on its way");
  current().copies.push_back({to, from, bytes, current().batches});
}

void end_batch_of_copies() { ++current().batches; }

bool next_copy(size_t prior, Copy& copy) {
  std::deque<Copy>& copies = current().copies;
  if (copies.empty() || copies.front().batch + prior >= current().batches) return false;
  copy = copies.front();
  copies.pop_front();
  return true;
}

void* dynamic_shared_memory() { return dynamic_memory.data(); }

void set_order(uint64_t wanted) {
  const std::lock_guard lock(one_launch_at_a_time);
  order = wanted;
}

}  // namespace cuda_host
