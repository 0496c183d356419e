#include "fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(CUDA_HOST_THREAD_SANITIZER)  // see build.py; this file itself is not instrumented
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_host {
namespace {

constexpr size_t kStack = 256 << 10, kGuard = 4 << 10;  // bytes; the guard page below ends a stack overflow

void give_stack(Fibre& fibre) {
  if (!fibre.stack) {
    void* memory = mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE)) throw std::runtime_error("no memory for a stack");
    fibre.stack = static_cast<char*>(memory) + kGuard;
    fibre.size = kStack;
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fibre.stack, fibre.size);  // what was cut short left marks
  fibre.sanitizer = nullptr;
#elif defined(CUDA_HOST_THREAD_SANITIZER)
  if (fibre.sanitizer) __tsan_destroy_fiber(fibre.sanitizer);
  fibre.sanitizer = __tsan_create_fiber(0);
#endif
}

}  // namespace

#if defined(__x86_64__)
extern "C" void cuda_host_switch(void** from, void* to);
// Pushes the registers a function must keep, stores the stack pointer, takes the other one and goes on there.
asm(R"(
.text
.p2align 4
.type cuda_host_switch, @function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_host_switch, .-cuda_host_switch
)");

void start_fibre(Fibre& fibre, void (*main)()) {
  give_stack(fibre);
  // six registers, the address to "return" to, and what would be main's own return address
  void** top = reinterpret_cast<void**>(static_cast<char*>(fibre.stack) + fibre.size) - 8;
  std::memset(top, 0, 8 * sizeof(void*));
  top[6] = reinterpret_cast<void*>(main);
  fibre.position = top;
}

static void jump(Fibre& from, Fibre& to) { cuda_host_switch(&from.position, to.position); }
#else
void start_fibre(Fibre& fibre, void (*main)()) {
  give_stack(fibre);
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack;
  fibre.context.uc_stack.ss_size = fibre.size;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, main, 0);
}

static void jump(Fibre& from, Fibre& to) { swapcontext(&from.context, &to.context); }
#endif

#if defined(__SANITIZE_ADDRESS__)
void switch_fibre(Fibre& from, Fibre& to) {
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.size);
  jump(from, to);
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
}

void entered_fibre(Fibre& from) {
  const void* bottom;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &from.size);
  from.stack = const_cast<void*>(bottom);
}

void release(void*) {}
void acquire(void*) {}
#elif defined(CUDA_HOST_THREAD_SANITIZER)
void switch_fibre(Fibre& from, Fibre& to) {
  from.sanitizer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
  jump(from, to);
}

void entered_fibre(Fibre&) {}

void release(void* place) { __tsan_release(place); }
void acquire(void* place) { __tsan_acquire(place); }
#else
void switch_fibre(Fibre& from, Fibre& to) { jump(from, to); }
void entered_fibre(Fibre&) {}
void release(void*) {}
void acquire(void*) {}
#endif

}  // namespace cuda_host
