// CUDA twin of project (contract: project.h): a thread per Gaussian and camera, and per Gaussian for the gradient, so
// that its sums over the cameras have an order. Warps bring the harmonics of their Gaussians through shared memory.
#include <type_traits>

#include "../cuda/block.h"
#include "../cuda/launch.h"
#include "inputs.h"
#include "splat.h"

namespace fgs {
namespace {

constexpr int kThreads = 128;

// The rows of sh_rest of a block's Gaussians for kCount harmonics, as far apart as lets 32 threads read them at once.
template <class T, int kCount>
struct RestRows {
  static constexpr int kWidth = kCount > 1 ? 3 * (kCount - 1) : 0, kPitch = kWidth | 1;
  T numbers[kThreads * kPitch];
  __device__ T* of_thread() { return numbers + threadIdx.x * kPitch; }

  // The lanes of a warp copy side by side the rows of the lanes that are `wanted`; all lanes must be here.
  __device__ void read(const T* from, int64_t stride, int64_t first, bool wanted) {
    each_number(first, wanted, [&](T& number, int64_t row, int column) { number = from[row * stride + column]; });
    __syncwarp();
  }
  __device__ void write(T* to, int64_t first, bool wanted) {
    __syncwarp();
    each_number(first, wanted, [&](const T& number, int64_t row, int column) { to[row * kWidth + column] = number; });
  }

 private:
  // first: of the Gaussians of the block.
  template <class Visit>
  __device__ void each_number(int64_t first, bool wanted, const Visit& visit) {
    const unsigned rows = __ballot_sync(kAllLanes, wanted);
    if (!rows) return;
    const int base = warp_of_block() * kWarp;
#pragma unroll 5
    for (int i = lane_of_warp(); i < kWarp * kWidth; i += kWarp) {
      const int row = i / kWidth, column = i % kWidth;
      if (rows >> row & 1) visit(numbers[(base + row) * kPitch + column], first + base + row, column);
    }
  }
};

template <class T>
__device__ Vec3<T> vec3(const T* from) { return {from[0], from[1], from[2]}; }
template <class T>
__device__ Quat<T> quat(const T* from) { return {from[0], from[1], from[2], from[3]}; }
template <class T>
__device__ void put(T* to, const Vec3<T>& v) { to[0] = v.x, to[1] = v.y, to[2] = v.z; }

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads) forward_kernel(ProjectInputs<T> in, ProjectOutputs<T> out) {
  __shared__ RestRows<T, kCount> rest;
  const int64_t blocks = (in.gaussians + kThreads - 1) / kThreads;
  const int64_t camera_index = blockIdx.x / blocks, first = blockIdx.x % blocks * kThreads, n = first + threadIdx.x;
  const bool exists = n < in.gaussians;
  const T width = static_cast<T>(in.width), height = static_cast<T>(in.height);
  const Pinhole<T> camera = make_pinhole<T>(in, camera_index);
  Vec3<T> mean{}, color{};
  SplatView<T> splat{};
  T z(0);
  bool visible = false;
  if (exists) {
    mean = vec3(in.means + 3 * n);
    const T opacity = in.opacities[n];
    z = dot(camera.rotation.row2, mean) + camera.translation.z;
    if (z > T(in.near) && z < T(in.far) && opacity >= T(kMinAlpha)) {
      splat = view_splat(mean, quat(in.quats + 4 * n), vec3(in.scales + 3 * n), opacity, camera, in.antialiased);
      visible = is_visible(splat, T(0), width, height);
    }
  }
  if constexpr (kCount > 1) rest.read(in.sh_rest, in.sh_rest_stride, first, visible);
  if constexpr (kCount > 0) {
    if (visible) {
      T basis[kMaxShBands];
      sh_basis(view_direction(mean, camera).unit, kCount, basis);
      color = sh_color(kCount, vec3(in.sh_dc + n * in.sh_dc_stride), rest.of_thread(), basis);
      visible = is_visible(splat, size_of(color), width, height);
    }
  }
  if (!exists) return;
  const int64_t i = camera_index * in.gaussians + n;
  const auto kept = [&](T value) { return visible ? value : T(0); };
  out.means2d[2 * i] = kept(splat.x), out.means2d[2 * i + 1] = kept(splat.y);
  put(out.conics + 3 * i, {kept(splat.conic.xx), kept(splat.conic.xy), kept(splat.conic.yy)});
  out.opacities[i] = kept(splat.opacity);
  out.depths[i] = kept(z);
  if constexpr (kCount > 0)
    put(out.colors + 3 * i, {kept(max(color.x, T(0))), kept(max(color.y, T(0))), kept(max(color.z, T(0)))});
  out.radii[i] = visible ? whole_radius(max(splat.half_width, splat.half_height)) : 0;
}

template <class T>
__device__ Vec3<T> color_gradient(const ProjectGrads<T>& g, int64_t i) {
  const Vec3<T> value = vec3(g.projected_colors + 3 * i), raw = vec3(g.colors + 3 * i);
  return {select(value.x > T(0), raw.x, T(0)), select(value.y > T(0), raw.y, T(0)),
          select(value.z > T(0), raw.z, T(0))};
}

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads) backward_kernel(ProjectInputs<T> in, ProjectGrads<T> g) {
  __shared__ RestRows<T, kCount> rest;
  const int64_t first = int64_t{blockIdx.x} * kThreads, n = first + threadIdx.x;
  const bool exists = n < in.gaussians;
  const auto each_camera = [&](const auto& visit) {  // that sees the Gaussian
    if (!exists) return;
    for (int64_t b = 0; b < in.cameras; ++b)
      if (g.radii[b * in.gaussians + n] > 0) visit(make_pinhole<T>(in, b), b * in.gaussians + n);
  };
  bool seen = false;
  for (int64_t b = 0; b < in.cameras; ++b) seen = seen || (exists && g.radii[b * in.gaussians + n] > 0);
  if constexpr (kCount > 1) rest.read(in.sh_rest, in.sh_rest_stride, first, seen);

  GaussianGrad<T> sum{};
  T sum_opacity(0);
  Vec3<T> g_dc{};
  const Vec3<T> mean = seen ? vec3(in.means + 3 * n) : Vec3<T>{};
  each_camera([&](const Pinhole<T>& camera, int64_t i) {
    const SplatViewGrad<T> g_splat{g.means2d[2 * i], g.means2d[2 * i + 1],
                                   {g.conics[3 * i], g.conics[3 * i + 1], g.conics[3 * i + 2]},
                                   g.opacities[i], g.depths[i]};
    const CameraShare<T> share = view_splat_vjp(mean, quat(in.quats + 4 * n), vec3(in.scales + 3 * n), in.opacities[n],
                                               camera, in.antialiased, g_splat);
    const GaussianGrad<T>& part = share.gaussian;
    sum.mean = sum.mean + part.mean, sum.scale = sum.scale + part.scale;
    sum.quat = {sum.quat.w + part.quat.w, sum.quat.x + part.quat.x, sum.quat.y + part.quat.y,
                sum.quat.z + part.quat.z};
    sum_opacity += share.opacity;
    if constexpr (kCount > 1)
      sum.mean = sum.mean + sh_direction_vjp(view_direction(mean, camera), kCount, rest.of_thread(),
                                             color_gradient(g, i));
  });
  if constexpr (kCount > 0) {
    T* g_rest = rest.of_thread();  // the coefficients are no longer needed
    for (int k = 0; k < rest.kWidth; ++k) g_rest[k] = T(0);
    each_camera([&](const Pinhole<T>& camera, int64_t i) {
      const Vec3<T> g_color = color_gradient(g, i);
      T basis[kMaxShBands];
      sh_basis(view_direction(mean, camera).unit, kCount, basis);
      g_dc = g_dc + basis[0] * g_color;
      add_sh_rest_vjp(kCount, basis, g_color, g_rest);
    });
  }
  if constexpr (kCount > 1) rest.write(g.sh_rest, first, exists);
  if (!exists) return;
  put(g.means + 3 * n, sum.mean), put(g.scales + 3 * n, sum.scale);
  g.quats[4 * n] = sum.quat.w, g.quats[4 * n + 1] = sum.quat.x;
  g.quats[4 * n + 2] = sum.quat.y, g.quats[4 * n + 3] = sum.quat.z;
  g.raw_opacities[n] = sum_opacity;
  if constexpr (kCount > 0) put(g.sh_dc + 3 * n, g_dc);
}

// Calls work(zero of the dtype, number of harmonics as a constant).
template <class Work>
void for_kind(const ProjectArguments& in, const Work& work) {
  const auto with = [&](auto zero) {
    switch (in.sh_dc ? in.rest() + 1 : 0) {
      case 0: return work(zero, std::integral_constant<int, 0>());
      case 1: return work(zero, std::integral_constant<int, 1>());
      case 4: return work(zero, std::integral_constant<int, 4>());
      case 9: return work(zero, std::integral_constant<int, 9>());
      default: return work(zero, std::integral_constant<int, 16>());
    }
  };
  in.kind.dtype == ScalarType::Double ? with(0.0) : with(0.0f);
}

ProjectResult project_cuda(Tensor means, Tensor quats, Tensor scales, Tensor opacities, std::optional<Tensor> sh_dc,
                           std::optional<Tensor> sh_rest, Tensor cam_from_world, Tensor K, int64_t width,
                           int64_t height, double near, double far, bool antialiased) {
  ProjectArguments in{means,          quats, scales, opacities, sh_dc, sh_rest,
                      cam_from_world, K,     width,  height,    near,  far,     antialiased};
  in.check();
  const OnDevice device(means);
  ProjectTensors out(in);
  for_kind(in, [&](auto zero, auto count) {
    using T = decltype(zero);
    const unsigned blocks = blocks_for(in.cameras() * ((in.gaussians() + kThreads - 1) / kThreads), 1);
    launch({blocks, kThreads, device.stream}, forward_kernel<T, count()>, in.raw<T>(), out.raw<T>());
  });
  return out.all();
}

ProjectResult project_backward_cuda(Tensor g_means2d, Tensor g_conics, Tensor g_blended, Tensor g_colors,
                                    Tensor g_depths, Tensor means, Tensor quats, Tensor scales, Tensor opacities,
                                    std::optional<Tensor> sh_dc, std::optional<Tensor> sh_rest, Tensor cam_from_world,
                                    Tensor K, int64_t width, int64_t height, double near, double far, bool antialiased,
                                    Tensor colors, Tensor radii) {
  ProjectArguments in{means,          quats, scales, opacities, sh_dc, sh_rest,
                      cam_from_world, K,     width,  height,    near,  far,     antialiased};
  in.check();
  ProjectGradTensors out(in, g_means2d, g_conics, g_blended, g_colors, g_depths, colors, radii);
  const OnDevice device(means);
  for_kind(in, [&](auto zero, auto count) {
    using T = decltype(zero);
    launch({blocks_for(in.gaussians(), kThreads), kThreads, device.stream}, backward_kernel<T, count()>, in.raw<T>(),
           out.raw<T>());
  });
  return out.all();
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) {
  m.impl("project", TORCH_BOX(&fgs::project_cuda));
  m.impl("project_backward", TORCH_BOX(&fgs::project_backward_cuda));
}
