// Stands in for CUDA's matrix products of a warp (nvcuda::wmma): 16x16x8 of tf32, summed in float. The elements of a
// fragment are dealt to the lanes in an order that nothing should rely on. Operands lose the bits that the tensor cores
// do not read.
#pragma once

#include <cuda_runtime.h>

namespace nvcuda::wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}

// Rounds to the 10 bits of mantissa that a tensor core reads; halves away from zero.
inline float __float_to_tf32(float x) {
  const uint32_t bits = cuda_host::same_bits<uint32_t>(x);
  if ((bits & 0x7F800000u) == 0x7F800000u) return x;
  return cuda_host::same_bits<float>((bits + 0x1000u) & ~0x1FFFu);
}

// What a tensor core reads of an operand.
inline float read_operand(float value) {
  return cuda_host::same_bits<float>(cuda_host::same_bits<uint32_t>(value) & ~0x1FFFu);
}

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 8);
  static_assert(std::is_same_v<T, std::conditional_t<std::is_same_v<Use, accumulator>, float, precision::tf32>>);
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M, columns = std::is_same_v<Use, matrix_a> ? K : N;
  static constexpr int num_elements = rows * columns / cuda_host::kLanes;
  float x[num_elements];

  // The place in the matrix, row by row, of the i-th element of a lane.
  static int place(int lane, int i) { return (i * cuda_host::kLanes + lane) * 7 % (rows * columns); }
};

template <class Fragment>
void check_address(const void* at, unsigned stride, const char* name) {
  if (reinterpret_cast<uintptr_t>(at) % 32) cuda_host::fail(std::string(name) + " needs an address of whole 32 bytes");
  if (stride * sizeof(float) % 16) cuda_host::fail(std::string(name) + " needs rows of whole 16 bytes");
}

inline size_t offset(int place, int columns, unsigned stride, bool by_row) {
  const size_t row = static_cast<size_t>(place / columns), column = static_cast<size_t>(place % columns);
  return by_row ? row * stride + column : column * stride + row;
}

// Reads, then waits: what other lanes wrote must have been waited for before.
template <class Use, int M, int N, int K, class T, class Layout, class S>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& to, const S* from, unsigned stride, CUDA_HOST_PLACE) {
  using F = fragment<Use, M, N, K, T, Layout>;
  check_address<F>(from, stride, "load_matrix_sync");
  for (int i = 0; i < F::num_elements; ++i)
    to.x[i] = from[offset(F::place(cuda_host::lane(), i), F::columns, stride, std::is_same_v<Layout, row_major>)];
  cuda_host::wait_for_warp({"load_matrix_sync", file, line}, 0xFFFFFFFFu, nullptr, nullptr);
}
template <int M, int N, int K>
void load_matrix_sync(fragment<accumulator, M, N, K, float>& to, const float* from, unsigned stride, layout_t layout,
                      CUDA_HOST_PLACE) {
  using F = fragment<accumulator, M, N, K, float>;
  check_address<F>(from, stride, "load_matrix_sync");
  for (int i = 0; i < F::num_elements; ++i)
    to.x[i] = from[offset(F::place(cuda_host::lane(), i), F::columns, stride, layout == mem_row_major)];
  cuda_host::wait_for_warp({"load_matrix_sync", file, line}, 0xFFFFFFFFu, nullptr, nullptr);
}

// Waits, then writes: what other lanes read next must be waited for.
template <int M, int N, int K>
void store_matrix_sync(float* to, const fragment<accumulator, M, N, K, float>& from, unsigned stride, layout_t layout,
                       CUDA_HOST_PLACE) {
  using F = fragment<accumulator, M, N, K, float>;
  check_address<F>(to, stride, "store_matrix_sync");
  cuda_host::wait_for_warp({"store_matrix_sync", file, line}, 0xFFFFFFFFu, nullptr, nullptr);
  for (int i = 0; i < F::num_elements; ++i)
    to[offset(F::place(cuda_host::lane(), i), F::columns, stride, layout == mem_row_major)] = from.x[i];
}

template <class Fragment>
void fill_fragment(Fragment& to, float value) {
  for (auto& x : to.x) x = value;
}

// d = a b + c, once for the whole warp.
template <int M, int N, int K, class T, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& d, const fragment<matrix_a, M, N, K, T, LayoutA>& a,
              const fragment<matrix_b, M, N, K, T, LayoutB>& b, const fragment<accumulator, M, N, K, float>& c,
              CUDA_HOST_PLACE) {
  using A = fragment<matrix_a, M, N, K, T, LayoutA>;
  using B = fragment<matrix_b, M, N, K, T, LayoutB>;
  using C = fragment<accumulator, M, N, K, float>;
  struct Deposit {
    C* d;
    const A* a;
    const B* b;
    const C* c;
  } deposit{&d, &a, &b, &c};
  cuda_host::wait_for_warp({"mma_sync", file, line}, 0xFFFFFFFFu, &deposit, [](void* const* deposits) CUDA_HOST_UNWATCHED {
    float left[M * K], right[K * N], sum[M * N];
    const auto each = [&](const auto& visit) CUDA_HOST_UNWATCHED {
      for (int lane = 0; lane < cuda_host::kLanes; ++lane) visit(lane, *static_cast<const Deposit*>(deposits[lane]));
    };
    each([&](int lane, const Deposit& mine) CUDA_HOST_UNWATCHED {
      for (int i = 0; i < A::num_elements; ++i) left[A::place(lane, i)] = read_operand(mine.a->x[i]);
      for (int i = 0; i < B::num_elements; ++i) right[B::place(lane, i)] = read_operand(mine.b->x[i]);
      for (int i = 0; i < C::num_elements; ++i) sum[C::place(lane, i)] = mine.c->x[i];
    });
    for (int m = 0; m < M; ++m)
      for (int k = 0; k < K; ++k)
        for (int n = 0; n < N; ++n) sum[m * N + n] += left[m * K + k] * right[k * N + n];
    each([&](int lane, const Deposit& mine) CUDA_HOST_UNWATCHED {
      for (int i = 0; i < C::num_elements; ++i) mine.d->x[i] = sum[C::place(lane, i)];
    });
  });
}

}  // namespace nvcuda::wmma
