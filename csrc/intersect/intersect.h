// intersect: which splats reach which 16x16 tile, nearest first. The only op whose output sizes depend on the data.
//
//   means2d [B, N, 2], conics [B, N, 3], opacities [B, N], depths [B, N], radii [B, N] int32 (0 = not visible)
//   -> tile_offsets [B * tiles_y * tiles_x + 1] int64: the pairs of tile t are tile_offsets[t] .. tile_offsets[t + 1]
//      pair_gaussians [P] int32: b * N + n, by tile, then by depth, then by n
//      pair_slots [P] int32: the same pair's place in the order by Gaussian, then by tile
//      slot_tiles [P] int32: the tile of each place in that order
//      gaussian_offsets [B * N + 1] int64: the places of Gaussian b * N + n are gaussian_offsets[b * N + n] .. [.. + 1]
//
// The test is exact: a pair is listed when the ellipse alpha >= 1/255, widened by 0.01 px, meets the rectangle of the
// tile's pixel centres. Nothing here carries a gradient. Every output is the same for any number of threads.
#pragma once

#include <cstdint>

namespace fgs {

constexpr int kTile = 16;

}  // namespace fgs
