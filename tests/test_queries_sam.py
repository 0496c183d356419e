"""SAM's decoder on features from anywhere: the package's own masks, prompts, everything-mode, padding."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import random_photo
from random_sam import NAME, SMALL, random_sam, sam_file
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders import sam_weights
from feature_gs.encoders.sam import sam_grid
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError
from feature_gs.queries.sam import SamDecoder, SamPrompt
from feature_gs.queries.sam_everything import boxes_of, point_grid, stability_of, suppressed
from feature_gs.queries.sam_frame import padded, padding_of

pytestmark = pytest.mark.usefixtures("one_thread", "small_models")

SIZES = [(120, 80), (44, 79), (96, 96)]  # landscape, portrait, square


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sam_weights.MODELS, NAME, SMALL)
    yield


@cache
def decoder() -> SamDecoder:
    return SamDecoder.load(NAME, sam_file())


@cache
def predictor(width: int, height: int) -> Any:
    """segment_anything's own predictor, its photo set."""
    package: Any = import_with_torchvision("segment_anything")
    made = package.SamPredictor(random_sam())
    made.set_image(random_photo(width, height).numpy())
    return made


def prompts(width: int, height: int) -> dict[str, SamPrompt]:
    size = torch.tensor([width, height])
    points = torch.tensor([[0.2, 0.3], [0.7, 0.9]]) * size
    box = (torch.tensor([[0.1, 0.2], [0.6, 0.8]]) * size).flatten()
    mask = torch.randn(256, 256, generator=torch.Generator().manual_seed(3)) * 10
    return {
        "point": SamPrompt(points[:1], torch.tensor([1])),
        "negative point": SamPrompt(points, torch.tensor([1, 0])),
        "box": SamPrompt(box=box),
        "box and point": SamPrompt(points, torch.tensor([0, 1]), box),
        "refined": SamPrompt(points[:1], torch.tensor([1]), mask=mask),
        "mask alone": SamPrompt(mask=mask),
    }


def numpy_of(value: Tensor | None) -> Any:
    return None if value is None else value.numpy()


@pytest.mark.parametrize(
    ("size", "kind"),
    [*((SIZES[0], kind) for kind in prompts(1, 1)), *((size, "box and point") for size in SIZES[1:])],
)
def test_on_sams_own_features_masks_are_sams_own(size: tuple[int, int], kind: str) -> None:
    own, prompt = predictor(*size), prompts(*size)[kind]
    multimask = kind != "box"
    masks, scores, logits = own.predict(
        numpy_of(prompt.points),
        numpy_of(prompt.labels),
        numpy_of(prompt.box),
        None if prompt.mask is None else prompt.mask.numpy()[None],
        multimask_output=multimask,
    )
    found = decoder().masks(own.features[0], *size, prompt, multimask=multimask)
    assert found.masks.shape == (3 if multimask else 1, size[1], size[0])
    assert np.array_equal(found.masks.numpy(), masks)
    assert np.array_equal(found.scores.numpy(), scores)
    assert np.array_equal(found.logits.numpy(), logits)
    assert 0.02 < masks.mean() < 0.98


def test_the_image_encoder_is_neither_built_nor_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    modeling: Any = import_with_torchvision("segment_anything.modeling")
    monkeypatch.setattr(modeling, "ImageEncoderViT", None)
    sam: Any = SamDecoder.load(NAME, sam_file()).network
    kept = {key.split(".")[0] for key in sam.sam.state_dict()}
    assert kept == {"prompt_encoder", "mask_decoder"}


def test_the_decoder_of_another_size_is_refused() -> None:
    """The decoder has one form in all sizes: only the encoder's part of the file tells them apart."""
    with pytest.raises(UserError, match="sam_vit_l"):
        SamDecoder.load("sam_vit_l", sam_file_of_width(1280))
    with pytest.raises(UserError, match=r"sam_vit_b, sam_vit_l, sam_vit_h; got 'dinov2_small'"):
        SamDecoder.load("dinov2_small", sam_file())


@cache
def sam_file_of_width(width: int) -> Any:
    path = sam_file().with_name(f"wide{width}.pth")
    state = {**random_sam().state_dict(), "image_encoder.pos_embed": torch.zeros(1, 64, 64, width)}
    torch.save(state, path)
    return path


class Shows:
    """Stands for the network: the mask is the first channel of the embedding."""

    prompts = 4

    def __call__(self, embedding: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return functional.interpolate(embedding[:, :1], (256, 256), mode="nearest"), torch.ones(1, 1)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (512, 512), (1000, 130)])
def test_a_mark_in_a_corner_of_the_map_lands_in_that_corner_of_the_picture(width: int, height: int) -> None:
    shows = SamDecoder(Shows())  # type: ignore[arg-type]
    anywhere = SamPrompt(torch.tensor([[1.0, 1.0]]), torch.tensor([1]))
    grid = sam_grid(width, height)
    for row in (0, grid.rows - 1):
        for column in (0, grid.columns - 1):
            features = torch.full((256, grid.rows, grid.columns), -1.0)
            features[:, row, column] = 1
            mask = shows.masks(features, width, height, anywhere, padding=torch.full((256,), -1.0)).masks[0]
            y, x = (torch.arange(side) + 0.5 for side in (height, width))
            in_row = (y * grid.cells_per_pixel_y).floor() == row
            in_column = (x * grid.cells_per_pixel_x).floor() == column
            expected = in_row[:, None] & in_column[None, :]
            wrong = (mask != expected).sum()
            border = 2 * (1 / grid.cells_per_pixel_x + 1 / grid.cells_per_pixel_y)  # rounding at its edges
            assert mask.any() and wrong <= border, (row, column)


def test_the_map_may_be_rendered_at_another_size_of_the_same_picture() -> None:
    """Rounding gives pictures of 800 x 419 and 100 x 52 pixels one row more or less."""
    one, other = sam_grid(800, 419), sam_grid(100, 52)
    assert (one.rows, other.rows) == (34, 34)
    for rows in (33, 34, 35):
        features = torch.arange(rows).float().view(1, rows, 1).expand(256, rows, 64)
        whole = padded(features, 800, 419)
        assert whole.shape == (256, 64, 64)
        assert torch.equal(whole[0, :, 5], torch.arange(64).clamp(max=min(rows, 34) - 1).float())


@pytest.mark.parametrize("size", [(120, 80), (44, 79)])
def test_padding_fills_what_shows_nothing_of_the_picture(size: tuple[int, int]) -> None:
    grid = sam_grid(*size)
    features = torch.randn(256, grid.rows, grid.columns)
    padding = torch.arange(256.0)
    whole = padded(features, *size, padding)
    assert torch.equal(whole[:, : grid.rows, : grid.columns], features)
    shown = torch.zeros(64, 64, dtype=torch.bool)
    shown[: grid.rows, : grid.columns] = True
    assert torch.equal(whole[:, ~shown], padding[:, None].expand(-1, int((~shown).sum())))
    repeated = padded(features, *size)
    last = (63, 10) if size[0] > size[1] else (10, 63)
    assert torch.equal(
        repeated[:, last[0], last[1]],
        features[:, min(last[0], grid.rows - 1), min(last[1], grid.columns - 1)],
    )


def test_a_whole_embedding_is_taken_as_it_is() -> None:
    whole = torch.randn(256, 64, 64)
    assert torch.equal(padded(whole, 120, 80, torch.zeros(256)), whole)
    assert torch.equal(padded(whole.half(), 120, 80), whole.half().float())


def test_padding_comes_from_the_teachers_folder() -> None:
    assert padding_of({}) is None
    assert padding_of({"padding": [1.0] * 255}) is None
    assert padding_of({"padding": ["x"] * 256}) is None
    assert padding_of({"padding": [float("nan")] * 256}) is None
    found = padding_of({"padding": [0.5] * 255 + [2]})
    assert found is not None and found[-1] == 2 and found.shape == (256,)


def test_features_of_another_size_or_teacher_are_refused() -> None:
    with pytest.raises(UserError, match="maps of 256 channels, got 64"):
        padded(torch.zeros(64, 43, 64), 120, 80)
    with pytest.raises(UserError, match="43 x 64 cells .* the map has 64 x 43"):
        padded(torch.zeros(256, 64, 43), 120, 80)
    with pytest.raises(UserError, match=r"SamDecoder.cell\(width, height\)"):
        padded(torch.zeros(256, 86, 128), 120, 80)


def test_a_cell_of_the_decoder_is_a_cell_of_the_teacher() -> None:
    x, y = SamDecoder.cell(826, 615)
    assert x == pytest.approx(826 / 64) and y == pytest.approx(615 * 16 / 762)


@pytest.mark.parametrize(
    ("points", "box", "says"),
    [
        ([[130, 5]], None, r"\(130, 5\) lies outside the picture of 120 x 80"),
        ([[5, 5], [5, -1]], None, r"\(5, -1\) lies outside"),
        ([[float("nan"), 5]], None, "lies outside"),
        (None, [5, 5, 50, 90], r"\(50, 90\) lies outside"),
        (None, [50, 5, 50, 70], "is empty"),
    ],
)
def test_prompts_outside_the_picture_are_refused(points: Any, box: Any, says: str) -> None:
    prompt = SamPrompt(
        None if points is None else torch.tensor(points),
        None if points is None else torch.ones(len(points)),
        None if box is None else torch.tensor(box),
    )
    with pytest.raises(UserError, match=says):
        decoder().masks(torch.zeros(256, 64, 64), 120, 80, prompt)


def test_prompts_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="needs points, a box or a mask"):
        SamPrompt()
    with pytest.raises(ValueError, match="belong together"):
        SamPrompt(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"points must be \[2, 2\], got \[2, 3\]"):
        SamPrompt(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"labels must be 0 or 1, got \[1.0, 2.0\]"):
        SamPrompt(torch.zeros(2, 2), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"mask must be \[256, 256\]"):
        SamPrompt(mask=torch.zeros(64, 64))


def plain_nms(boxes: Tensor, scores: Tensor, _: Tensor, iou_threshold: float) -> Tensor:
    """What torchvision's `batched_nms` does with one category."""
    kept: list[int] = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        for j in kept:
            left, top = torch.maximum(boxes[i, :2], boxes[j, :2]).tolist()
            right, bottom = torch.minimum(boxes[i, 2:], boxes[j, 2:]).tolist()
            common = max(0.0, right - left) * max(0.0, bottom - top)
            both = sum(float((boxes[k, 2:] - boxes[k, :2]).prod()) for k in (i, j))
            if common / (both - common) > iou_threshold:
                break
        else:
            kept.append(i)
    return torch.tensor(kept)


@pytest.mark.parametrize("overlap", [0.7, 1.0])
def test_everything_mode_finds_what_sams_own_generator_finds(
    overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random masks reach everywhere, so that few boxes stay; at an overlap of 1 all do."""
    width, height = SIZES[0]
    own = predictor(width, height)
    module: Any = import_with_torchvision("segment_anything.automatic_mask_generator")
    monkeypatch.setattr(module, "batched_nms", plain_nms)
    generator = module.SamAutomaticMaskGenerator(
        random_sam(),
        points_per_side=2,
        points_per_batch=4,
        pred_iou_thresh=0.9,
        stability_score_thresh=0.7,
        box_nms_thresh=overlap,
    )
    monkeypatch.setattr(generator, "predictor", own)
    monkeypatch.setattr(own, "set_image", lambda _: None)
    monkeypatch.setattr(own, "reset_image", lambda: None)
    theirs = generator.generate(random_photo(width, height).numpy())
    found = decoder().everything(
        own.features[0], width, height, points_per_side=2, score=0.9, stability=0.7, overlap=overlap
    )
    assert len(found) == len(theirs) > (2 if overlap == 1 else 0)
    for ours, expected in zip(found, theirs, strict=True):
        assert np.array_equal(ours.mask.numpy(), expected["segmentation"])
        assert (ours.score, ours.stability) == (expected["predicted_iou"], expected["stability_score"])
        assert ours.area == expected["area"] and list(ours.point) == expected["point_coords"][0]
        left, top, wide, high = expected["bbox"]  # to the middle of the last pixel, not to its edge
        assert ours.box == (left, top, left + wide + 1, top + high + 1)


def test_everything_mode_drops_what_is_bad_or_unstable() -> None:
    width, height = SIZES[0]
    features = predictor(width, height).features[0]
    every = decoder().everything(features, width, height, points_per_side=2, score=0, stability=0, overlap=1)
    assert len(every) == 12
    scores = sorted((segment.score for segment in every), reverse=True)
    assert [segment.score for segment in every] == scores
    good = decoder().everything(
        features, width, height, points_per_side=2, score=scores[4], stability=0, overlap=1
    )
    assert [segment.score for segment in good] == scores[:4]
    assert not decoder().everything(features, width, height, points_per_side=2, score=0, stability=1.01)


def test_points_are_spread_evenly() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert len(point_grid(32)) == 1024


def test_boxes_of_masks() -> None:
    masks = torch.zeros(3, 6, 9, dtype=torch.bool)
    masks[0, 2:5, 3:8] = True
    masks[1, 5, 8] = True
    assert boxes_of(masks).tolist() == [[3, 2, 7, 4], [8, 5, 8, 5], [0, 0, 0, 0]]
    assert boxes_of(masks[:0]).shape == (0, 4)


def test_stability_is_the_overlap_of_a_smaller_and_a_larger_mask() -> None:
    logits = torch.full((3, 4, 5), -2.0)
    logits[0, :2] = 3
    logits[0, 2] = 0  # ten pixels above +1, fifteen above -1
    logits[1, 0] = 5
    assert stability_of(logits)[:2].tolist() == pytest.approx([10 / 15, 1])
    assert stability_of(logits)[2].isnan()  # so it reaches no threshold


def test_suppression_keeps_the_better_of_two_that_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 20, (60, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(10, 40, (60, 2), generator=generator)], dim=1)
    scores = torch.randint(0, 20, (60,), generator=generator).float()  # with ties
    for overlap in (0.1, 0.5, 0.7):
        expected = plain_nms(boxes.float(), scores, scores, overlap)
        assert torch.equal(suppressed(boxes, scores, overlap), expected)
        assert 1 <= len(expected) < 60
    assert len(suppressed(boxes[:0], scores[:0], 0.5)) == 0


@pytest.mark.slow
def test_masks_of_a_checkpoint_of_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    full = sam_weights.MODELS[NAME]
    package: Any = import_with_torchvision("segment_anything")
    own = package.SamPredictor(random_sam(full))
    own.set_image(random_photo(90, 120).numpy())
    made = SamDecoder.load(NAME, sam_file(full))
    for prompt in prompts(90, 120).values():
        mask = None if prompt.mask is None else prompt.mask.numpy()[None]
        masks, scores, _ = own.predict(
            numpy_of(prompt.points), numpy_of(prompt.labels), numpy_of(prompt.box), mask
        )
        found = made.masks(own.features[0], 90, 120, prompt)
        assert np.array_equal(found.masks.numpy(), masks) and np.array_equal(found.scores.numpy(), scores)
