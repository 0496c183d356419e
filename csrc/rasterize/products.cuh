// Products of weights W [splats, cells] of a patch, a warp at a time: with features, Wᵀ F, and with gradients of the
// cells, W dL/dcells. Here in the precision of the scalar; the same interface on tensor cores: tensor_products.cuh.
#pragma once

#include "weights.cuh"

namespace fgs {

// A slice of channels of rows of C.
template <class T>
struct Slice {
  const T* first;  // of row 0
  int64_t stride;  // C
  int channels;    // of the slice

  __device__ __forceinline__ const T* row(int64_t index) const { return first + index * stride; }
  __device__ __forceinline__ const T* row(int32_t index) const {  // C is below 2^31: one multiplication
    return first + uint64_t{static_cast<uint32_t>(index)} * static_cast<uint32_t>(stride);
  }
};

// Cells = Wᵀ F: each lane keeps one channel of all cells of its patch.
template <class T, int kCell_>
class PlainBlend {
  using Cells = PatchCells<kCell_>;

 public:
  using Scalar = T;
  using Weight = T;  // as it is listed
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWarp;                   // of a slice
  static constexpr int kListed = sizeof(T) == 4 ? 64 : 32;  // splats that a warp can list
  static constexpr int kBlocksPerSM = sizeof(T) == 4 ? 3 : 2;
  struct Stage {};  // shared memory of a warp

  static __device__ __forceinline__ T operand(T weight) { return weight; }

  __device__ explicit PlainBlend(Stage&) {}

  __device__ void clear() {
#pragma unroll
    for (T& sum : sums_) sum = T(0);
  }

  // Adds `rows` splats, given by their weights and their rows of features.
  __device__ void add(const T (*weights)[Cells::kCount], const int32_t* listed, int rows, const Slice<T>& features,
                      Stage&) {
    const int lane = lane_of_warp();
#pragma unroll 4
    for (int k = 0; k < rows; ++k) {
      const T feature = lane < features.channels ? features.row(listed[k])[lane] : T(0);
#pragma unroll
      for (int cell = 0; cell < Cells::kCount; cell += kWide<T>) {
        const Chunk<T> w = *reinterpret_cast<const Chunk<T>*>(&weights[k][cell]);
#pragma unroll
        for (int j = 0; j < kWide<T>; ++j) sums_[cell + j] = fma(w.at[j], feature, sums_[cell + j]);
      }
    }
  }

  // Writes a slice of the cells' rows of C channels, or adds to what they hold.
  __device__ void write(const Cells& cells, T* out, int64_t C, int channels, bool more, Stage&) const {
    const int lane = lane_of_warp();
#pragma unroll
    for (int cell = 0; cell < Cells::kCount; ++cell) {
      if (!cells.has(cell) || lane >= channels) continue;
      T* to = out + cells.row(cell) * C + lane;
      *to = more ? *to + sums_[cell] : sums_[cell];
    }
  }

 private:
  T sums_[Cells::kCount];
};

// W dL/dcells: each lane keeps one channel of the gradients of all cells of its patch.
template <class T, int kCell_>
class PlainSpread {
  using Cells = PatchCells<kCell_>;

 public:
  using Scalar = T;
  static constexpr int kCell = kCell_;
  static constexpr int kChannels = kWarp, kStride = Cells::kCount;
  static constexpr int kBatch = 128 / sizeof(T);                    // splats listed at a time
  static constexpr int kRows = kBatch / 2, kRowStride = kChannels;  // of a result: 64 KB must do for a block
  static constexpr int kBlocksPerSM = 2;

  static __device__ __forceinline__ T operand(T weight) { return weight; }

  // Reads the gradients of the cells. The last argument is shared memory of this warp.
  __device__ PlainSpread(const Cells& cells, const Slice<T>& grads, T (*)[kRowStride]) {
    const int lane = lane_of_warp();
#pragma unroll
    for (int cell = 0; cell < Cells::kCount; ++cell)
      grads_[cell] = cells.has(cell) && lane < grads.channels ? grads.row(cells.row(cell))[lane] : T(0);
  }

  // The products of up to kRows splats.
  __device__ void multiply(const T (*weights)[kStride], int rows, T (*result)[kRowStride]) const {
    const int lane = lane_of_warp();
    for (int k = 0; k < rows; ++k) {
      T sum = T(0);
#pragma unroll
      for (int cell = 0; cell < Cells::kCount; cell += kWide<T>) {
        const Chunk<T> w = *reinterpret_cast<const Chunk<T>*>(&weights[k][cell]);
#pragma unroll
        for (int j = 0; j < kWide<T>; ++j) sum = fma(w.at[j], grads_[cell + j], sum);
      }
      result[k][lane] = sum;
    }
  }

 private:
  T grads_[Cells::kCount];
};

}  // namespace fgs
