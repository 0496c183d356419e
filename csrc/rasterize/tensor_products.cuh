// The products of products.cuh on tensor cores: TF32 operands (10 bits of mantissa), float32 sums. From compute
// capability 8.0 on; code for older devices is empty and never called.
#pragma once

#include <mma.h>

#include "../cuda/launch.h"
#include "products.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FGS_TENSOR_CORES 1
#else
#define FGS_TENSOR_CORES 0
#endif

namespace fgs {

inline bool has_tensor_cores(const Tensor& like) {
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, like.get_device_index()),
             "asking for the compute capability");
  return major >= 8;
}

constexpr int kTileM = 16, kTileN = 16, kTileK = 8;  // of one multiplication

#if FGS_TENSOR_CORES
using TensorSums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kTileM, kTileN, kTileK, float>;
template <class Layout>
using TensorLeft =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kTileM, kTileN, kTileK, nvcuda::wmma::precision::tf32, Layout>;
using TensorRight = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kTileM, kTileN, kTileK,
                                           nvcuda::wmma::precision::tf32, nvcuda::wmma::row_major>;
__device__ __forceinline__ float to_operand(float value) { return nvcuda::wmma::__float_to_tf32(value); }
#else
__device__ __forceinline__ float to_operand(float value) { return value; }
#endif

// Four channels of a row from `channel` on, zeros beyond the slice, as operands.
__device__ __forceinline__ Chunk<float> read_operands(const Slice<float>& slice, const float* row, int channel,
                                                      bool aligned) {
  Chunk<float> chunk{};
  if (row && aligned && channel < slice.channels) {
    chunk = *reinterpret_cast<const Chunk<float>*>(row + channel);
  } else if (row) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (channel + k < slice.channels) chunk.at[k] = row[channel + k];
  }
  return chunk;
}

// Reads rows 0 .. 7 of a product's right side into shared memory; row_of(k) may be null for a row of zeros.
template <int kChannels, int kStride, class RowOf>
__device__ __forceinline__ void stage_operands(const Slice<float>& slice, const RowOf& row_of,
                                               float (*to)[kStride]) {
  constexpr int kPerRow = kChannels / 4, kLoads = kTileK * kPerRow / kWarp;
  const bool aligned = slice.stride % 4 == 0 && slice.channels % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(slice.first) % sizeof(Chunk<float>) == 0;
  Chunk<float> read[kLoads];
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    const int at = k * kWarp + lane_of_warp();
    read[k] = read_operands(slice, row_of(at / kPerRow), at % kPerRow * 4, aligned);
  }
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    const int at = k * kWarp + lane_of_warp();
#pragma unroll
    for (float& value : read[k].at) value = to_operand(value);
    *reinterpret_cast<Chunk<float>*>(&to[at / kPerRow][at % kPerRow * 4]) = read[k];
  }
}

// Cells += Wᵀ F with 32, 64 or 128 channels in the registers of a warp.
template <int kCell_, int kWidth>
class TensorBlend {
  using Cells = PatchCells<kCell_>;
  static constexpr int kTilesM = (Cells::kCount + kTileM - 1) / kTileM, kTilesN = kWidth / kTileN;

 public:
  using Scalar = float;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWidth;
  static constexpr int kStride = kTilesM * kTileM + 8;  // lanes read different banks
  struct Stage {
    alignas(32) float rows[kTileK][kWidth + 8];
  };

  static __device__ __forceinline__ float operand(float weight) { return to_operand(weight); }

#if FGS_TENSOR_CORES
  __device__ TensorBlend() {
    for (auto& line : sums_)
      for (TensorSums& sum : line) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }

  __device__ void add(float (*weights)[kStride], const int32_t* listed, int rows, const Slice<float>& features,
                      Stage& stage) {
    for (int first = 0; first < rows; first += kTileK) {
      for (int k = rows; k < first + kTileK; ++k)  // rows that fill up a tile
        if (lane_of_warp() < Cells::kCount) weights[k][lane_of_warp()] = 0.0f;
      stage_operands<kWidth>(
          features, [&](int k) { return first + k < rows ? features.row(listed[first + k]) : nullptr; }, stage.rows);
      __syncwarp();
      TensorLeft<nvcuda::wmma::col_major> left[kTilesM];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m)
        nvcuda::wmma::load_matrix_sync(left[m], &weights[first][m * kTileM], kStride);
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        if (n * kTileN >= features.channels) continue;
        TensorRight right;
        nvcuda::wmma::load_matrix_sync(right, &stage.rows[0][n * kTileN], kWidth + 8);
#pragma unroll
        for (int m = 0; m < kTilesM; ++m) nvcuda::wmma::mma_sync(sums_[m][n], left[m], right, sums_[m][n]);
      }
      __syncwarp();
    }
  }

  template <class RowOf>
  __device__ void write(Stage& stage, int channels, const RowOf& row_of) const {
    constexpr int kSpare = kTileN + 4;
    static_assert(kTileM * kSpare <= kTileK * (kWidth + 8));
    float* spare = &stage.rows[0][0];
#pragma unroll
    for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        if (n * kTileN >= channels) continue;
        nvcuda::wmma::store_matrix_sync(spare, sums_[m][n], kSpare, nvcuda::wmma::mem_row_major);
        __syncwarp();
#pragma unroll
        for (int at = lane_of_warp(); at < kTileM * kTileN; at += kWarp) {
          const int cell = m * kTileM + at / kTileN, channel = n * kTileN + at % kTileN;
          float* row = cell < Cells::kCount ? row_of(cell) : nullptr;
          if (row && channel < channels) row[channel] = spare[at / kTileN * kSpare + at % kTileN];
        }
        __syncwarp();
      }
    }
  }

 private:
  TensorSums sums_[kTilesM][kTilesN];
#else
  __device__ void add(float (*)[kStride], const int32_t*, int, const Slice<float>&, Stage&) {}
  template <class RowOf>
  __device__ void write(Stage&, int, const RowOf&) const {}
#endif
};

// W dL/dcells with the gradients of 64 channels in the registers of a warp.
template <int kCell_>
class TensorSpread {
  using Cells = PatchCells<kCell_>;
  static constexpr int kSteps = Cells::kCount / kTileK;

 public:
  using Scalar = float;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = 64;
  static constexpr int kStride = Cells::kCount + 4;  // lanes read different banks
  static constexpr int kBatch = kWarp;
  static constexpr int kRows = kTileM, kRowStride = kChannels + 8;
  static constexpr int kBlocksPerSM = 2;

  static __device__ __forceinline__ float operand(float weight) { return to_operand(weight); }

#if FGS_TENSOR_CORES
  // `spare` is shared memory of this warp.
  template <class RowOf>
  __device__ void load(const Slice<float>& grads, const RowOf& row_of, float (*spare)[kRowStride]) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const auto row = [&](int k) {
        const int64_t index = row_of(step * kTileK + k);
        return index < 0 ? nullptr : grads.row(index);
      };
      stage_operands<kChannels>(grads, row, spare);
      __syncwarp();
#pragma unroll
      for (int n = 0; n < kChannels / kTileN; ++n)
        nvcuda::wmma::load_matrix_sync(right_[step][n], &spare[0][n * kTileN], kRowStride);
      __syncwarp();
    }
  }

  __device__ void multiply(const float (*weights)[kStride], int rows, float (*result)[kRowStride]) const {
    if (rows <= 0) return;
    TensorSums sums[kChannels / kTileN];
#pragma unroll
    for (TensorSums& sum : sums) nvcuda::wmma::fill_fragment(sum, 0.0f);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      TensorLeft<nvcuda::wmma::row_major> left;  // rows behind the last splat make rows that nobody reads
      nvcuda::wmma::load_matrix_sync(left, &weights[0][step * kTileK], kStride);
#pragma unroll
      for (int n = 0; n < kChannels / kTileN; ++n) nvcuda::wmma::mma_sync(sums[n], left, right_[step][n], sums[n]);
    }
#pragma unroll
    for (int n = 0; n < kChannels / kTileN; ++n)
      nvcuda::wmma::store_matrix_sync(&result[0][n * kTileN], sums[n], kRowStride, nvcuda::wmma::mem_row_major);
  }

 private:
  TensorRight right_[kSteps][kChannels / kTileN];
#else
  template <class RowOf>
  __device__ void load(const Slice<float>&, const RowOf&, float (*)[kRowStride]) {}
  __device__ void multiply(const float (*)[kStride], int, float (*)[kRowStride]) const {}
#endif
};

}  // namespace fgs
