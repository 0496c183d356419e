"""Prompts on a scene of balls: each finds what it should, in 3D, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from things import FLOOR, SIZE, Things, make_things, small_decoder
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.queries.ask import ask_box, ask_patch, ask_points, find_everything
from feature_gs.queries.in_view import rendered_map
from feature_gs.queries.selection import Selection
from feature_gs.queries.views import Box, find_view, score_images, votes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def three() -> Things:
    """A red, a green and a blue ball."""
    return make_things()


def point(scene: Things, *labels: int, index: int = 0, without: tuple[int, ...] = ()) -> Selection:
    camera = scene.camera(index)
    points, negatives = ([scene.middle(label, camera) for label in some] for some in (labels, without))
    return ask_points(scene.trained, scene.field, camera, points, negatives)


def is_exactly(scene: Things, selection: Selection, *labels: int) -> bool:
    """Whether nearly all Gaussians of some things and hardly any other are selected."""
    wanted = torch.isin(scene.labels, torch.tensor(labels))
    chosen = selection.selected
    return bool((chosen & wanted).sum() >= 0.97 * wanted.sum() and (chosen & ~wanted).sum() <= 3)


def box_around(mask: Tensor) -> Box:
    y, x = mask.nonzero(as_tuple=True)
    return Box(float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1)


@pytest.mark.parametrize("label", [FLOOR, 1, 2, 3])
@pytest.mark.parametrize("index", [0, 3])
def test_a_point_selects_what_it_is_on(three: Things, label: int, index: int) -> None:
    if label == FLOOR:
        selection = ask_points(three.trained, three.field, three.camera(index), [(15.0, 60.0)])
        wanted = three.labels == FLOOR
        assert (selection.selected & wanted).sum() > 0.9 * wanted.sum()
        assert not (selection.selected & ~wanted).any()
    else:
        assert is_exactly(three, point(three, label, index=index), label)


def test_a_point_finds_what_is_hidden_in_its_view(three: Things) -> None:
    camera = three.camera(0)  # the red ball stands before the green one
    ball = votes(three.trained, camera, torch.ones(SIZE[1], SIZE[0], 1))[:, 0][three.labels == 2]
    assert (ball < 0.01 * ball.max()).any()
    assert is_exactly(three, point(three, 2), 2)


def test_masks_of_a_selection_are_the_thing_in_every_view(three: Things) -> None:
    selection = point(three, 2)
    for camera in (*three.trained.cameras["train"], *three.trained.cameras["test"]):
        mask = score_images(three.trained, camera, selection.scores[:, None])[..., 0] > 0.5
        true = three.pixels(2, camera)
        assert (mask & true).sum() / (mask | true).sum() > 0.97


def test_of_two_things_that_look_the_same_only_the_one_asked_for_is_selected() -> None:
    scene = make_things((1, 2, 1))
    assert is_exactly(scene, point(scene, 1), 1)
    assert is_exactly(scene, point(scene, 3), 3)
    assert is_exactly(scene, point(scene, 1, 3), 1, 3)


def test_a_negative_point_takes_away_a_thing_that_touches_and_looks_the_same() -> None:
    scene = make_things((1, 1, 2), places=(-0.58, 0.0, 0.85))
    assert is_exactly(scene, point(scene, 1, index=3), 1, 2)
    alone = point(scene, 1, index=3, without=(2,)).selected
    own, other = (alone[scene.labels == label].float().mean() for label in (1, 2))
    assert own > 0.75 and other < 0.1
    assert not alone[scene.labels == FLOOR].any()


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_box_selects_what_it_holds(three: Things, label: int) -> None:
    camera = three.camera(3)
    box = box_around(three.pixels(label, camera))
    assert is_exactly(three, ask_box(three.trained, three.field, camera, box), label)


def test_a_box_is_not_about_what_reaches_far_out_of_it(three: Things) -> None:
    camera = three.camera(0)
    box = box_around(three.pixels(2, camera))  # half of it shows the red ball
    assert is_exactly(three, ask_box(three.trained, three.field, camera, box), 2)


def test_a_box_that_holds_nothing_of_its_own_selects_what_it_shows(three: Things) -> None:
    camera = three.camera(3)
    box = Box(30, 48, 60, 62)
    selection = ask_box(three.trained, three.field, camera, box)
    mask = score_images(three.trained, camera, selection.scores[:, None])[..., 0] > 0.5
    true = box.mask(*SIZE) > 0
    assert (mask & true).sum() / (mask | true).sum() > 0.7


def test_a_patch_selects_all_that_looks_the_same() -> None:
    scene = make_things((1, 2, 1))
    camera = scene.camera(3)
    selection, distances, split = ask_patch(
        scene.trained, scene.field, camera, Patch(*scene.middle(1, camera), 6)
    )
    assert is_exactly(scene, selection, 1, 3)
    assert torch.equal(distances < split.threshold, selection.selected)
    assert split.low < 0.6 < split.threshold < 1.2 < split.high < 1.5  # noise of 0.1, codes at right angles


def test_distances_are_those_of_unit_vectors(three: Things) -> None:
    camera = three.camera(3)
    patch = Patch(*three.middle(1, camera), 4)
    _, distances, _ = ask_patch(three.trained, three.field, camera, patch, 0.5)
    units = torch.nn.functional.normalize(three.field.features, dim=1)
    mask = Box(patch.x - 2, patch.y - 2, patch.x + 2, patch.y + 2).mask(*SIZE)
    weights = votes(three.trained, camera, mask[..., None])
    query = torch.nn.functional.normalize((weights * units).sum(dim=0), dim=0)
    torch.testing.assert_close(distances, (units - query).norm(dim=1), atol=2e-3, rtol=0)


def test_a_threshold_by_hand_is_kept(three: Things) -> None:
    camera = three.camera(3)
    patch = Patch(*three.middle(1, camera), 4)
    selection, distances, _ = ask_patch(three.trained, three.field, camera, patch, 0.3)
    assert torch.equal(selection.selected, distances < 0.3)
    assert selection.query["threshold"] == 0.3
    with pytest.raises(UserError, match="between 0 and 2"):
        ask_patch(three.trained, three.field, camera, patch, 2.5)


def test_everything_is_each_thing_once() -> None:
    scene = make_things((1, 2, 1))
    shares = find_everything(scene.trained, scene.field)
    assert shares.shape == (len(scene.labels), 4)
    assert (shares.sum(dim=1) <= 1).all()
    found = [Selection.of(share) for share in shares.unbind(1)]
    assert is_exactly(scene, found[0], FLOOR)  # the largest first
    for label in (1, 2, 3):
        assert sum(is_exactly(scene, selection, label) for selection in found[1:]) == 1


def test_gaussians_are_decoded() -> None:
    """What is carried lies far from what it means: the decoder's bias is most of it."""
    scene = make_things(decoder=small_decoder("linear"))
    camera = scene.camera(3)
    assert is_exactly(scene, point(scene, 1, index=3), 1)
    selection = ask_patch(scene.trained, scene.field, camera, Patch(*scene.middle(3, camera), 6))[0]
    assert is_exactly(scene, selection, 3)
    assert find_everything(scene.trained, scene.field).shape[1] == 4


def test_through_a_3x3_decoder_views_are_asked_instead_of_gaussians() -> None:
    scene = make_things(decoder=small_decoder("conv3x3"))
    camera = scene.camera(3)
    selection = point(scene, 3, index=3)
    wanted = scene.labels == 3
    assert (selection.selected & wanted).sum() > 0.8 * wanted.sum()
    assert (selection.selected & ~wanted).sum() < 0.2 * wanted.sum()
    with pytest.raises(UserError, match="conv3x3"):
        ask_patch(scene.trained, scene.field, camera, Patch(*scene.middle(3, camera), 6))
    found = [Selection.of(share) for share in find_everything(scene.trained, scene.field).unbind(1)]
    assert any(is_exactly(scene, selection, 3) for selection in found)  # as features are carried


def test_in_one_view_a_point_finds_the_same_thing_and_a_box_too(three: Things) -> None:
    camera = three.camera(3)
    view = rendered_map(three.trained, three.field, camera)
    for label in (1, 2, 3):
        true = three.pixels(label, camera)
        for scores in (view.at_points([three.middle(label, camera)]), view.in_box(box_around(true))):
            mask = scores > 0.5
            assert (mask & true).sum() / (mask | true).sum() > 0.9


def test_gaussians_that_no_view_shows_are_not_asked(three: Things) -> None:
    """Their features mean nothing; they follow their neighbours."""
    unseen = torch.zeros(len(three.labels), dtype=torch.bool)
    unseen[(three.labels == 2).nonzero()[::5, 0]] = True
    features = three.field.features.clone()
    features[unseen] = three.field.features[three.labels == 3][0]
    blind = replace(three, field=replace(three.field, features=features, seen=~unseen))
    camera = three.camera(3)
    assert not point(blind, 3, index=3).selected[unseen].any()
    distances = ask_patch(blind.trained, blind.field, camera, Patch(*three.middle(3, camera), 4))[1]
    assert (distances[unseen] == 2).all()


def test_the_query_says_what_was_asked(three: Things) -> None:
    selection = ask_points(three.trained, three.field, three.camera(0), [three.middle(1, three.camera(0))])
    x, y = three.middle(1, three.camera(0))
    assert selection.query == {
        "kind": "point",
        "teacher": "things:Speaking",
        "view": "0.png",
        "points": [[x, y]],
        "negatives": [],
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"points": [(96.0, 5.0)]}, "96 5 lies outside the picture of 96 x 64"),
        ({"points": [(float("nan"), 5.0)]}, "outside"),
        ({"points": [(5.0, 5.0)], "negatives": [(5.0, -1.0)]}, "--negative_point 5 -1"),
        ({"points": [(2.0, 2.0)]}, "no Gaussian is at"),
        ({"points": []}, "at least one"),
    ],
)
def test_points_must_be_on_something(three: Things, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask_points(three.trained, three.field, three.camera(3), **asked)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(10, 10, 10, 20), "empty"),
        (Box(float("nan"), 10, 20, 20), "empty"),
        (Box(100, 10, 120, 20), "outside"),
        (Box(0, 0, 4, 3), "no Gaussian"),
    ],
)
def test_boxes_must_hold_something(three: Things, box: Box, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask_box(three.trained, three.field, three.camera(3), box)


def test_views_are_found_by_name(three: Things) -> None:
    assert find_view(three.trained, "5.png") is find_view(three.trained, "5")
    with pytest.raises(UserError, match=r"Did you mean 5.png"):
        find_view(three.trained, "5.jpg")
