"""Thresholds that numbers choose themselves, on cases worked out by hand."""

import math

import numpy as np
import pytest

from feature_gs.queries.thresholds import nearest_group, otsu, standstill


def test_otsu_parts_two_values() -> None:
    split = otsu(np.array([1.0, 1, 1, 5, 5]))
    assert 1 < split.threshold <= 5
    assert (split.low, split.high) == (pytest.approx(1), pytest.approx(5))
    assert split.separation == pytest.approx(1)


def test_otsu_parts_two_gaussians_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.1, 20_000), rng.normal(1, 0.1, 20_000)])
    split = otsu(values)
    assert split.threshold == pytest.approx(0.5, abs=0.1)  # anywhere where there is nothing
    assert (split.low, split.high) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    # Of the variance 0.25 + 0.01, a quarter is between the means.
    assert split.separation == pytest.approx(0.25 / 0.26, abs=0.005)


def test_otsu_explains_what_theory_says_of_even_and_of_normal_numbers() -> None:
    assert otsu(np.linspace(0, 1, 10_001)).separation == pytest.approx(0.75, abs=0.002)
    normal = np.random.default_rng(0).normal(size=100_000)
    assert otsu(normal).separation == pytest.approx(2 / math.pi, abs=0.01)


def test_equal_numbers_have_nothing_between_them() -> None:
    split = otsu(np.full(5, 0.3))
    assert (split.threshold, split.low, split.high, split.separation) == (0.3, 0.3, 0.3, 0)
    with pytest.raises(ValueError, match="nothing"):
        otsu(np.empty(0))


def test_the_nearest_group_may_be_one_in_a_hundred() -> None:
    rng = np.random.default_rng(0)
    near, other, far = rng.normal(0.3, 0.05, 100), rng.normal(1.1, 0.05, 3000), rng.normal(1.5, 0.05, 7000)
    distances = np.concatenate([near, other, far])
    assert otsu(distances).threshold > 1.2  # one split does not reach it
    split = nearest_group(distances)
    assert 0.5 < split.threshold < 0.95
    assert (split.low, split.high) == (pytest.approx(0.3, abs=0.02), pytest.approx(1.1, abs=0.02))


def test_a_single_group_is_not_split_further() -> None:
    rng = np.random.default_rng(0)
    distances = np.concatenate([rng.uniform(0.1, 0.5, 3000), rng.normal(1.4, 0.05, 3000)])
    assert 0.5 < nearest_group(distances).threshold < 1.3


def test_a_region_stands_still_between_thing_and_surroundings() -> None:
    rng = np.random.default_rng(0)
    thing, beside, far = rng.uniform(0.1, 0.3, 200), rng.uniform(0.9, 1.1, 2000), rng.uniform(1.3, 1.5, 9000)
    heights = np.concatenate([thing, beside, far, rng.uniform(0, 0.2, 50)])
    reached = np.concatenate([thing, beside, far, [np.inf] * 50])
    assert 0.3 < standstill(reached, 0.1, heights) < 0.9


def test_a_region_that_reaches_only_its_thing_is_all_of_it() -> None:
    reached = np.append(np.linspace(0.1, 0.3, 50), [np.inf] * 100)
    heights = np.append(reached[:50], np.linspace(1, 1.2, 100))
    assert 0.3 < standstill(reached, 0.1, heights) < 1.2


def test_where_all_is_alike_the_level_stays() -> None:
    assert standstill(np.zeros(50), 0.0, np.zeros(50)) == 0
    assert standstill(np.full(5, np.inf), 0.2, np.zeros(5)) == 0.2
