// CUDA twin of nearest_distances (contract: neighbours.h). 32 points that follow each other are a leaf, 32 leaves a node,
// 32 nodes a node of the next level, each with the box around them. A warp looks for the neighbours of a leaf's points
// together, and leaves out boxes that are farther from all of them than what they have found.
#include "neighbours.h"

#include <cmath>
#include <limits>

#include "../cuda/block.h"
#include "../cuda/launch.h"

namespace fgs {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

template <class T>
struct Box {
  T low[3], high[3];
};

template <class T>
struct Tree {
  const T* points;  // [count, 3]
  int32_t count;

  // Of the boxes of a level; those of the leaves are level 0.
  __host__ __device__ int32_t size(int level) const {
    const int bits = 5 * (level + 1);
    return static_cast<int32_t>((count + (int64_t{1} << bits) - 1) >> bits);
  }
};

// The boxes of a level, a warp each, from the points, or from the boxes of the level below.
template <class T>
__global__ void __launch_bounds__(kThreads) boxes_kernel(Tree<T> tree, int level, const Box<T>* below, Box<T>* boxes) {
  const int32_t node = static_cast<int32_t>(blockIdx.x) * kWarps + warp_of_block();
  if (node >= tree.size(level)) return;
  const int32_t child = ::min(node * kWarp + lane_of_warp(), tree.size(level - 1) - 1);
  Box<T> box;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    box.low[axis] = level ? below[child].low[axis] : tree.points[3 * int64_t{child} + axis];
    box.high[axis] = level ? below[child].high[axis] : box.low[axis];
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      box.low[axis] = ::min(box.low[axis], __shfl_xor_sync(kAllLanes, box.low[axis], step));
      box.high[axis] = ::max(box.high[axis], __shfl_xor_sync(kAllLanes, box.high[axis], step));
    }
  }
  if (lane_of_warp() == 0) boxes[node] = box;
}

// One lane's point and the squared distances of the nearest others found so far, rising.
template <class T>
struct Query {
  T point[3];
  double nearest[kNeighbours];

  __device__ void meet(double squared) {
#pragma unroll
    for (double& known : nearest) {
      const double farther = ::max(known, squared);
      known = ::min(known, squared);
      squared = farther;
    }
  }
  __device__ double squared_distance(const Box<T>& box) const {
    double sum = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const double x = point[axis];
      const double away = ::max(::max(box.low[axis] - x, x - box.high[axis]), 0.0);
      sum += away * away;
    }
    return sum;
  }
};

// Every lane meets the points of a leaf; `but` is the lane's own point.
template <class T>
__device__ __forceinline__ void meet_leaf(const Tree<T>& tree, int32_t leaf, int32_t but, Query<T>& query) {
  const int32_t first = leaf * kWarp, end = ::min(first + kWarp, tree.count);
#pragma unroll 4
  for (int32_t other = first; other < end; ++other) {
    const T* const point = tree.points + 3 * int64_t{other};  // the same for all lanes
    double sum = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const double along = static_cast<double>(point[axis]) - query.point[axis];
      sum += along * along;
    }
    if (other != but) query.meet(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) search_kernel(Tree<T> tree, int top, const Box<T>* boxes, T* distances) {
  const int32_t own = static_cast<int32_t>(blockIdx.x) * kWarps + warp_of_block();
  if (own >= tree.size(0)) return;
  const int32_t mine = own * kWarp + lane_of_warp();
  const bool is_one = mine < tree.count;
  Query<T> query;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) query.point[axis] = tree.points[3 * int64_t{is_one ? mine : own * kWarp} + axis];
#pragma unroll
  for (double& known : query.nearest) known = INFINITY;

  // What is near in the list is likely to be near, so that much can be left out later.
  const int32_t first = ::max(own - 1, 0), last = ::min(own + 1, tree.size(0) - 1);
  for (int32_t leaf = first; leaf <= last; ++leaf) meet_leaf(tree, leaf, mine, query);

  // Depth first through the tree: from a node to its first child, else to the next node, up where a row ends. `boxes`
  // points at those of the level.
  int level = top;
  int32_t node = 0;
  while (node < tree.size(level)) {
    const double squared = query.squared_distance(boxes[node]);
    if (__any_sync(kAllLanes, is_one && squared < query.nearest[kNeighbours - 1])) {
      if (level > 0) {
        --level, node *= kWarp;
        boxes -= tree.size(level);
        continue;
      }
      if (node < first || node > last) meet_leaf(tree, node, mine, query);
    }
    ++node;
    while (level < top && (node % kWarp == 0 || node == tree.size(level))) {
      boxes += tree.size(level);
      ++level, node = (node + kWarp - 1) / kWarp;
    }
  }
  if (!is_one) return;
  const int others = ::min(kNeighbours, tree.count - 1);
  double sum = 0;
  for (int k = 0; k < others; ++k) sum += query.nearest[k];
  distances[mine] = static_cast<T>(::sqrt(sum / ::max(others, 1)));
}

Tensor nearest_distances_cuda(Tensor points) {
  const Kind kind = floating_kind(points, "points");
  check_shape(points, "points", {kAny, 3}, "[P, 3]");
  points = checked(points, "points", kind, {points.size(0), 3}, "[P, 3]");
  STD_TORCH_CHECK(points.size(0) <= std::numeric_limits<int32_t>::max() - kWarp,
                  "points must be fewer than 2^31, got ", points.size(0));
  const OnDevice device(points);
  Tensor distances = torch::stable::new_empty(points, {points.size(0)}, kind.dtype);
  if (points.size(0) == 0) return distances;
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    const Tree<T> tree{data<T>(points), static_cast<int32_t>(points.size(0))};
    int top = 0;
    int64_t count = tree.size(0);
    while (tree.size(top) > kWarp) count += tree.size(++top);
    Tensor memory = scratch<Box<T>>(points, count);
    Box<T>*boxes = mutable_data<Box<T>>(memory), *below = nullptr;
    for (int level = 0; level <= top; ++level) {
      if (level) below = boxes, boxes += tree.size(level - 1);
      launch({blocks_for(tree.size(level), kWarps), kThreads, device.stream}, boxes_kernel<T>, tree, level, below,
             boxes);
    }
    launch({blocks_for(tree.size(0), kWarps), kThreads, device.stream}, search_kernel<T>, tree, top, boxes,
           mutable_data<T>(distances));
  };
  kind.dtype == ScalarType::Double ? go(0.0) : go(0.0f);
  return distances;
}

}  // namespace
}  // namespace fgs

STABLE_TORCH_LIBRARY_IMPL(feature_gs, CUDA, m) { m.impl("nearest_distances", TORCH_BOX(&fgs::nearest_distances_cuda)); }
