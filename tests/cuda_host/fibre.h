// Stacks to run functions on, and the switch between them. AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_host {

struct Fibre {
  void* stack = nullptr;  // lowest address; null for the stack of the operating system's thread
  size_t size = 0;
  void* sanitizer = nullptr;
#if defined(__x86_64__)
  void* position = nullptr;  // of the stack pointer, while another fibre runs
#else
  ucontext_t context;
#endif
};

// Prepares `fibre` to call main(), which must not return, when it is switched to. Keeps its stack, if it has one.
void start_fibre(Fibre& fibre, void (*main)());

// `last`: `from` will never be switched to again, unless started anew.
void switch_fibre(Fibre& from, Fibre& to, bool last);

// The first thing that main() of a fibre calls; `from` is where it was switched from.
void entered_fibre(Fibre& from);

}  // namespace cuda_host
