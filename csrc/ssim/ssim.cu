// CUDA twin of ssim (formulas: ssim.h). A block filters a tile of one image, channel after channel: it reads the tile
// and its border into shared memory, filters along x into shared memory and along y in registers.
#include <tuple>

#include "../cuda/block.h"
#include "../cuda/launch.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int kWide = 32, kTall = 16;  // pixels of a tile
constexpr int kWideRead = kWide + 2 * kReach, kTallRead = kTall + 2 * kReach;
constexpr int kThreads = 256, kRows = kTall * kWide / kThreads;  // rows of a tile that one thread filters along y

template <class T, int M>
struct Values {
  T at[M];
};

// Where a block stands.
struct Tile {
  int64_t image;      // of the batch
  int64_t left, top;  // pixels
  __device__ Tile(const ImageShape& shape, int64_t index) {
    const int64_t across = (shape.width + kWide - 1) / kWide, down = (shape.height + kTall - 1) / kTall;
    image = index / (across * down);
    left = index % across * kWide, top = index / across % down * kTall;
  }
};

int64_t tiles_of(const ImageShape& shape) {
  return shape.batch * ((shape.width + kWide - 1) / kWide) * ((shape.height + kTall - 1) / kTall);
}

// Shared memory of a block: S maps as read, M maps as filtered along x.
template <class T, int S, int M>
struct Shared {
  T read[S][kTallRead][kWideRead];
  T filtered[M][kTallRead][kWide];
};

// Reads one channel of S maps around the tile; zeros outside the image.
template <class T, int S, int M>
__device__ void read_tile(const T* const (&maps)[S], const ImageShape& shape, const Tile& tile, int64_t channel,
                          Shared<T, S, M>& shared) {
  for (int i = threadIdx.x; i < kTallRead * kWideRead; i += kThreads) {
    const int row = i / kWideRead, column = i % kWideRead;
    const int64_t x = tile.left + column - kReach, y = tile.top + row - kReach;
    const bool inside = x >= 0 && x < shape.width && y >= 0 && y < shape.height;
    const int64_t from = ((tile.image * shape.height + y) * shape.width + x) * shape.channels + channel;
#pragma unroll
    for (int s = 0; s < S; ++s) shared.read[s][row][column] = inside ? maps[s][from] : T(0);
  }
}

// Filters along x what make(values as read) gives at every place.
template <class T, int S, int M, class Make>
__device__ void filter_along_x(Shared<T, S, M>& shared, const Make& make) {
  for (int i = threadIdx.x; i < kTallRead * kWide; i += kThreads) {
    const int row = i / kWide, column = i % kWide;
    Values<T, M> sum{};
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      Values<T, S> read;
#pragma unroll
      for (int s = 0; s < S; ++s) read.at[s] = shared.read[s][row][column + k];
      const Values<T, M> value = make(read);
#pragma unroll
      for (int m = 0; m < M; ++m) sum.at[m] += window_weight<T>(k) * value.at[m];
    }
#pragma unroll
    for (int m = 0; m < M; ++m) shared.filtered[m][row][column] = sum.at[m];
  }
}

// Filters along y, for the kRows places below each other that belong to this thread.
template <class T, int S, int M>
__device__ void filter_along_y(const Shared<T, S, M>& shared, Values<T, M> (&sums)[kRows]) {
  const int column = threadIdx.x % kWide, first = threadIdx.x / kWide * kRows;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    T values[kRows + 2 * kReach];
#pragma unroll
    for (int k = 0; k < kRows + 2 * kReach; ++k) values[k] = shared.filtered[m][first + k][column];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sums[r].at[m] = T(0);
#pragma unroll
      for (int k = 0; k < kTaps; ++k) sums[r].at[m] += window_weight<T>(k) * values[r + k];
    }
  }
}

// Calls visit(row of this thread, place in the maps) for this thread's places inside the image.
template <class Visit>
__device__ void each_place(const ImageShape& shape, const Tile& tile, int64_t channel, const Visit& visit) {
  const int64_t x = tile.left + threadIdx.x % kWide, first = tile.top + threadIdx.x / kWide * kRows;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (x < shape.width && first + r < shape.height)
      visit(r, ((tile.image * shape.height + first + r) * shape.width + x) * shape.channels + channel);
}

template <class T>
struct Forward {
  ImageShape shape;
  const T *image, *target;
  T *d_mean, *d_square, *d_cross;
  double* sums;  // Σ S of every tile
};

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward<T> f) {
  __shared__ Shared<T, 2, 4> shared;
  __shared__ double parts[kThreads / kWarp];
  const Tile tile(f.shape, blockIdx.x);
  const T* const maps[2] = {f.image, f.target};
  double sum = 0;
  for (int64_t channel = 0; channel < f.shape.channels; ++channel) {
    read_tile(maps, f.shape, tile, channel, shared);
    __syncthreads();
    filter_along_x(shared, [](const Values<T, 2>& v) {
      const T x = v.at[0], y = v.at[1];
      return Values<T, 4>{{x, y, x * x + y * y, x * y}};
    });
    __syncthreads();
    Values<T, 4> filtered[kRows];
    filter_along_y(shared, filtered);
    each_place(f.shape, tile, channel, [&](int r, int64_t place) {
      const T(&v)[4] = filtered[r].at;
      const Similarity<T> s = similarity(v[0], v[1], v[2], v[3]);
      f.d_mean[place] = s.d_mean, f.d_square[place] = s.d_square, f.d_cross[place] = s.d_cross;
      sum += static_cast<double>(s.value);
    });
  }
  sum = block_sum<kThreads>(sum, parts);
  if (threadIdx.x == 0) f.sums[blockIdx.x] = sum;
}

// The mean of S of each image, a block each, from the sums of its tiles.
template <class T>
__global__ void __launch_bounds__(kThreads) mean_kernel(const double* sums, int64_t tiles, int64_t numbers, T* mean) {
  __shared__ double parts[kThreads / kWarp];
  double sum = 0;
  for (int64_t tile = threadIdx.x; tile < tiles; tile += kThreads) sum += sums[blockIdx.x * tiles + tile];
  sum = block_sum<kThreads>(sum, parts);
  if (threadIdx.x == 0) mean[blockIdx.x] = static_cast<T>(sum / static_cast<double>(numbers));
}

template <class T>
struct Backward {
  ImageShape shape;
  const T *grad, *image, *target, *d_mean, *d_square, *d_cross;
  T* out;
};

template <class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(Backward<T> f) {
  __shared__ Shared<T, 3, 3> shared;
  const Tile tile(f.shape, blockIdx.x);
  const T* const maps[3] = {f.d_mean, f.d_square, f.d_cross};
  const T scale = f.grad[tile.image] / T(f.shape.image());
  for (int64_t channel = 0; channel < f.shape.channels; ++channel) {
    read_tile(maps, f.shape, tile, channel, shared);
    __syncthreads();
    filter_along_x(shared, [](const Values<T, 3>& v) { return v; });
    __syncthreads();
    Values<T, 3> filtered[kRows];
    filter_along_y(shared, filtered);
    each_place(f.shape, tile, channel, [&](int r, int64_t place) {
      const T(&v)[3] = filtered[r].at;
      f.out[place] = scale * (v[0] + T(2) * f.image[place] * v[1] + f.target[place] * v[2]);
    });
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ssim_cuda(Tensor image, Tensor target) {
  const Kind kind = floating_kind(image, "image");
  const ImageShape shape = shape_of(image);
  image = checked_map(image, "image", kind, shape), target = checked_map(target, "target", kind, shape);
  const OnDevice device(image);
  Tensor mean = torch::stable::new_empty(image, {shape.batch});
  Tensor d_mean = torch::stable::empty_like(image), d_square = torch::stable::empty_like(image),
         d_cross = torch::stable::empty_like(image);
  const int64_t tiles = tiles_of(shape);
  Tensor sums = scratch<double>(image, tiles);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    double* sum = mutable_data<double>(sums);
    launch({blocks_for(tiles, 1), kThreads, device.stream}, forward_kernel<T>,
           Forward<T>{shape, data<T>(image), data<T>(target), mutable_data<T>(d_mean), mutable_data<T>(d_square),
                      mutable_data<T>(d_cross), sum});
    if (shape.batch)
      launch({blocks_for(shape.batch, 1), kThreads, device.stream}, mean_kernel<T>, sum, tiles / shape.batch,
             shape.image(), mutable_data<T>(mean));
  };
  kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {mean, d_mean, d_square, d_cross};
}

Tensor ssim_backward_cuda(Tensor grad, Tensor image, Tensor target, Tensor d_mean, Tensor d_square, Tensor d_cross) {
  const Kind kind = floating_kind(image, "image");
  const ImageShape shape = shape_of(image);
  grad = checked(grad, "grad", kind, {shape.batch}, "[B]");
  image = checked_map(image, "image", kind, shape), target = checked_map(target, "target", kind, shape);
  d_mean = checked_map(d_mean, "d_mean", kind, shape), d_square = checked_map(d_square, "d_square", kind, shape);
  d_cross = checked_map(d_cross, "d_cross", kind, shape);
  const OnDevice device(image);
  Tensor out = torch::stable::empty_like(image);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    launch({blocks_for(tiles_of(shape), 1), kThreads, device.stream}, backward_kernel<T>,
           Backward<T>{shape, data<T>(grad), data<T>(image), data<T>(target), data<T>(d_mean), data<T>(d_square),
                       data<T>(d_cross), mutable_data<T>(out)});
  };
  kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return out;
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) {
  m.impl("ssim", TORCH_BOX(&fgs::ssim_cuda));
  m.impl("ssim_backward", TORCH_BOX(&fgs::ssim_backward_cuda));
}
