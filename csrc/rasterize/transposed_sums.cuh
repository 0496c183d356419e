// Several sums over a warp at once. In each step a lane gives half of its sums to another lane and takes that one's
// share of the other half: 12 sums take 13 shuffles, one by one they would take 60. Always in the same order.
#pragma once

#include "../cuda/block.h"

namespace fgs {

// Sums values[k] over the lanes. Lane `lane` gets one of the sums: that which sum_of_lane tells.
template <int kCount, int kStep = kWarp / 2, class T>
__device__ __forceinline__ T transposed_sums(const T (&values)[kCount], int lane) {
  if constexpr (kStep == 0) {
    return values[0];
  } else {
    constexpr int kHalf = (kCount + 1) / 2;
    T mine[kHalf];
    if constexpr (kCount == 1) {
      mine[0] = values[0] + __shfl_xor_sync(kAllLanes, values[0], kStep);
    } else {
      const bool upper = (lane & kStep) != 0;
#pragma unroll
      for (int k = 0; k < kHalf; ++k) {
        const T low = values[k], high = k + kHalf < kCount ? values[k + kHalf] : T(0);
        mine[k] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, kStep);
      }
    }
    return transposed_sums<kHalf, kStep / 2>(mine, lane);
  }
}

// Which of kCount sums a lane is to write, -1 for none.
template <int kCount, int kStep = kWarp / 2>
__device__ __forceinline__ int sum_of_lane(int lane) {
  if constexpr (kStep == 0) {
    return 0;
  } else {
    constexpr int kHalf = (kCount + 1) / 2;
    const int sum = sum_of_lane<kHalf, kStep / 2>(lane);
    if (!(lane & kStep) || sum < 0) return sum;
    return kCount > 1 && sum + kHalf < kCount ? sum + kHalf : -1;
  }
}

}  // namespace fgs
