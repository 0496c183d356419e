// Every op's schema, in one table.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(feature_gs, m) {
  m.def(
      "project(Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor? sh_dc, Tensor? sh_rest, "
      "Tensor cam_from_world, Tensor K, int width, int height, float near, float far, bool antialiased) "
      "-> (Tensor means2d, Tensor conics, Tensor blended_opacities, Tensor colors, Tensor depths, Tensor radii)");
  m.def(
      "project_backward(Tensor grad_means2d, Tensor grad_conics, Tensor grad_opacities, Tensor grad_colors, "
      "Tensor grad_depths, Tensor means, Tensor quats, Tensor scales, Tensor opacities, Tensor? sh_dc, "
      "Tensor? sh_rest, Tensor cam_from_world, Tensor K, int width, int height, float near, float far, "
      "bool antialiased, Tensor colors, Tensor radii) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "intersect(Tensor means2d, Tensor conics, Tensor opacities, Tensor depths, Tensor radii, int width, int height) "
      "-> (Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, Tensor slot_tiles, Tensor gaussian_offsets)");
  m.def(
      "rasterize(Tensor means2d, Tensor conics, Tensor opacities, Tensor colors, Tensor depths, Tensor? features, "
      "Tensor? background, Tensor? absgrad, Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, "
      "Tensor gaussian_offsets, int width, int height, int feature_cell, bool features_move_geometry, "
      "bool tensor_cores) -> (Tensor color, Tensor alpha, Tensor depth, Tensor median_depth, "
      "Tensor blended_features, Tensor transmittance, Tensor last, Tensor weights)");
  m.def(
      "rasterize_backward(Tensor? grad_color, Tensor? grad_alpha, Tensor? grad_depth, Tensor? grad_features, "
      "Tensor? grad_weights, Tensor means2d, Tensor conics, Tensor opacities, Tensor colors, Tensor depths, "
      "Tensor? features, Tensor? background, Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, "
      "Tensor gaussian_offsets, Tensor alpha, Tensor depth, Tensor transmittance, Tensor last, "
      "int width, int height, int feature_cell, bool features_move_geometry, bool tensor_cores, bool absgrad, "
      "bool features_need_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "blend_cells(Tensor features, Tensor weights, Tensor tile_offsets, Tensor pair_gaussians, Tensor pair_slots, "
      "Tensor slot_tiles, Tensor gaussian_offsets, int batch, int rows, int columns) -> Tensor");
  m.def(
      "gather_cells(Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets, int count) -> Tensor");
  m.def(
      "accumulate_cells(Tensor(a!) sums, Tensor maps, float rate, float floor, Tensor weights, Tensor slot_tiles, "
      "Tensor gaussian_offsets) -> ()");
  m.def(
      "cell_products(Tensor features, Tensor maps, Tensor weights, Tensor slot_tiles, Tensor gaussian_offsets) "
      "-> Tensor");
  m.def("nearest_distances(Tensor points) -> Tensor");
  m.def("ssim(Tensor image, Tensor target) -> (Tensor mean, Tensor d_mean, Tensor d_square, Tensor d_cross)");
  m.def(
      "ssim_backward(Tensor grad, Tensor image, Tensor target, Tensor d_mean, Tensor d_square, Tensor d_cross) "
      "-> Tensor");
}
