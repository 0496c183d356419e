// Jobs of uneven length, shared among torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "simd/scratch.h"

namespace fgs {

// Runs work(job, scratch) for jobs 0, 1, ...; each thread takes the next `batch` of them when it is free, and has
// working memory of its own.
template <class Work>
void share_work(int64_t jobs, int64_t batch, const Work& work) {
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      Scratch scratch;
      for (int64_t first = next.fetch_add(batch); first < jobs; first = next.fetch_add(batch))
        for (int64_t job = first; job < std::min(first + batch, jobs); ++job) work(job, scratch);
    }
  });
}

}  // namespace fgs
