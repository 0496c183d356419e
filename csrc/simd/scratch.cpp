#include "scratch.h"

#include <algorithm>
#include <new>

namespace fgs {

struct alignas(64) Scratch::Block {
  Block* older;
  size_t capacity, used;
  char* memory() { return reinterpret_cast<char*>(this + 1); }
  static Block* make(size_t capacity, Block* older) {
    void* memory = ::operator new(sizeof(Block) + capacity, std::align_val_t{64});
    return new (memory) Block{older, capacity, 0};
  }
  static void free_all(Block* block) {
    while (block) {
      Block* older = block->older;
      ::operator delete(block, std::align_val_t{64});
      block = older;
    }
  }
};

Scratch::~Scratch() { Block::free_all(newest_); }

void* Scratch::bytes(size_t size) {
  size = (size + 63) / 64 * 64;
  if (!newest_ || newest_->capacity - newest_->used < size)
    newest_ = Block::make(std::max(size, newest_ ? 2 * newest_->capacity : size_t{1} << 18), newest_);
  void* piece = newest_->memory() + newest_->used;
  newest_->used += size;
  return piece;
}

void Scratch::reset() {
  if (!newest_) return;
  Block::free_all(newest_->older);  // the newest is at least twice as large as all older ones
  newest_->older = nullptr;
  newest_->used = 0;
}

}  // namespace fgs
