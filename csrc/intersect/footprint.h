// Which tiles a splat meets, one row of tiles after the other: the same test on the CPU and in CUDA.
#pragma once

#include <cstdint>

#include "../math/ellipse.h"
#include "intersect.h"

namespace fgs {
inline namespace FGS_ISA {

template <class T>
struct Splats {
  const T *means2d, *conics, *opacities, *depths;
  const int32_t* radii;
  int32_t tiles_x, tiles_y;
};

// Where alpha >= 1/255, over the grid of tiles.
template <class T>
struct Footprint {
  Ellipse<T> ellipse;
  T x, y;             // centre, pixels
  int32_t top, rows;  // rows of tiles that the ellipse's bounding box meets
};

struct TileSpan {
  int32_t first, count;  // tiles side by side
};

// Tiles, of `count` in a row or column, whose pixel centres reach up to `low`, or down to `high`: ceil and floor
// through truncation.
template <class T>
FGS_HD int32_t first_tile(T low, int32_t count) {
  const T place = min(max((low - T(kTile - 0.5)) / kTile, T(0)), T(count));
  const int32_t whole = static_cast<int32_t>(place);
  return whole + (T(whole) < place);
}

template <class T>
FGS_HD int32_t last_tile(T high, int32_t count) {
  return static_cast<int32_t>(min(max((high - T(0.5)) / kTile + 1, T(0)), T(count))) - 1;
}

// No rows for a splat that is not visible.
template <class T>
FGS_HD Footprint<T> make_footprint(const Splats<T>& s, int64_t i) {
  Footprint<T> f;
  f.top = f.rows = 0;
  if (s.radii[i] <= 0) return f;
  f.x = s.means2d[2 * i], f.y = s.means2d[2 * i + 1];
  const T* conic = s.conics + 3 * i;
  const Ellipse<T>& e = f.ellipse = make_ellipse(conic[0], conic[1], conic[2], ellipse_reach(s.opacities[i]));
  if (!(e.det > T(0)) || !(abs(f.x) + abs(f.y) + e.half_width + e.half_height < T(1e30))) return f;
  const T margin = T(kEllipseMargin);
  f.top = first_tile(f.y - e.half_height - margin, s.tiles_y);
  f.rows = last_tile(f.y + e.half_height + margin, s.tiles_y) - f.top + 1;
  if (f.rows < 0) f.rows = 0;
  return f;
}

// The tiles that the ellipse meets in row `tile_y`; the count is 0 where it meets none.
template <class T>
FGS_HD TileSpan tiles_in_row(const Footprint<T>& f, int32_t tile_y, int32_t tiles_x) {
  const T band_top = T(static_cast<int64_t>(tile_y) * kTile) + T(0.5) - f.y;
  const Interval<T> dx = extent_in_band(f.ellipse, band_top, band_top + T(kTile - 1));
  if (!(dx.low <= dx.high)) return {0, 0};
  const int32_t first = first_tile(f.x + dx.low, tiles_x), last = last_tile(f.x + dx.high, tiles_x);
  return {first, first <= last ? last - first + 1 : 0};
}

}  // namespace FGS_ISA
}  // namespace fgs
