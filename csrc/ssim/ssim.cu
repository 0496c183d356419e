// CUDA twin of ssim (formulas: ssim.h). A block filters a tile of one image, up to four channels at a time, whose
// numbers lie side by side: along y from the maps into shared memory, along x from there, and the results go through
// shared memory once more, so that whole rows of numbers are read and written.
#include <tuple>

#include "../cuda/block.h"
#include "../cuda/launch.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int kWide = 32, kTall = 8;   // pixels of a tile
constexpr int kColumns = kWide + 2 * kReach;  // pixels that a row of it depends on
template <class T>
constexpr int kMaxChannels = sizeof(T) == 4 ? 4 : 3;  // of a block: more doubles than 64 KB hold, all that 7.5 has
constexpr int kThreads = 128;
constexpr int kRun = 4;                // neighbours that a thread filters in one go, reading kRun + 10 numbers
constexpr int kResults = 3;            // numbers that come of each place

template <class T, int M>
struct Values {
  T at[M];
};

// Where a block works.
template <class T>
struct Tile {
  int image;                   // of the batch
  int64_t left, top, channel;  // first pixel, first channel
  int channels;

  __device__ Tile(const ImageShape& shape, unsigned index) {
    const unsigned across = static_cast<unsigned>((shape.width + kWide - 1) / kWide);
    const unsigned down = static_cast<unsigned>((shape.height + kTall - 1) / kTall);
    const unsigned parts = static_cast<unsigned>((shape.channels + kMaxChannels<T> - 1) / kMaxChannels<T>);
    channel = index % parts * kMaxChannels<T>;
    left = index / parts % across * kWide;
    top = index / parts / across % down * kTall;
    image = static_cast<int>(index / parts / across / down);
    const int64_t left_over = shape.channels - channel;
    channels = left_over < kMaxChannels<T> ? static_cast<int>(left_over) : kMaxChannels<T>;
  }
};

template <class T>
int64_t tiles_of_image(const ImageShape& shape) {
  return ((shape.width + kWide - 1) / kWide) * ((shape.height + kTall - 1) / kTall) *
         ((shape.channels + kMaxChannels<T> - 1) / kMaxChannels<T>);
}

// Shared memory for M maps filtered along y, and for the results.
template <class T>
size_t shared_bytes(const ImageShape& shape, int M) {
  const int64_t channels = shape.channels < kMaxChannels<T> ? shape.channels : kMaxChannels<T>;
  return static_cast<size_t>(kTall * channels * (M * kColumns + kResults * kWide)) * sizeof(T);
}

// Filters kRun neighbours at once: read(k) gives the maps' values k = 0 .. kRun + 9 places behind the first that counts.
template <class T, int M, class Read>
__device__ void filter_run(const Read& read, Values<T, M> (&sums)[kRun]) {
#pragma unroll
  for (int k = 0; k < kRun + kTaps - 1; ++k) {
    const Values<T, M> value = read(k);
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      if (k < r || k - r >= kTaps) continue;
#pragma unroll
      for (int m = 0; m < M; ++m) sums[r].at[m] += window_weight<T>(k - r) * value.at[m];
    }
  }
}

// Filters what make(values of the maps) gives at every place, zeros outside the image; finish(filtered) makes the
// results of a place, and store(place in the maps, results) is called for each place of the tile inside the image.
template <class T, int S, int M, class Make, class Finish, class Store>
__device__ void filter_tile(const T* const (&maps)[S], const ImageShape& shape, const Tile<T>& tile, const Make& make,
                            const Finish& finish, const Store& store) {
  const int channels = tile.channels, columns = kColumns * channels, width = kWide * channels;
  T* along_y = dynamic_shared<T>();               // [M][kTall][columns]
  T* results = along_y + M * kTall * columns;     // [kResults][kTall][width]
  const int64_t row_stride = shape.width * shape.channels;
  const auto place_of = [&](int64_t x, int64_t y, int channel) {
    return ((tile.image * shape.height + y) * shape.width + x) * shape.channels + tile.channel + channel;
  };

  for (int task = threadIdx.x; task < kTall / kRun * columns; task += kThreads) {
    const int column = task % columns, row = task / columns * kRun;
    const int64_t x = tile.left + column / channels - kReach, y = tile.top + row - kReach;
    const bool inside = x >= 0 && x < shape.width;
    const int64_t from = place_of(x, y, column % channels);
    Values<T, M> sums[kRun] = {};
    filter_run<T, M>(
        [&](int k) {
          Values<T, S> value;
          const bool here = inside && y + k >= 0 && y + k < shape.height;
#pragma unroll
          for (int s = 0; s < S; ++s) value.at[s] = here ? maps[s][from + k * row_stride] : T(0);
          return make(value);
        },
        sums);
#pragma unroll
    for (int r = 0; r < kRun; ++r)
#pragma unroll
      for (int m = 0; m < M; ++m) along_y[(m * kTall + row + r) * columns + column] = sums[r].at[m];
  }
  __syncthreads();

  for (int task = threadIdx.x; task < kTall * width / kRun; task += kThreads) {
    const int channel = task % channels, run = task / channels % (kWide / kRun), row = task / (width / kRun);
    const T* from = along_y + row * columns + run * kRun * channels + channel;
    Values<T, M> sums[kRun] = {};
    filter_run<T, M>(
        [&](int k) {
          Values<T, M> value;
#pragma unroll
          for (int m = 0; m < M; ++m) value.at[m] = from[m * kTall * columns + k * channels];
          return value;
        },
        sums);
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      if (tile.left + run * kRun + r >= shape.width || tile.top + row >= shape.height) continue;
      const Values<T, kResults> value = finish(sums[r]);
#pragma unroll
      for (int i = 0; i < kResults; ++i)
        results[(i * kTall + row) * width + (run * kRun + r) * channels + channel] = value.at[i];
    }
  }
  __syncthreads();

  for (int i = threadIdx.x; i < kTall * width; i += kThreads) {
    const int column = i % width, row = i / width;
    const int64_t x = tile.left + column / channels, y = tile.top + row;
    if (x >= shape.width || y >= shape.height) continue;
    store(place_of(x, y, column % channels),
          Values<T, kResults>{{results[i], results[i + kTall * width], results[i + 2 * kTall * width]}});
  }
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
  __shared__ double parts[kThreads / kWarp];
  const Tile<T> tile(f.shape, blockIdx.x);
  const T* const maps[2] = {f.image, f.target};
  double sum = 0;
  filter_tile<T, 2, 4>(
      maps, f.shape, tile,
      [](const Values<T, 2>& v) {
        const T x = v.at[0], y = v.at[1];
        return Values<T, 4>{{x, y, x * x + y * y, x * y}};
      },
      [&](const Values<T, 4>& v) {
        const Similarity<T> s = similarity(v.at[0], v.at[1], v.at[2], v.at[3]);
        sum += static_cast<double>(s.value);
        return Values<T, 3>{{s.d_mean, s.d_square, s.d_cross}};
      },
      [&](int64_t place, const Values<T, 3>& v) {
        f.d_mean[place] = v.at[0], f.d_square[place] = v.at[1], f.d_cross[place] = v.at[2];
      });
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
  const Tile<T> tile(f.shape, blockIdx.x);
  const T* const maps[3] = {f.d_mean, f.d_square, f.d_cross};
  const T scale = f.grad[tile.image] / T(f.shape.image());
  const auto as_it_is = [](const Values<T, 3>& v) { return v; };
  filter_tile<T, 3, 3>(maps, f.shape, tile, as_it_is, as_it_is, [&](int64_t place, const Values<T, 3>& v) {
    f.out[place] = scale * (v.at[0] + T(2) * f.image[place] * v.at[1] + f.target[place] * v.at[2]);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ssim_cuda(Tensor image, Tensor target) {
  const Kind kind = floating_kind(image, "image");
  const ImageShape shape = shape_of(image);
  image = checked_map(image, "image", kind, shape), target = checked_map(target, "target", kind, shape);
  const OnDevice device(image);
  Tensor mean = torch::stable::new_empty(image, {shape.batch});
  Tensor d_mean = torch::stable::empty_like(image), d_square = torch::stable::empty_like(image),
         d_cross = torch::stable::empty_like(image);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const int64_t tiles = shape.batch * tiles_of_image<T>(shape);
    Tensor sums = scratch<double>(image, tiles);
    double* sum = mutable_data<double>(sums);
    launch({blocks_for(tiles, 1), kThreads, device.stream, shared_bytes<T>(shape, 4)}, forward_kernel<T>,
           Forward<T>{shape, data<T>(image), data<T>(target), mutable_data<T>(d_mean), mutable_data<T>(d_square),
                      mutable_data<T>(d_cross), sum});
    launch({blocks_for(shape.batch, 1), kThreads, device.stream}, mean_kernel<T>, sum, tiles_of_image<T>(shape),
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
    launch({blocks_for(shape.batch * tiles_of_image<T>(shape), 1), kThreads, device.stream, shared_bytes<T>(shape, 3)},
           backward_kernel<T>,
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
