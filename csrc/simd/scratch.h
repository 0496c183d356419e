// Working memory of one thread: taken piece by piece, given back all at once, kept from tile to tile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../math/host_device.h"

namespace fgs {

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();

  // Uninitialised room for `count` numbers, 64-byte aligned, valid until reset().
  template <class T>
  FGS_HD T* take(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  void reset();

 private:
  struct Block;
  void* bytes(size_t size);
  Block* newest_ = nullptr;
};

}  // namespace fgs
