// CPU twin of ssim (formulas: ssim.h): rows in parallel, each filtered along y, then along x. An image row is W C
// numbers side by side, so a pixel's neighbours are C apart and every loop runs over the whole row.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <tuple>
#include <vector>

#include "../simd/kernels.h"
#include "inputs.h"

namespace fgs {
namespace {

constexpr int64_t kGrain = 16;  // rows

template <class T>
struct Forward {
  ImageShape shape;
  const T *image, *target;
  T *d_mean, *d_square, *d_cross;
  double* row_sums;  // Σ S of every image row, [B * H]
};

template <class T>
struct Backward {
  ImageShape shape;
  const T *grad, *image, *target, *d_mean, *d_square, *d_cross;
  T* out;
};

template <class T>
using Rows = std::array<const T*, kTaps>;

// out[i] = Σ_k window[|k - 5|] rows[k][i]: along y with the rows above and below, along x with one row shifted.
template <class T>
FGS_HD void blur(const Rows<T>& rows, int64_t n, T* __restrict out) {
  const T *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4], *r5 = rows[5], *r6 = rows[6],
          *r7 = rows[7], *r8 = rows[8], *r9 = rows[9], *r10 = rows[10];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    out[i] = T(kWindow[0]) * r5[i] + T(kWindow[1]) * (r4[i] + r6[i]) + T(kWindow[2]) * (r3[i] + r7[i]) +
             T(kWindow[3]) * (r2[i] + r8[i]) + T(kWindow[4]) * (r1[i] + r9[i]) + T(kWindow[5]) * (r0[i] + r10[i]);
  }
}

// Filters one image row in both directions: `along_y` takes the eleven rows around it, `padded` is a row with room for
// the zeros at both ends.
template <class T>
FGS_HD void blur_both(const Rows<T>& along_y, const ImageShape& shape, std::vector<T>& padded, T* __restrict out) {
  blur(along_y, shape.row(), padded.data() + kReach * shape.channels);
  Rows<T> along_x;
  for (int k = 0; k < kTaps; ++k) along_x[k] = padded.data() + k * shape.channels;
  blur(along_x, shape.row(), out);
}

// The rows y - 5 .. y + 5 of an image; those outside are `zeros`.
template <class T>
FGS_HD Rows<T> rows_around(const T* image, const ImageShape& shape, int64_t y, const T* zeros) {
  Rows<T> rows;
  for (int k = 0; k < kTaps; ++k) {
    const int64_t other = y + k - kReach;
    rows[k] = other >= 0 && other < shape.height ? image + other * shape.row() : zeros;
  }
  return rows;
}

// Σ values[i] in double, in eight interleaved sums.
template <class T>
FGS_HD double sum(const T* values, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += values[i + lane];
  }
  for (; i < n; ++i) lanes[0] += values[i];
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

// S of one row into `similarity`, from the filtered rows mx, my, G (x² + y²), G x y; and its three derivatives.
template <class T>
FGS_HD void similarity_row(const T* __restrict mx, const T* __restrict my, const T* __restrict square,
                               const T* __restrict cross, int64_t n, T* __restrict similarity, T* __restrict d_mean,
                               T* __restrict d_square, T* __restrict d_cross) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const Similarity<T> s = fgs::similarity(mx[i], my[i], square[i], cross[i]);
    similarity[i] = s.value, d_mean[i] = s.d_mean, d_square[i] = s.d_square, d_cross[i] = s.d_cross;
  }
}

// The rows [begin, end) of the B * H rows of all images.
template <class T>
FGS_HD void forward_rows(const Forward<T>& f, int64_t begin, int64_t end) {
  const ImageShape& shape = f.shape;
  const int64_t n = shape.row();
  const std::vector<T> zeros(n);
  std::vector<T> padded(n + 2 * kReach * shape.channels), mx(n), my(n), square(n), cross(n), similarity(n);
  // x² + y² and x y of the eleven rows around the current one: row y is kept in slot y mod 11
  std::vector<T> squares(kTaps * n), crosses(kTaps * n);
  int64_t ready = 0;  // first row of this image not yet in the slots
  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % shape.height, first = row - y;
    const T *image = f.image + first * n, *target = f.target + first * n;
    if (row == begin || y == 0) ready = std::max<int64_t>(0, y - kReach);
    for (; ready <= std::min(y + kReach, shape.height - 1); ++ready) {
      const T *__restrict a = image + ready * n, *__restrict b = target + ready * n;
      T *__restrict s = squares.data() + ready % kTaps * n, *__restrict c = crosses.data() + ready % kTaps * n;
      for (int64_t i = 0; i < n; ++i) {
        s[i] = a[i] * a[i] + b[i] * b[i];
        c[i] = a[i] * b[i];
      }
    }
    Rows<T> square_rows, cross_rows;
    for (int k = 0; k < kTaps; ++k) {
      const int64_t other = y + k - kReach;
      const bool inside = other >= 0 && other < shape.height;
      square_rows[k] = inside ? squares.data() + other % kTaps * n : zeros.data();
      cross_rows[k] = inside ? crosses.data() + other % kTaps * n : zeros.data();
    }
    blur_both(rows_around(image, shape, y, zeros.data()), shape, padded, mx.data());
    blur_both(rows_around(target, shape, y, zeros.data()), shape, padded, my.data());
    blur_both(square_rows, shape, padded, square.data());
    blur_both(cross_rows, shape, padded, cross.data());
    similarity_row(mx.data(), my.data(), square.data(), cross.data(), n, similarity.data(), f.d_mean + row * n,
                   f.d_square + row * n, f.d_cross + row * n);
    f.row_sums[row] = sum(similarity.data(), n);
  }
}

template <class T>
FGS_HD void backward_rows(const Backward<T>& f, int64_t begin, int64_t end) {
  const ImageShape& shape = f.shape;
  const int64_t n = shape.row();
  const std::vector<T> zeros(n);
  std::vector<T> padded(n + 2 * kReach * shape.channels), mean(n), square(n), cross(n);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % shape.height, first = (row - y) * n;
    blur_both(rows_around(f.d_mean + first, shape, y, zeros.data()), shape, padded, mean.data());
    blur_both(rows_around(f.d_square + first, shape, y, zeros.data()), shape, padded, square.data());
    blur_both(rows_around(f.d_cross + first, shape, y, zeros.data()), shape, padded, cross.data());
    const T scale = f.grad[row / shape.height] / T(shape.image());
    const T *__restrict x = f.image + row * n, *__restrict t = f.target + row * n;
    const T *__restrict m = mean.data(), *__restrict s = square.data(), *__restrict c = cross.data();
    T* __restrict out = f.out + row * n;
    for (int64_t i = 0; i < n; ++i) out[i] = scale * (m[i] + 2 * x[i] * s[i] + t[i] * c[i]);
  }
}

// The same loops compiled twice: with AVX2 and FMA for the x86 machines that have them, and as the compiler is set.
template <class T>
void rows_portable(const Forward<T>& f, int64_t begin, int64_t end) { forward_rows(f, begin, end); }
template <class T>
void rows_portable(const Backward<T>& f, int64_t begin, int64_t end) { backward_rows(f, begin, end); }

#if defined(__x86_64__)
template <class T>
__attribute__((target("avx2,fma"))) void rows_avx2(const Forward<T>& f, int64_t begin, int64_t end) {
  forward_rows(f, begin, end);
}
template <class T>
__attribute__((target("avx2,fma"))) void rows_avx2(const Backward<T>& f, int64_t begin, int64_t end) {
  backward_rows(f, begin, end);
}
#endif

template <class Pass>
void run(const Pass& pass) {
  const int64_t rows = pass.shape.batch * pass.shape.height;
#if defined(__x86_64__)
  if (std::strcmp(kernels(0.0f).name, "generic") != 0) {  // AVX2 or better
    torch::stable::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) { rows_avx2(pass, begin, end); });
    return;
  }
#endif
  torch::stable::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) { rows_portable(pass, begin, end); });
}

using SsimResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

SsimResult ssim_cpu(Tensor image, Tensor target) {
  const Kind kind = floating_kind(image, "image");
  const ImageShape shape = shape_of(image);
  image = checked_map(image, "image", kind, shape), target = checked_map(target, "target", kind, shape);
  Tensor mean = torch::stable::empty({shape.batch}, kind.dtype);
  Tensor d_mean = torch::stable::empty_like(image), d_square = torch::stable::empty_like(image),
         d_cross = torch::stable::empty_like(image);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    std::vector<double> row_sums(static_cast<size_t>(shape.batch * shape.height));
    run(Forward<T>{shape, data<T>(image), data<T>(target), mutable_data<T>(d_mean), mutable_data<T>(d_square),
                   mutable_data<T>(d_cross), row_sums.data()});
    T* out = mutable_data<T>(mean);
    const double* row = row_sums.data();
    for (int64_t b = 0; b < shape.batch; ++b, row += shape.height)
      out[b] = static_cast<T>(std::accumulate(row, row + shape.height, 0.0) / static_cast<double>(shape.image()));
  };
  kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return {mean, d_mean, d_square, d_cross};
}

Tensor ssim_backward_cpu(Tensor grad, Tensor image, Tensor target, Tensor d_mean, Tensor d_square, Tensor d_cross) {
  const Kind kind = floating_kind(image, "image");
  const ImageShape shape = shape_of(image);
  grad = checked(grad, "grad", kind, {shape.batch}, "[B]");
  image = checked_map(image, "image", kind, shape), target = checked_map(target, "target", kind, shape);
  d_mean = checked_map(d_mean, "d_mean", kind, shape), d_square = checked_map(d_square, "d_square", kind, shape);
  d_cross = checked_map(d_cross, "d_cross", kind, shape);
  Tensor out = torch::stable::empty_like(image);
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    run(Backward<T>{shape, data<T>(grad), data<T>(image), data<T>(target), data<T>(d_mean), data<T>(d_square),
                    data<T>(d_cross), mutable_data<T>(out)});
  };
  kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return out;
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CPU, m) {
  m.impl("ssim", TORCH_BOX(&fgs::ssim_cpu));
  m.impl("ssim_backward", TORCH_BOX(&fgs::ssim_backward_cpu));
}
