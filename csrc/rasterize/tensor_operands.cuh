// Operands of tensor cores: where their elements stand in shared memory, how they are rounded to TF32 (10 bits of
// mantissa), and how rows of features get there.
#pragma once

#include <cuda_pipeline.h>
#include <mma.h>

#include "../cuda/launch.h"
#include "products.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FGS_TENSOR_CORES 1
#else
#define FGS_TENSOR_CORES 0
#endif

namespace fgs {

// Whether a multiprocessor has 100 KB of shared memory: less than data centres' devices from 8.0 on.
#if defined(__CUDA_ARCH__)
constexpr bool kLittleSharedMemory = __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200;
#else
constexpr bool kLittleSharedMemory = false;
#endif

// Whether a kernel on tensor cores, as it is loaded on the current device, was compiled for one that has them. The device
// may have them and yet run code made for an older one.
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

// The same without rounding and without waiting: the numbers are there after __pipeline_wait_prior and __syncwarp.
template <int kChannels, int kStride, class Has, class Row>
__device__ __forceinline__ void fetch_operands(const Slice<float>& slice, const Has& has, const Row& row,
                                               float (*to)[kStride]) {
  constexpr int kPerRow = kChannels / 4, kLoads = kTileK * kPerRow / kWarp;
  const int of_row = lane_of_warp() % kPerRow, first = lane_of_warp() / kPerRow;
  const float* from[kLoads];  // all of them first: nothing is read ahead of a copy
#pragma unroll
  for (int k = 0; k < kLoads; ++k) {
    const int at = first + k * (kWarp / kPerRow);
    from[k] = has(at) ? slice.row(row(at)) : nullptr;
  }
  const auto fetch = [&]<class Piece>(int k, int channel) {
    Piece& there = *reinterpret_cast<Piece*>(&to[first + k * (kWarp / kPerRow)][channel]);
    if (from[k] && channel < slice.channels)
      __pipeline_memcpy_async(&there, from[k] + channel, sizeof there);
    else
      there = Piece{};
  };
  if (has_whole_chunks(slice.first, slice.stride, slice.channels)) {
#pragma unroll
    for (int k = 0; k < kLoads; ++k) fetch.template operator()<Chunk<float>>(k, of_row * 4);
  } else {
#pragma unroll
    for (int k = 0; k < kLoads; ++k)
#pragma unroll
      for (int j = 0; j < 4; ++j) fetch.template operator()<float>(k, of_row + j * kPerRow);
  }
}

}  // namespace fgs
