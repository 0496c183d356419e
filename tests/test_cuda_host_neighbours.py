"""The CUDA kernels of the nearest neighbours, emulated, against SciPy's tree."""

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated
from torch import Tensor

from feature_gs.gaussians.initialise import neighbour_distances
from feature_gs.gaussians.order import spatial_order

SMALLEST = 1e-7**0.5


def cloud(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Dense and sparse places, and points in one place. [count, 3]"""
    rng = torch.Generator().manual_seed(count)
    points = torch.randn(count, 3, generator=rng, dtype=dtype) ** 3
    points[: count // 10] = points[:1]
    return points[torch.randperm(count, generator=rng)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 31, 32, 33, 64, 65, 1000, 1025, 2500])
def test_same_as_on_the_cpu(emulated: Emulated, count: int, dtype: torch.dtype) -> None:
    points = cloud(count, dtype)
    for given in (points, points[spatial_order(points)]):
        distances = emulated.ops.nearest_distances(given)
        assert distances.dtype == dtype and distances.shape == (count,)
        torch.testing.assert_close(distances.clamp_min(SMALLEST), neighbour_distances(given))


def test_a_tree_of_three_levels(emulated: Emulated) -> None:
    points = torch.rand(32 * 32 * 32 + 100, 3, generator=torch.Generator().manual_seed(0))
    points = points[spatial_order(points)]
    torch.testing.assert_close(emulated.ops.nearest_distances(points), neighbour_distances(points))


def test_points_in_one_place(emulated: Emulated) -> None:
    assert not emulated.ops.nearest_distances(torch.full((2100, 3), 7.0)).any()


def test_far_from_the_origin(emulated: Emulated) -> None:
    """Differences are exact where squares of coordinates would not be."""
    points = 1e6 + 0.5 * torch.arange(300).float()[:, None].expand(300, 3)
    expected = torch.full((300,), 0.5 * 3**0.5 * 2**0.5)  # squared steps of 1, 1 and 2
    expected[[0, -1]] = 0.5 * 3**0.5 * (14 / 3) ** 0.5  # 1, 2 and 3
    torch.testing.assert_close(emulated.ops.nearest_distances(points), expected)


def test_same_bits_in_any_order(emulated: Emulated) -> None:
    points = cloud(500)
    results = []
    for order in (IN_ORDER, BACKWARDS, SHUFFLED + 1):
        with emulated.order(order):
            results.append(emulated.ops.nearest_distances(points))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_points_that_are_not_finite_end_the_search(emulated: Emulated) -> None:
    points = cloud(200)
    points[3], points[90] = float("nan"), float("inf")
    assert emulated.ops.nearest_distances(points).shape == (200,)


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    with pytest.raises(RuntimeError, match=r"points must be \[P, 3\]"):
        emulated.ops.nearest_distances(torch.zeros(5, 2))
    with pytest.raises(RuntimeError, match="float32 or float64"):
        emulated.ops.nearest_distances(torch.zeros(5, 3).int())
