"""Views: what a pixel shows, and scores as images. Masks: their codes, and merging them."""

import numpy as np
import pytest
import torch
from things import SIZE, Things, make_things

from feature_gs.queries.answers import SamePixels, SelectedGaussians
from feature_gs.queries.answers import Things as AllThings
from feature_gs.queries.coco import bounding_box, coco_file, decode_rle, encode_rle
from feature_gs.queries.drawing import Marks, histogram_picture, label_colors, overlay, with_legend
from feature_gs.queries.in_view import ViewMap
from feature_gs.queries.merging import MaskMerger
from feature_gs.queries.selection import Selection
from feature_gs.queries.stopwatch import Stopwatch
from feature_gs.queries.thresholds import otsu
from feature_gs.queries.views import Box, point_map, score_images, votes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene() -> Things:
    return make_things()


def test_all_of_a_scene_is_its_alpha_and_a_part_with_its_complement_too(scene: Things) -> None:
    camera = scene.camera(1)
    part = Selection.of(torch.rand(len(scene.labels), generator=torch.Generator().manual_seed(0)))
    every = torch.ones(len(scene.labels))
    images = score_images(scene.trained, camera, torch.stack([every, part.scores, (~part).scores], dim=1))
    alpha = scene.trained.render(camera).alpha[0]
    torch.testing.assert_close(images[..., 0], alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(images[..., 1] + images[..., 2], alpha, atol=1e-5, rtol=0)


def test_votes_are_the_transpose_of_images(scene: Things) -> None:
    """(A s) · m = s · (Aᵀ m) for all scores s and maps m."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(len(scene.labels), 2, generator=generator)
    maps = torch.rand(SIZE[1], SIZE[0], 2, generator=generator)
    images = score_images(scene.trained, scene.camera(2), scores)
    gathered = votes(scene.trained, scene.camera(2), maps)
    torch.testing.assert_close(
        (images * maps).double().sum(dim=(0, 1)), (scores * gathered).double().sum(dim=0), rtol=1e-4, atol=0
    )


def test_a_map_of_ones_gives_the_visible_area(scene: Things) -> None:
    camera = scene.camera(2)
    areas = votes(scene.trained, camera, torch.ones(SIZE[1], SIZE[0], 1))[:, 0]
    assert float(areas.sum()) == pytest.approx(float(scene.trained.render(camera).alpha.sum()), rel=1e-4)


def test_the_pixels_of_a_box_count_as_far_as_they_are_in_it() -> None:
    mask = Box(0.5, 1, 2.25, 3).mask(4, 3)
    assert mask.tolist() == [[0, 0, 0, 0], [0.5, 1, 0.25, 0], [0.5, 1, 0.25, 0]]
    assert Box(-3, -3, 9, 9).mask(4, 3).tolist() == [[1] * 4] * 3
    assert Box(2, 2, 4, 6).widened(2) == Box(1, 0, 5, 8)


def test_a_point_counts_most_where_it_is() -> None:
    assert point_map(1.9, 1.0, 4, 3).tolist() == [[1, 2, 1, 0], [2, 4, 2, 0], [1, 2, 1, 0]]
    assert point_map(0.0, 0.5, 3, 2).tolist() == [[4, 2, 0], [2, 1, 0]]


def test_runs_go_down_the_columns_and_begin_with_zeros() -> None:
    assert encode_rle(np.array([[0, 1], [1, 1]], dtype=bool)) == {"size": [2, 2], "counts": [1, 3]}
    assert encode_rle(np.array([[1, 0], [1, 0]], dtype=bool)) == {"size": [2, 2], "counts": [0, 2, 2]}
    assert encode_rle(np.zeros((2, 3), dtype=bool)) == {"size": [2, 3], "counts": [6]}
    assert encode_rle(np.ones((2, 3), dtype=bool)) == {"size": [2, 3], "counts": [0, 6]}


@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_a_mask_survives_its_code(density: float) -> None:
    mask = np.random.default_rng(0).random((17, 23)) < density
    code = encode_rle(mask)
    assert (decode_rle(code) == mask).all()
    assert sum(code["counts"][1::2]) == mask.sum() and all(count > 0 for count in code["counts"][1:])
    with pytest.raises(ValueError, match="17 x 23"):
        decode_rle({"size": [17, 23], "counts": code["counts"][:-1]})


def test_a_coco_file_holds_every_instance_that_is_seen() -> None:
    masks = np.zeros((3, 4, 5), dtype=bool)
    masks[0, 1:3, 2:5] = True
    masks[2, 0, 0] = True
    file = coco_file([("a/b.jpg", masks), ("c.jpg", masks[:, ::-1])], "feature-gs segment --everything")
    assert [image["file_name"] for image in file["images"]] == ["a/b.jpg", "c.jpg"]
    assert file["images"][0] | {"file_name": ""} == {"id": 1, "file_name": "", "width": 5, "height": 4}
    assert len(file["annotations"]) == 4 and file["categories"][0]["id"] == 1
    first, second = file["annotations"][:2]
    assert (first["area"], first["bbox"]) == (6, [2, 1, 3, 2])
    assert (first["instance_id"], second["instance_id"], second["area"]) == (1, 3, 1)
    assert len({annotation["id"] for annotation in file["annotations"]}) == 4
    for annotation in file["annotations"]:
        mask = decode_rle(annotation["segmentation"])
        assert mask.sum() == annotation["area"]
        assert bounding_box(mask) == annotation["bbox"]


def test_masks_of_many_views_become_things(scene: Things) -> None:
    """In some views a thing has no mask, or two halves; the third ball is masked in one view only."""
    merger = MaskMerger()
    for index, camera in enumerate(scene.trained.cameras["train"]):
        red, green = scene.pixels(1, camera), scene.pixels(2, camera)
        masks = [red] if index == 1 else [green, red]
        if index == 2:
            masks = [
                green & (torch.arange(SIZE[0]) < scene.middle(2, camera)[0] - 1),
                red,
                scene.pixels(3, camera),
            ]
        maps = torch.stack([*masks, torch.ones_like(red)], dim=-1).float()
        shown = votes(scene.trained, camera, maps)
        merger.add(shown[:, :-1], shown[:, -1])
    shares = merger.shares()
    assert shares.shape[1] == 2
    for label in (1, 2):
        best = max(
            float(((share > 0.5) & (scene.labels == label)).sum())
            / float(((share > 0.5) | (scene.labels == label)).sum())
            for share in shares.unbind(1)
        )
        assert best > 0.8


def test_without_masks_there_are_no_things() -> None:
    assert MaskMerger().shares().shape[1] == 0


def test_the_smallest_thing_is_on_top(scene: Things) -> None:
    camera = scene.camera(0)
    shares = torch.stack([torch.ones(len(scene.labels)), (scene.labels == 1).float()], dim=1)
    answer = AllThings(scene.trained, shares, {"kind": "everything"})
    found = answer.in_view(camera, Stopwatch())
    assert torch.equal(found.labels == 2, scene.pixels(1, camera))
    assert torch.equal(found.labels > 0, scene.trained.render(camera).alpha[0] > 0.5)
    assert found.masks is not None and torch.equal(found.masks[0], found.labels > 0)
    assert [*answer.parts] == ["001", "002"]
    assert torch.equal(answer.parts["002"].selected, scene.labels == 1)


def test_the_same_pixel_means_another_thing_in_another_view(scene: Things) -> None:
    first, other = scene.camera(0), scene.camera(5)
    x, y = scene.middle(1, first)
    assert scene.pixels(1, first)[int(y), int(x)] and not scene.pixels(1, other)[int(y), int(x)]
    answer = SamePixels(scene.trained, scene.field, [(x, y)])
    assert answer.selection is None
    for camera in (first, other):
        found = answer.in_view(camera, Stopwatch())
        same = next(label for label in range(4) if scene.pixels(label, camera)[int(y), int(x)])
        true = scene.pixels(same, camera)
        mask = found.labels == 1
        assert (mask & true).sum() / (mask | true).sum() > 0.85


def test_a_mask_is_where_more_than_half_is_selected(scene: Things) -> None:
    selection = Selection.of((scene.labels == 2).float())
    watch = Stopwatch()
    found = SelectedGaussians(scene.trained, selection).in_view(scene.camera(0), watch)
    assert torch.equal(found.labels == 1, scene.pixels(2, scene.camera(0)))
    watch.end_round()
    watch.end_view(warm_up=False)
    assert set(watch.stages()) == {"rendering", "decoding"}


def test_a_stopwatch_takes_the_median_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    watch = Stopwatch()
    for rounds in ([9.0, 1.0, 3.0, 2.0], [9.0, 4.0, 4.0, 8.0]):
        for seconds in rounds:
            with watch.stage("a"):
                now[0] += seconds
            with watch.stage("b"):
                now[0] += 1
            watch.end_round()
        watch.end_view(warm_up=True)
    assert watch.stages() == {"a": (3.0, 6.0), "b": (1.0, 2.0)}


def test_an_overlay_leaves_what_is_not_meant_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    labels = np.zeros((12, 16), dtype=np.int64)
    labels[3:9, 4:10] = 1
    labels[3:9, 10:12] = 2
    shown = overlay(picture, labels, label_colors(2))
    assert (shown[labels == 0] == picture[labels == 0]).all()
    assert (shown[3, 4:10] == 255).all()  # the outline
    inner = shown[5, 6].astype(int) - (picture[5, 6] * 0.45).astype(int)
    assert (abs(inner - label_colors(2)[1] * 0.55) <= 1.5).all()
    marked = overlay(picture, labels, label_colors(2), Marks([(1.5, 1.5)], [], Box(2, 2, 13, 10)))
    assert (marked[2, 5] == (60, 220, 60)).all()


def test_colours_of_labels_differ() -> None:
    colors = label_colors(150)
    assert colors.shape == (151, 3) and (colors[0] == 0).all()
    assert len({tuple(color) for color in colors.tolist()}) > 140
    assert (abs(np.diff(colors[1:].astype(int), axis=0)).sum(axis=1) > 60).all()


def test_a_legend_goes_below_the_picture() -> None:
    picture = np.full((20, 120, 3), 7, dtype=np.uint8)
    shown = with_legend(picture, label_colors(3), {1: "chair", 3: "a very long name of a thing"})
    assert shown.shape[1] == 120 and shown.shape[0] > 40
    assert (shown[:20] == picture).all()
    assert (shown[20:] == label_colors(3)[3]).all(axis=2).sum() > 50
    assert with_legend(picture, label_colors(1), {}) is picture


def test_a_histogram_shows_what_is_nearer_in_green() -> None:
    distances = np.concatenate([np.full(100, 0.3), np.full(900, 1.3)])
    picture = histogram_picture(distances, otsu(distances))[40:300, 60:]  # without its lettering
    green = (picture == (60, 220, 60)).all(axis=2)
    grey = (picture == (150, 150, 150)).all(axis=2)
    assert green.any() and grey.any()
    assert green.nonzero()[1].max() < grey.nonzero()[1].min()
    assert green.sum() < grey.sum()


def test_masks_are_compared_where_both_views_look() -> None:
    """Each view shows one end of a thing of twenty nodes, and something else behind it."""
    merger = MaskMerger()
    nodes = torch.arange(30)
    thing = nodes < 20
    for shown in ((nodes < 12) | (nodes >= 25), (nodes >= 8) & (nodes < 25)):
        masks = torch.stack([shown & thing, shown & ~thing], dim=1)
        merger.add(masks.float(), shown.float())
    shares = merger.shares()
    assert shares.shape[1] == 1  # what is behind it is in one view only
    assert torch.equal(shares[:, 0] > 0.5, thing)


def test_pixels_are_asked_of_cells_of_any_size() -> None:
    """A square of another look; cells of 4 x 2 pixels, two columns of them beyond the picture."""
    codes = torch.eye(4)
    features = codes[0].expand(30, 27, 4).clone() + 0.01 * torch.randn(30, 27, 4)
    features[10:20, 5:15] = codes[1]
    view = ViewMap(features, torch.ones(30, 27, dtype=torch.bool), 25.0, 30.0, 100, 60)
    true = Box(20, 20, 60, 40).mask(100, 60) > 0
    for scores in (view.at_points([(40, 30)]), view.in_box(Box(18, 18, 62, 42))):
        mask = scores > 0.5
        assert mask.shape == (60, 100)
        assert (mask & true).sum() / (mask | true).sum() > 0.85
    held = view.in_box(Box(20, 20, 48, 44))
    assert (held > 0.5)[20:40, 22:46].float().mean() > 0.9 and not held[:, 48:].any()
