"""Cleaning selections up: neighbours agree, and what lies apart is dropped."""

import pytest
import torch
from torch import Tensor

from feature_gs.editing.cleanup import above, largest_cluster, smoothed
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import Selection

pytestmark = pytest.mark.usefixtures("one_thread")


def model_at(means: Tensor, opacity: float | Tensor = 0.5) -> GaussianModel:
    model = GaussianModel.from_points(means, torch.zeros(len(means), 3, dtype=torch.uint8), 0)
    with torch.no_grad():
        model.logit_opacities.copy_(torch.as_tensor(opacity).expand(len(means)).logit())
    return model


def ball(count: int, centre: tuple[float, float, float], radius: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(centre) + radius * torch.rand(count, 3, generator=generator)


def test_smoothing_by_hand() -> None:
    means = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [2.1, 0, 0], [10, 0, 0]])
    opacities = torch.tensor([0.2, 0.4, 0.8, 0.9])
    selection = Selection.of(torch.tensor([1.0, 0, 1, 0]))
    found = smoothed(selection, model_at(means, opacities), 1)
    expected = [0.2 / 0.6, 0.2 / 0.6, 0.8 / 1.2, 0.8 / 1.7]  # each with the nearest one
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.selected.tolist() == [False, False, True, False]
    everywhere = smoothed(selection, model_at(means, opacities), 99)
    assert everywhere.scores.tolist() == pytest.approx([1.0 / 2.3] * 4, abs=1e-6)


def test_smoothing_fills_holes_and_drops_specks() -> None:
    means = torch.cat([ball(300, (0, 0, 0), 1, 0), ball(300, (5, 0, 0), 1, 1)])
    truth = torch.arange(600) < 300
    wrong = torch.rand(600, generator=torch.Generator().manual_seed(2)) < 0.1
    found = smoothed(Selection.of((truth ^ wrong).float()), model_at(means), 15)
    assert (found.selected == truth).float().mean() > 0.99


def test_another_threshold_keeps_the_scores() -> None:
    selection = Selection.of(torch.tensor([0.2, 0.4, 0.6]))
    found = above(selection, 0.3)
    assert found.selected.tolist() == [False, True, True]
    assert torch.equal(found.scores, selection.scores)
    assert found.query["of"] == selection.query


def test_the_largest_cluster_stays_and_the_rest_is_dropped() -> None:
    thing, other, floaters = ball(400, (0, 0, 0), 1, 0), ball(100, (4, 0, 0), 1, 1), ball(10, (0, 9, 0), 6, 2)
    unselected = ball(200, (0, 0, 0), 1, 3)
    means = torch.cat([thing, other, floaters, unselected])
    scores = torch.full((710,), 0.9)
    scores[510:] = 0.3
    found = largest_cluster(Selection.of(scores), model_at(means))
    assert found.selected[:400].float().mean() > 0.99
    assert not found.selected[400:].any()
    assert not found.scores[400:510].any()  # a soft use does not see them either
    assert torch.equal(found.scores[510:], scores[510:])


def test_few_or_scattered_gaussians_stay_as_they_are() -> None:
    few = Selection.of(torch.tensor([1.0, 1, 0, 1]))
    assert largest_cluster(few, model_at(torch.eye(4, 3))) is few
    none = Selection.of(torch.zeros(4))
    assert largest_cluster(none, model_at(torch.eye(4, 3))) is none
    same = Selection.of(torch.ones(50))
    assert largest_cluster(same, model_at(torch.zeros(50, 3))).selected.all()
