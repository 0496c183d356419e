"""Retrieval: average precision by hand, and what a ranking of cells is worth."""

import numpy as np
import pytest
import torch
from code_teacher import clean_map, make_codes
from torch import Tensor

from feature_gs.evaluation.retrieval import average_precision, retrieval_map

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("scores", "positives", "expected"),
    [
        ([3, 2, 1], [1, 0, 0], 1),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([4, 3, 2, 1], [1, 0, 1, 0], 0.5 * 1 + 0.5 * 2 / 3),
        ([1, 2, 3, 4], [1, 0, 1, 0], 0.5 * 1 / 2 + 0.5 * 2 / 4),
        ([1, 1, 1, 1], [1, 0, 0, 0], 1 / 4),  # all tied: the share of positives
        ([1, 1, 1, 1], [0, 0, 0, 1], 1 / 4),  # whatever their order
        ([2, 1, 1, 0], [1, 1, 0, 1], 1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4),
        ([5], [1], 1),
    ],
)
def test_average_precision_by_hand(scores: list[float], positives: list[int], expected: float) -> None:
    found = average_precision(np.array(scores, dtype=np.float64), np.array(positives, dtype=bool))
    assert found == pytest.approx(expected, abs=1e-12)


def test_average_precision_needs_a_positive() -> None:
    with pytest.raises(ValueError, match="at least one positive"):
        average_precision(np.zeros(3), np.zeros(3, dtype=bool))


def frame(*cells: tuple[float, float]) -> Tensor:
    """A map of one row."""
    return torch.tensor([cells])


EAST, NORTH, BETWEEN = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)


def ids(*labels: int) -> Tensor:
    return torch.tensor([labels])


def test_length_does_not_matter_and_true_codes_find_everything() -> None:
    maps = [frame(EAST, NORTH), frame((7, 0), (0, 0.1), EAST)]
    assert retrieval_map(maps, [ids(0, 1), ids(0, 1, 0)]) == 1


def test_one_object_by_hand() -> None:
    # The query is east. The other frame's order is east (another object), between (this one), north.
    maps = [frame(EAST, NORTH), frame(EAST, BETWEEN, NORTH)]
    labels = [ids(1, 0), ids(0, 1, 0)]
    assert retrieval_map(maps, labels, queries=[0], objects=[1]) == pytest.approx(1 / 2)
    # Asked the other way round, with "between": east and north are tied, one of them is right.
    assert retrieval_map(maps, labels, queries=[1], objects=[1]) == pytest.approx(1 / 2)


def test_the_query_is_the_mean_of_unit_features() -> None:
    # The mean of the lengths as they are would point east, where the other object is.
    maps = [frame((9, 0), NORTH, NORTH), frame(EAST, (1, 2))]
    assert retrieval_map(maps, [ids(1, 1, 1), ids(0, 1)], queries=[0], objects=[1]) == 1


def test_a_cell_without_a_feature_is_further_than_a_likely_one() -> None:
    maps = [frame(EAST), frame((0, 0), (0.1, 1), (-1, 0))]
    assert retrieval_map(maps, [ids(1), ids(0, 1, 0)], queries=[0]) == 1
    assert retrieval_map(maps, [ids(1), ids(1, 0, 0)], queries=[0], objects=[1]) == 1 / 2


def test_cells_below_zero_do_not_count() -> None:
    maps = [frame(EAST, NORTH), frame(EAST, EAST, NORTH)]
    assert retrieval_map(maps, [ids(1, -1), ids(-1, 1, 0)], queries=[0], objects=[1]) == 1


def test_objects_weigh_the_same_however_often_they_are_seen() -> None:
    # Object 1: found first in both other frames. Object 2: only in frames 0 and 2, where it comes last.
    maps = [frame(EAST, NORTH), frame(EAST, NORTH), frame(EAST, (1, 1.1), (2, 1))]
    labels = [ids(1, 2), ids(1, 0), ids(1, 0, 2)]
    assert retrieval_map(maps, labels, queries=[0], objects=[1]) == 1
    assert retrieval_map(maps, labels, queries=[0], objects=[2]) == pytest.approx(1 / 2)
    assert retrieval_map(maps, labels, queries=[0], objects=[1, 2]) == pytest.approx(3 / 4)


def test_an_object_of_one_frame_is_left_out() -> None:
    maps = [frame(EAST, NORTH), frame(EAST, NORTH)]
    assert retrieval_map(maps, [ids(1, 5), ids(1, 0)], objects=[1, 5]) == 1
    with pytest.raises(ValueError, match="no object is seen"):
        retrieval_map(maps, [ids(1, 1), ids(0, 0)])


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        retrieval_map([frame(EAST)], [ids(1, 2)])
    with pytest.raises(ValueError, match="needs labels"):
        retrieval_map([frame(EAST)], [])


def test_random_features_find_an_object_by_its_share() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(40, 40, 16, generator=generator) for _ in range(3)]
    labels = [(torch.rand(40, 40, generator=generator) < 0.3).long() for _ in range(3)]
    assert retrieval_map(maps, labels, objects=[1]) == pytest.approx(0.3, abs=0.03)


def test_noise_costs_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    codes, _ = make_codes(16)
    labels = [
        torch.randint(0, 4, (6, 6), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
    ]
    labels += [labels[0].flip(0), labels[0].flip(1)]
    clean = [clean_map(ids, codes).permute(1, 2, 0) for ids in labels]
    cells = [ids[::8, ::8] for ids in labels]

    def noisy(sigma: float) -> float:
        grains = torch.Generator().manual_seed(1)
        maps = [features + sigma * torch.randn(features.shape, generator=grains) for features in clean]
        return retrieval_map(maps, cells)

    assert noisy(0) == 1 > noisy(0.4) > noisy(1.5) > 0.25
