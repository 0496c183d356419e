// Stacks to run functions on, and the switch between them. AddressSanitizer and ThreadSanitizer are told of every
// switch; for the latter, a fibre is a thread that nothing but what the emulator says keeps in order.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_host {

struct Fibre {
  void* stack = nullptr;  // lowest address; null for the stack of the operating system's thread
  size_t size = 0;
  void* sanitizer = nullptr;  // what a sanitizer keeps of it
#if defined(__x86_64__)
  void* position = nullptr;  // of the stack pointer, while another fibre runs
#else
  ucontext_t context;
#endif
};

// Prepares `fibre` to call main(), which must not return, when it is switched to. Keeps its stack, if it has one.
void start_fibre(Fibre& fibre, void (*main)());

void switch_fibre(Fibre& from, Fibre& to);

// The first thing that main() of a fibre calls; `from` is where it was switched from.
void entered_fibre(Fibre& from);

// For ThreadSanitizer: what came before a release of `place` comes before what follows its acquire.
void release(void* place);
void acquire(void* place);

}  // namespace cuda_host
