"""The order of the Gaussians: a permutation along a Z-order curve, whatever the centres are."""

import itertools
import math

import pytest
import torch

from feature_gs.gaussians.order import spatial_order


def is_permutation(order: torch.Tensor, count: int) -> bool:
    return order.dtype == torch.int64 and order.sort().values.tolist() == list(range(count))


def test_the_corners_of_a_cube_in_z_order() -> None:
    """Along x first, then y, then z."""
    expected = [[x, y, z] for z, y, x in itertools.product([0.0, 1.0], repeat=3)]
    shuffled = torch.tensor(expected)[[5, 2, 7, 0, 3, 6, 1, 4]]
    assert shuffled[spatial_order(shuffled)].tolist() == expected
    moved = shuffled * 300 - 1000
    assert torch.equal(spatial_order(moved), spatial_order(shuffled)), "place and size of the scene are free"


def test_neighbours_in_memory_are_neighbours_in_space() -> None:
    means = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    order = spatial_order(means)
    assert is_permutation(order, 4096)
    apart = (means[order][1:] - means[order][:-1]).norm(dim=1).mean().item()
    side = 1 / 16  # of the cube that one of 4096 Gaussians has to itself
    assert apart < 2.5 * side, "by chance it would be 0.66"


def test_outliers_do_not_put_all_others_into_one_cell() -> None:
    means = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    means[::1000] *= 1e6
    order = spatial_order(means)
    assert is_permutation(order, 4096)
    near = order[means[order].norm(dim=1) < 2]
    assert (means[near][1:] - means[near][:-1]).norm(dim=1).mean().item() < 0.2


def test_equal_places_keep_their_order() -> None:
    means = torch.tensor([[1.0, 0, 0], [0, 0, 0]]).repeat(50, 1)
    assert spatial_order(means).tolist() == [*range(1, 100, 2), *range(0, 100, 2)]
    assert spatial_order(torch.ones(7, 3)).tolist() == list(range(7))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("share", [1, 7, 1000])
def test_what_is_not_finite_is_ordered_too(bad: float, share: int) -> None:
    means = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    means[::share, 1] = bad
    assert is_permutation(spatial_order(means), 1000)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_gaussians(count: int) -> None:
    assert is_permutation(spatial_order(torch.zeros(count, 3)), count)
    assert is_permutation(spatial_order(torch.zeros(count, 3, dtype=torch.float64)), count)
