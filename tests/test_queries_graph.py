"""Neighbours and floods: by hand, and against looking at all ways."""

import numpy as np
import pytest
import torch

from feature_gs.gaussians import GaussianModel
from feature_gs.queries.graph import Graph, gaussian_graph, grid_graph


def line(*followers: tuple[int, int], count: int = 5) -> Graph:
    """Nodes in a row; of `followers` the first follows the second."""
    leader = np.arange(count)
    for node, other in followers:
        leader[node] = other
    own = leader == np.arange(count)
    first = np.array([i for i in range(count - 1) if own[i] and own[i + 1]], dtype=int)
    return Graph(first, first + 1, leader)


def test_a_flood_must_rise_to_the_highest_point_of_its_way() -> None:
    levels = line().flooded(np.array([1.0, 3, 2, 5, 4]), np.array([0]))
    assert levels.tolist() == [1, 3, 3, 5, 5]
    levels = line().flooded(np.array([1.0, 3, 2, 5, 4]), np.array([0, 4]))
    assert levels.tolist() == [1, 3, 3, 5, 4]


def test_a_flood_goes_around_a_hill() -> None:
    heights = np.array([[0, 9, 2], [0, 9, 1], [0, 1, 1]], dtype=float)
    levels = grid_graph(3, 3).flooded(heights.ravel(), np.array([0])).reshape(3, 3)
    assert levels[0, 2] == 2 and levels[1, 2] == 1 and levels[0, 1] == 9


def test_a_flood_does_not_reach_what_hangs_on_nothing() -> None:
    graph = Graph(np.array([0]), np.array([1]), np.arange(3))
    assert graph.flooded(np.zeros(3), np.array([0])).tolist() == [0, 0, np.inf]


def test_followers_are_flooded_with_their_leaders_and_connect_nothing() -> None:
    graph = line((2, 1))
    levels = graph.flooded(np.array([1.0, 3, 0, 5, 4]), np.array([0]))
    assert levels.tolist() == [1, 3, 3, np.inf, np.inf]
    assert (
        graph.flooded(np.array([1.0, 3, 0, 5, 4]), np.array([2]))[1] == 3
    )  # from a follower: from its leader


def test_floods_find_the_lowest_of_all_ways() -> None:
    rng = np.random.default_rng(3)
    count = 30
    first, second = rng.integers(count, size=(2, 60))
    heights = rng.random(count)
    best = np.full((count, count), np.inf)
    np.fill_diagonal(best, heights)
    for a, b in zip(first, second, strict=True):
        best[a, b] = best[b, a] = min(best[a, b], max(heights[a], heights[b]))
    for via in range(count):  # Floyd and Warshall, with the highest point for the length
        best = np.minimum(best, np.maximum(best[:, via, None], best[None, via]))
    levels = Graph(first, second, np.arange(count)).flooded(heights, np.array([4, 11]))
    np.testing.assert_allclose(levels, np.minimum(best[4], best[11]))


def test_components_are_numbered_and_the_outside_is_not() -> None:
    inside = np.array([True, True, False, True, True])
    assert line().components(inside).tolist() == [0, 0, -1, 1, 1]
    assert line().components(np.ones(5, dtype=bool)).tolist() == [0] * 5
    assert line().components(np.zeros(5, dtype=bool)).tolist() == [-1] * 5


def test_a_follower_belongs_to_its_leaders_component_or_to_none() -> None:
    graph = line((2, 1))
    assert graph.components(np.array([True, True, True, False, True])).tolist() == [0, 0, 0, -1, 1]
    assert graph.components(np.array([True, False, True, False, True])).tolist() == [0, -1, -1, -1, 1]


def test_cores_touch_nothing_else() -> None:
    inner, outer = line().cores(np.array([True, True, False, False, False]))
    assert inner.tolist() == [True, False, False, False, False]
    assert outer.tolist() == [False, False, False, True, True]


def test_a_map_has_eight_neighbours_to_a_cell() -> None:
    graph = grid_graph(3, 4)
    counts = np.bincount(np.concatenate([graph.first, graph.second]), minlength=12).reshape(3, 4)
    assert counts.tolist() == [[3, 5, 5, 3], [5, 8, 8, 5], [3, 5, 5, 3]]


def clusters(gap: float, bridge: float | None = None) -> tuple[GaussianModel, np.ndarray]:
    """Two clusters of 40 Gaussians and a row between them, of the opacity `bridge`."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(80, 3, generator=generator)
    points[40:, 0] += 1 + gap
    row = torch.stack([torch.linspace(0.9, 1.1 + gap, 30), torch.full((30,), 0.5), torch.full((30,), 0.5)], 1)
    points = torch.cat([points, row]) if bridge else points
    model = GaussianModel.from_points(points, torch.zeros(len(points), 3).byte(), 0, opacity=0.9, scale=0.5)
    if bridge:
        with torch.no_grad():
            model.logit_opacities[80:] = torch.logit(torch.tensor(bridge))
    return model, np.ones(len(points), dtype=bool)


def test_gaussians_that_lie_apart_are_not_neighbours() -> None:
    graph = gaussian_graph(*clusters(3.0))
    labels = graph.components(np.ones(80, dtype=bool))
    assert not set(labels[:40]) & set(labels[40:])


def test_the_nearest_are_no_neighbours_where_their_extents_do_not_meet() -> None:
    points = torch.tensor([[0.0, 0, 0], [0, 0, 1], [9, 0, 0], [9, 0, 1]])
    model = GaussianModel.from_points(points, torch.zeros(4, 3).byte(), 0, opacity=0.9)
    for scale, pieces in ((0.3, [0, 0, 1, 1]), (3.0, [0, 0, 0, 0]), (0.1, [0, 1, 2, 3])):
        with torch.no_grad():
            model.log_scales.fill_(float(np.log(scale)))
        every = np.ones(4, dtype=bool)
        assert gaussian_graph(model, every).components(every).tolist() == pieces


@pytest.mark.parametrize(("opacity", "apart"), [(0.9, False), (0.01, True)])
def test_only_what_is_solid_connects(opacity: float, apart: bool) -> None:
    model, seen = clusters(3.0, opacity)
    graph = gaussian_graph(model, seen)
    labels = graph.components(np.ones(len(model), dtype=bool))

    assert bool(set(labels[:40].tolist()) & set(labels[40:80].tolist())) != apart
    assert (graph.leader[80:] != np.arange(80, 110)).all() == apart


def test_gaussians_that_no_view_shows_follow_the_nearest() -> None:
    model, seen = clusters(3.0)
    seen[7] = False
    graph = gaussian_graph(model, seen)
    apart = (model.means.detach() - model.means.detach()[7]).norm(dim=1)
    apart[7] = torch.inf
    assert graph.leader[7] == int(apart.argmin())


def test_a_model_of_one_gaussian_has_no_neighbours() -> None:
    model = GaussianModel.from_points(torch.zeros(1, 3), torch.zeros(1, 3).byte(), 0, opacity=0.9)
    graph = gaussian_graph(model, np.ones(1, dtype=bool))
    assert graph.flooded(np.array([0.5]), np.array([0])).tolist() == [0.5]


def test_ways_are_as_long_as_their_edges() -> None:
    assert line().distances(np.array([1.0, 2, 4, 8]), np.array([1])).tolist() == [1, 0, 2, 6, 14]
    assert line((4, 3)).distances(np.array([1.0, 2, 4]), np.array([1])).tolist() == [1, 0, 2, 6, 6]
    assert line((2, 1)).distances(np.array([1.0, 2]), np.array([0])).tolist() == [0, 1, 1, np.inf, np.inf]
