// The products of products.cuh on tensor cores: TF32 operands (10 bits of mantissa), float32 sums. From compute
// capability 8.0 on; code for older devices is empty and never called.
#pragma once

#include <cuda_fp16.h>

#include "tensor_operands.cuh"

namespace fgs {

// Cells = Wᵀ F with 32 or 64 channels in the registers of a warp, which fetches features while it multiplies those
// before. Weights are listed as float16: what that takes from them, tensor cores would as well, but for 3e-8 at most of
// those below 6e-5.
template <int kCell_, int kWidth, int kListed_>
class TensorBlend {
  using Cells = PatchCells<kCell_>;
  static constexpr int kTilesM = (Cells::kCount + kTileM - 1) / kTileM, kTilesN = kWidth / kTileN;
  static constexpr int kLeftStride = kTilesM * kTileM + 8, kRightStride = kWidth + 8;  // lanes read different banks

 public:
  using Scalar = float;
  using Weight = __half;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWidth, kListed = kListed_;
  static constexpr int kBlocksPerSM = kWidth == 32 && kListed > 128 ? 4 : 3;
  struct Stage {
    alignas(32) float left[kTileK][kLeftStride];
    alignas(32) float right[2][kTileK][kRightStride];  // at hand, and on the way
  };

  static __device__ __forceinline__ __half operand(float weight) { return __float2half_rn(weight); }

#if FGS_TENSOR_CORES
  __device__ explicit TensorBlend(Stage& stage)
      : left_places_(&stage.left[0][0]), right_places_(&stage.right[0][0][0]) {}

  __device__ void clear() {
    for (auto& line : sums_)
      for (TensorSums& sum : line) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }

  // All that is fetched has come when this returns.
  __device__ void add(__half (*weights)[Cells::kCount], const int32_t* listed, int rows,
                      const Slice<float>& features, Stage& stage) {
    static_assert(kListed % kTileK == 0);
    for (int k = rows; k % kTileK != 0; ++k)  // splats that fill up a tile
      if (lane_of_warp() < Cells::kCount) weights[k][lane_of_warp()] = __float2half_rn(0.0f);
    __syncwarp();
    const auto fetch = [&](int first) {
      if (first < rows)
        fetch_operands<kWidth>(
            features, [&](int k) { return first + k < rows; }, [&](int k) { return listed[first + k]; },
            stage.right[first / kTileK % 2]);
      __pipeline_commit();
    };
    fetch(0);
    for (int first = 0; first < rows; first += kTileK) {
      fetch(first + kTileK);
      stage_weights(weights + first, stage);
      __pipeline_wait_prior(1);
      __syncwarp();
      const float* here = &stage.right[first / kTileK % 2][0][0];
      Left left[kTilesM];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) left_places_.read(left[m], &stage.left[0][m * kTileM]);
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        TensorRight right;
        right_places_.read(right, here + n * kTileN);
#pragma unroll
        for (float& value : right.x) value = to_operand(value);
#pragma unroll
        for (int m = 0; m < kTilesM; ++m) nvcuda::wmma::mma_sync(sums_[m][n], left[m], right, sums_[m][n]);
      }
      __syncwarp();
    }
  }

  __device__ void write(const Cells& cells, float* out, int64_t C, int channels, bool more, Stage& stage) const {
    constexpr int kSpare = kWidth + 4, kPerRow = kWidth / 4;
    static_assert(sizeof(float) * kTileM * kSpare <= sizeof stage.right);
    float* spare = &stage.right[0][0][0];
    const int channel = lane_of_warp() % kPerRow * 4;
    const bool whole = has_whole_chunks(out, C, channels);
#pragma unroll
    for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
      for (int n = 0; n < kTilesN; ++n)
        nvcuda::wmma::store_matrix_sync(spare + n * kTileN, sums_[m][n], kSpare, nvcuda::wmma::mem_row_major);
      __syncwarp();
      for (int row = lane_of_warp() / kPerRow; row < kTileM; row += kWarp / kPerRow) {
        const int cell = m * kTileM + row;
        if (cell >= Cells::kCount || !cells.has(cell) || channel >= channels) continue;
        Chunk<float> chunk = *reinterpret_cast<const Chunk<float>*>(spare + row * kSpare + channel);
        float* to = out + cells.row(cell) * C + channel;
        if (whole) {
          Chunk<float>* there = reinterpret_cast<Chunk<float>*>(to);
          if (more) add_chunk(chunk, *there);
          *there = chunk;
        } else {
          for (int j = 0; j < 4 && channel + j < channels; ++j) to[j] = more ? to[j] + chunk.at[j] : chunk.at[j];
        }
      }
      __syncwarp();
    }
  }

 private:
  // The weights of 8 splats.
  static __device__ __forceinline__ void stage_weights(const __half (*weights)[Cells::kCount], Stage& stage) {
    struct alignas(16) Halves {
      __half at[8];
    };
    constexpr int kPerRow = Cells::kCount / 8;
    const int row = lane_of_warp() / kPerRow, cell = lane_of_warp() % kPerRow * 8;
    if (row >= kTileK) return;
    const Halves halves = *reinterpret_cast<const Halves*>(&weights[row][cell]);
#pragma unroll
    for (int k = 0; k < 8; k += 4) {
      const Chunk<float> chunk{__half2float(halves.at[k]), __half2float(halves.at[k + 1]),
                               __half2float(halves.at[k + 2]), __half2float(halves.at[k + 3])};
      *reinterpret_cast<Chunk<float>*>(&stage.left[row][cell + k]) = chunk;
    }
  }

  using Left = TensorLeft<nvcuda::wmma::col_major>;
  OperandPlaces<Left, kTileM, kLeftStride> left_places_;
  OperandPlaces<TensorRight, kTileN, kRightStride> right_places_;
  TensorSums sums_[kTilesM][kTilesN];
#else
  __device__ explicit TensorBlend(Stage&) {}
  __device__ void clear() {}
  __device__ void add(__half (*)[Cells::kCount], const int32_t*, int, const Slice<float>&, Stage&) {}
  __device__ void write(const Cells&, float*, int64_t, int, bool, Stage&) const {}
#endif
};

// W dL/dcells with the gradients of 32 or 64 channels in the registers of a warp.
template <int kCell_, int kWidth>
class TensorSpread {
  using Cells = PatchCells<kCell_>;
  static constexpr int kSteps = Cells::kCount / kTileK, kTilesN = kWidth / kTileN;

 public:
  using Scalar = float;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWidth;
  static constexpr int kStride = Cells::kCount + 4;  // lanes read different banks
  static constexpr int kBatch = kWarp;
  static constexpr int kRows = kTileM, kRowStride = kChannels + 8;
  static constexpr int kBlocksPerSM = kCell == 1 && kLittleSharedMemory ? 1 : 2;  // as shared memory allows

  static __device__ __forceinline__ float operand(float weight) { return to_operand(weight); }

#if FGS_TENSOR_CORES
  // `spare` is shared memory of this warp.
  __device__ TensorSpread(const Cells& cells, const Slice<float>& grads, float (*spare)[kRowStride])
      : left_places_(&spare[0][0]) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      stage_operands<kChannels>(
          grads, [&](int k) { return cells.has(step * kTileK + k); },
          [&](int k) { return cells.row(step * kTileK + k); }, spare);
      __syncwarp();
#pragma unroll
      for (int n = 0; n < kTilesN; ++n)
        nvcuda::wmma::load_matrix_sync(right_[step][n], &spare[0][n * kTileN], kRowStride);
      __syncwarp();
    }
  }

  __device__ void multiply(const float (*weights)[kStride], int rows, float (*result)[kRowStride]) const {
    if (rows <= 0) return;
    TensorSums sums[kTilesN];
#pragma unroll
    for (TensorSums& sum : sums) nvcuda::wmma::fill_fragment(sum, 0.0f);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      Left left;  // rows behind the last splat make rows that nobody reads
      left_places_.read(left, &weights[0][step * kTileK]);
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) nvcuda::wmma::mma_sync(sums[n], left, right_[step][n], sums[n]);
    }
#pragma unroll
    for (int n = 0; n < kTilesN; ++n)
      nvcuda::wmma::store_matrix_sync(&result[0][n * kTileN], sums[n], kRowStride, nvcuda::wmma::mem_row_major);
  }

 private:
  using Left = TensorLeft<nvcuda::wmma::row_major>;
  OperandPlaces<Left, kTileK, kStride> left_places_;
  TensorRight right_[kSteps][kTilesN];
#else
  __device__ TensorSpread(const Cells&, const Slice<float>&, float (*)[kRowStride]) {}
  __device__ void multiply(const float (*)[kStride], int, float (*)[kRowStride]) const {}
#endif
};

}  // namespace fgs
