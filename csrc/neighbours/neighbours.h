// nearest_distances: how far each point is from its nearest neighbours.
//
//   points [P, 3], finite -> [P]: the root mean squared distance to the 3 nearest of the other points, or to all of them
//     if they are fewer; 0 for a single point. Points in one place are neighbours at distance 0.
//
// Exact, in any order of the points; fast when those that follow each other are near each other. Distances are summed in
// float64. No gradient. On the CPU SciPy's k-d tree does this (feature_gs/gaussians/initialise.py).
#pragma once

namespace fgs {

constexpr int kNeighbours = 3;

}  // namespace fgs
