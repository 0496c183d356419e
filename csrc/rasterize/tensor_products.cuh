// The products of products.cuh on tensor cores: TF32 operands (10 bits of mantissa), float32 sums. From compute
// capability 8.0 on; code for older devices is empty and never called.
#pragma once

#include <cuda_fp16.h>
#include <mma.h>

#include "../cuda/launch.h"
#include "products.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FGS_TENSOR_CORES 1
#else
#define FGS_TENSOR_CORES 0
#endif

namespace fgs {

// Whether a kernel of this file, as it is loaded on the current device, was compiled for one with tensor cores. The
// device may have them and yet run code made for an older one.
template <class... Parameters>
bool has_tensor_cores(void (*kernel)(Parameters...)) {
  cudaFuncAttributes loaded{};
  check_cuda(cudaFuncGetAttributes(&loaded, reinterpret_cast<const void*>(kernel)), "looking at a kernel");
  return loaded.ptxVersion >= 80;
}

constexpr int kTileM = 16, kTileN = 16, kTileK = 8;  // of one multiplication

#if FGS_TENSOR_CORES
// Left sides are 16 splats or cells by 8, right sides 8 by 16 channels.
using TensorSums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kTileM, kTileN, kTileK, float>;
template <class Layout>
using TensorLeft =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kTileM, kTileN, kTileK, nvcuda::wmma::precision::tf32, Layout>;
using TensorRight = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kTileM, kTileN, kTileK,
                                           nvcuda::wmma::precision::tf32, nvcuda::wmma::row_major>;

// Where the elements of an operand that this lane holds stand in shared memory, in lines of kLine numbers kStride apart.
// Which these are is up to the device: the lane reads a matrix of their numbers. Then it reads operands by itself, which
// takes half the instructions of load_matrix_sync.
template <class Operand, int kLine, int kStride>
class OperandPlaces {
 public:
  // `spare` is shared memory of this warp for a whole operand.
  __device__ explicit OperandPlaces(float* spare) {
    constexpr int kCount = Operand::num_elements * kWarp;
    for (int k = lane_of_warp(); k < kCount; k += kWarp) spare[k] = static_cast<float>(k);
    __syncwarp();
    Operand numbers;
    nvcuda::wmma::load_matrix_sync(numbers, spare, kLine);
    __syncwarp();
#pragma unroll
    for (int k = 0; k < Operand::num_elements; ++k) {
      const int number = static_cast<int>(numbers.x[k]);
      at_[k] = number / kLine * kStride + number % kLine;
    }
  }
  __device__ __forceinline__ void read(Operand& operand, const float* from) const {
#pragma unroll
    for (int k = 0; k < Operand::num_elements; ++k) operand.x[k] = from[at_[k]];
  }

 private:
  int at_[Operand::num_elements];
};
#endif

// Tensor cores cut the last 13 bits of an operand; half of what these can hold makes rounding of it.
__device__ __forceinline__ float to_operand(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x7F800000u) == 0x7F800000u ? value : __uint_as_float(bits + 0x1000u);
}

// Whether all chunks of a slice's rows are whole, and where they are read in one piece.
__device__ __forceinline__ bool has_whole_chunks(const float* first, int64_t stride, int channels) {
  return stride % 4 == 0 && channels % 4 == 0 && reinterpret_cast<uintptr_t>(first) % sizeof(Chunk<float>) == 0;
}

// Reads rows 0 .. 7 of a product's right side into shared memory, as operands, with zeros behind the slice's channels.
// has(k) and row(k): whether there is a row k, and its number.
template <int kChannels, int kStride, class Has, class Row>
__device__ __forceinline__ void stage_operands(const Slice<float>& slice, const Has& has, const Row& row,
                                               float (*to)[kStride]) {
  constexpr int kPerRow = kChannels / 4, kLoads = kTileK * kPerRow / kWarp;
  const int channel = lane_of_warp() % kPerRow * 4, first = lane_of_warp() / kPerRow;
  Chunk<float> read[kLoads] = {};
  if (has_whole_chunks(slice.first, slice.stride, slice.channels)) {
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int at = first + k * (kWarp / kPerRow);
      if (has(at) && channel < slice.channels)
        read[k] = *reinterpret_cast<const Chunk<float>*>(slice.row(row(at)) + channel);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int at = first + k * (kWarp / kPerRow);
      for (int j = 0; j < 4; ++j)
        if (has(at) && channel + j < slice.channels) read[k].at[j] = slice.row(row(at))[channel + j];
    }
  }
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
#pragma unroll
    for (float& value : read[k].at) value = to_operand(value);
    *reinterpret_cast<Chunk<float>*>(&to[first + k * (kWarp / kPerRow)][channel]) = read[k];
  }
}

// Cells = Wᵀ F with 32 or 64 channels in the registers of a warp. Weights are listed as float16: what that takes from
// them, tensor cores would as well, but for 3e-8 at most of those below 6e-5.
template <int kCell_, int kWidth, int kListed_>
class TensorBlend {
  using Cells = PatchCells<kCell_>;
  static constexpr int kTilesM = (Cells::kCount + kTileM - 1) / kTileM, kTilesN = kWidth / kTileN;
  static constexpr int kLeftStride = kTilesM * kTileM + 8, kRightStride = kWidth + 8;  // lanes read different banks

 public:
  using Scalar = float;
  using Weight = __half;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWidth, kListed = kListed_, kBlocksPerSM = kWidth == 64 ? 3 : 4;
  struct Stage {
    alignas(32) float left[kTileK][kLeftStride];
    alignas(32) float right[kTileK][kRightStride];
  };

  static __device__ __forceinline__ __half operand(float weight) { return __float2half_rn(weight); }

#if FGS_TENSOR_CORES
  __device__ explicit TensorBlend(Stage& stage) : left_places_(&stage.left[0][0]), right_places_(&stage.right[0][0]) {}

  __device__ void clear() {
    for (auto& line : sums_)
      for (TensorSums& sum : line) nvcuda::wmma::fill_fragment(sum, 0.0f);
  }

  __device__ void add(__half (*weights)[Cells::kCount], const int32_t* listed, int rows,
                      const Slice<float>& features, Stage& stage) {
    static_assert(kListed % kTileK == 0);
    for (int k = rows; k % kTileK != 0; ++k)  // splats that fill up a tile
      if (lane_of_warp() < Cells::kCount) weights[k][lane_of_warp()] = __float2half_rn(0.0f);
    __syncwarp();
    for (int first = 0; first < rows; first += kTileK) {
      stage_weights(weights + first, stage);
      stage_operands<kWidth>(
          features, [&](int k) { return first + k < rows; }, [&](int k) { return listed[first + k]; }, stage.right);
      __syncwarp();
      Left left[kTilesM];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) left_places_.read(left[m], &stage.left[0][m * kTileM]);
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        TensorRight right;
        right_places_.read(right, &stage.right[0][n * kTileN]);
#pragma unroll
        for (int m = 0; m < kTilesM; ++m) nvcuda::wmma::mma_sync(sums_[m][n], left[m], right, sums_[m][n]);
      }
      __syncwarp();
    }
  }

  __device__ void write(const Cells& cells, float* out, int64_t C, int channels, bool more, Stage& stage) const {
    constexpr int kAtOnce = kWidth / 2, kSpare = kAtOnce + 4, kPerRow = kAtOnce / 4;
    static_assert(kTileM * kSpare <= kTileK * kRightStride);
    float* spare = &stage.right[0][0];
    const bool whole = has_whole_chunks(out, C, channels);
#pragma unroll
    for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int n = 0; n < kTilesN / 2; ++n)
          nvcuda::wmma::store_matrix_sync(spare + n * kTileN, sums_[m][half * (kTilesN / 2) + n], kSpare,
                                          nvcuda::wmma::mem_row_major);
        __syncwarp();
        const int from = lane_of_warp() % kPerRow * 4, channel = half * kAtOnce + from;
        for (int row = lane_of_warp() / kPerRow; row < kTileM; row += kWarp / kPerRow) {
          const int cell = m * kTileM + row;
          if (cell >= Cells::kCount || !cells.has(cell) || channel >= channels) continue;
          Chunk<float> chunk = *reinterpret_cast<const Chunk<float>*>(spare + row * kSpare + from);
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
  static constexpr int kBlocksPerSM = 2;

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
