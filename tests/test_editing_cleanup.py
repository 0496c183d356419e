"""Cleaning selections up: neighbours agree, and what lies apart is dropped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_gs.editing.cleanup import CleanUp, above, largest_cluster, smoothed, without_hidden
from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import Selection
from feature_gs.scenes import Camera
from feature_gs.training import TrainConfig
from feature_gs.training.trained import Trained

pytestmark = pytest.mark.usefixtures("one_thread")


def model_at(means: Tensor, opacity: float | Tensor = 0.5) -> GaussianModel:
    model = GaussianModel.from_points(means, torch.zeros(len(means), 3, dtype=torch.uint8), 0)
    with torch.no_grad():
        model.logit_opacities.copy_(torch.as_tensor(opacity).expand(len(means)).logit())
    return model


def ball(count: int, centre: tuple[float, float, float], radius: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(centre) + radius * torch.rand(count, 3, generator=generator)


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        *(("smooth", value, "a whole number between 0 and 1000") for value in (-3, 1001, 2.5, True, None)),
        *(("threshold", value, "a number between 0 and 1") for value in (5, -0.1, float("nan"), "0.5", True)),
        *(("drop_hidden", value, "a number between 0 and 1") for value in (9, float("nan"), None)),
    ],
)
def test_numbers_beyond_the_limits_are_refused(name: str, value: object, limits: str) -> None:
    with pytest.raises(UserError, match=f"^{name} must be {limits}, got {value!r}"):
        CleanUp(**{name: value})  # type: ignore[arg-type]


def test_limits_themselves_and_numbers_of_numpy_are_taken() -> None:
    CleanUp(0, 0, drop_hidden=0), CleanUp(1000, 1, drop_hidden=1)
    found = CleanUp(np.int64(8), np.float32(0.5), drop_hidden=np.float32(0.25))  # type: ignore[arg-type]
    assert found == CleanUp(8, 0.5, drop_hidden=0.25)
    json.dumps([found.smooth, found.threshold, found.drop_hidden])  # as a selection is saved


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


def test_what_no_view_shows_of_a_thing_is_dropped() -> None:
    """Two layers of a thing behind each other, seen from the front only; half of it behind a screen."""
    across = torch.stack(
        torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="xy"), -1
    )
    across = across.reshape(-1, 2)
    front, back, screen = (torch.cat([across, torch.full((81, 1), z)], dim=1) for z in (4.0, 4.5, 3.0))
    screen = screen[screen[:, 0] < -0.1]
    model = model_at(torch.cat([front, back, screen]), 0.99)
    with torch.no_grad():
        model.log_scales.fill_(-1.7)
    thing = torch.arange(len(model)) < 162
    K = torch.tensor([[40.0, 0, 24], [0, 40, 24], [0, 0, 1]])
    trained = Trained(
        path=Path("model"),
        iteration=1,
        config=TrainConfig(),
        cameras={"train": [Camera("a.png", 48, 48, K, torch.eye(4))], "test": []},
        model=model,
        background=torch.zeros(3),
    )
    found = without_hidden(Selection.of(thing.float()), trained, 0.3)
    x = model.means.detach()[:, 0]
    right_front = (torch.arange(len(model)) < 81) & (x > 0.3)
    assert found.selected[right_front].all()
    hidden = (torch.arange(len(model)) < 81) & (x < -0.4)
    assert not found.selected[hidden].any() and not found.scores[hidden].any()
    # The back layer is hidden by the thing itself, alone as within the scene: it stays where the front does.
    assert found.selected[81:162][x[81:162] > 0.3].all()
    assert not found.selected[162:].any()
