"""SAM as a teacher: the package's own embedding, the part that shows the photo, and its checkpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_networks import random_photo
from random_sam import NAME, SMALL, random_sam, sam_file
from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders import load_encoder, sam_weights
from feature_gs.encoders.base import Grid
from feature_gs.encoders.sam import SamEncoder, sam_grid, sam_size
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.encoders.weights import hub_folder
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread", "small_models")

LANDSCAPE, PORTRAIT, SQUARE = (120, 80), (44, 79), (96, 96)
TINY, WIDE = (3, 2), (640, 20)
SIZES = [LANDSCAPE, PORTRAIT, SQUARE, TINY, WIDE]


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sam_weights.MODELS, NAME, SMALL)
    yield


def encoder() -> SamEncoder:
    made = load_encoder(NAME, weights=sam_file())
    assert isinstance(made, SamEncoder)
    return made


class Means(nn.Module):
    """Stands for the network: the mean colour of every cell, in all 256 channels."""

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.shape == (1, 3, 1024, 1024)
        return functional.avg_pool2d(pixels, 16).mean(1, keepdim=True).expand(1, 256, 64, 64)


@pytest.mark.parametrize("size", SIZES)
def test_the_embedding_is_that_of_sams_own_predictor(size: tuple[int, int]) -> None:
    photo = random_photo(*size)
    package: Any = import_with_torchvision("segment_anything")
    predictor = package.SamPredictor(random_sam())
    predictor.set_image(photo.numpy(), image_format="RGB")
    made = encoder()
    grid = made.grid(*size)
    found = made(photo)
    assert torch.equal(found, predictor.features[0, :, : grid.rows, : grid.columns])
    assert found.std() > 0.1


def test_sizes_are_rounded_as_sam_rounds_them() -> None:
    transforms: Any = import_with_torchvision("segment_anything.utils.transforms")
    theirs = transforms.ResizeLongestSide.get_preprocess_shape
    generator = torch.Generator().manual_seed(0)
    halves = [size for odd in range(1001, 1031) for size in ((2048, odd), (odd, 2048))]
    for width, height in [*halves, *torch.randint(40, 5000, (2000, 2), generator=generator).tolist()]:
        assert sam_size(width, height) == theirs(height, width, 1024)[::-1]


def test_the_grid_covers_the_photo_and_nothing_else() -> None:
    # 826 x 615 becomes 1024 x 762.4: 762 rows of pixels, 47 and five eighths of a cell.
    assert sam_grid(826, 615) == Grid(48, 64, 64 / 826, 762 / 16 / 615)
    assert sam_grid(615, 826) == Grid(64, 48, 762 / 16 / 615, 64 / 826)
    assert sam_grid(500, 500) == Grid(64, 64, 64 / 500, 64 / 500)
    assert sam_grid(2048, 16) == Grid(1, 64, 64 / 2048, 8 / 16 / 16)
    for size in [*SIZES, (441, 788), (1600, 1200), (4000, 31)]:
        grid = sam_grid(*size)
        for cells, per_pixel, pixels in zip(
            (grid.columns, grid.rows), (grid.cells_per_pixel_x, grid.cells_per_pixel_y), size, strict=True
        ):
            assert cells - 1 < per_pixel * pixels <= cells


@pytest.mark.parametrize("size", [(2050, 15), (15, 2050)])
def test_a_photo_of_less_than_half_a_cell_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"a photo of {size[0]} x {size[1]} pixels .* half a cell"):
        encoder().grid(*size)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (512, 512), (1000, 130)])
def test_a_mark_in_a_corner_lands_in_that_corner_of_the_map(width: int, height: int) -> None:
    made = encoder()
    made.model = Means()
    mark = max(width, height) // 32
    for bottom in (False, True):
        for right in (False, True):
            photo = torch.zeros(height, width, 3, dtype=torch.uint8)
            rows = slice(height - mark, None) if bottom else slice(0, mark)
            columns = slice(width - mark, None) if right else slice(0, mark)
            photo[rows, columns] = 255
            found = made(photo)[0]
            grid = made.grid(width, height)
            bright = (found > found.min() + 0.5 * (found.max() - found.min())).nonzero()
            centre = (bright.float().mean(0) + 0.5) / torch.tensor(
                [grid.cells_per_pixel_y, grid.cells_per_pixel_x]
            )
            expected = torch.tensor(
                [
                    height - mark / 2 if bottom else mark / 2,
                    width - mark / 2 if right else mark / 2,
                ]
            )
            assert (centre - expected).abs().max() < max(width, height) / 64  # a cell


def test_colours_are_red_green_blue() -> None:
    """SAM subtracts 123.675 from red and 103.53 from blue, so pure red gives less than pure blue."""
    made = encoder()
    made.model = Means()
    red, blue = (torch.zeros(64, 64, 3, dtype=torch.uint8) for _ in range(2))
    red[..., 0] = 255
    blue[..., 2] = 255
    expected = ((255 - 123.675) / 58.395 - 116.28 / 57.12 - 103.53 / 57.375) / 3
    assert made(red).mean().item() == pytest.approx(expected, abs=1e-4)
    assert made(blue).mean() > made(red).mean() + 0.02


def test_findings_are_the_mean_feature_beside_the_photos() -> None:
    made: Any = encoder()
    embeddings = torch.randn(3, 256, 64, 64)
    answers = iter(embeddings)
    made.model = lambda pixels: next(answers)[None]
    assert made.findings() == {}
    made(random_photo(*SQUARE))
    assert made.findings() == {}
    made(random_photo(120, 80))  # 42 and two thirds of 64 rows
    made(random_photo(60, 120))  # 32 of 64 columns
    beside = torch.cat([embeddings[1, :, 43:].flatten(1), embeddings[2, :, :, 32:].flatten(1)], dim=1)
    found = made.findings()["padding"]
    torch.testing.assert_close(torch.tensor(found), beside.mean(1), rtol=1e-3, atol=1e-5)


def test_the_weights_are_named_beside_the_maps() -> None:
    described = encoder().describe()
    assert described["weights"] == "sam.pth" and len(described["weights_sha256"]) == 64
    assert described["channels"] == 256 and described["encoder"] == NAME


def test_missing_weights_stop_at_once_with_url_and_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_encoder(NAME)
    assert "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth" in str(caught.value)
    assert str(hub_folder() / "sam_vit_b_01ec64.pth") in str(caught.value)


def test_weights_are_found_in_torchs_hub_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sam_vit_b_01ec64.pth").symlink_to(sam_file())
    load_encoder(NAME)


def test_weights_of_another_size_are_called_by_their_name(tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1280)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds the weights of sam_vit_h, not of sam_vit_b"):
        load_encoder(NAME, weights=tmp_path / "w.pth")


def damaged(tmp_path: Path, **changes: Any) -> Path:
    """The small checkpoint with other tensors; None removes one."""
    state = {**random_sam().state_dict(), **changes}
    path = tmp_path / "damaged.pth"
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("image_encoder.neck.2.weight", None, "1 missing: image_encoder.neck.2.weight"),
        (
            "image_encoder.neck.2.weight",
            torch.zeros(256, 256, 1, 1),
            r"1 of another shape: image_encoder.neck.2.weight .* instead of \[256, 256, 3, 3\]",
        ),
        (
            "image_encoder.blocks.9.norm1.weight",
            torch.zeros(3),
            "1 unknown: image_encoder.blocks.9.norm1.weight",
        ),
        ("student.weight", torch.zeros(3), "1 unknown: student.weight"),
        ("image_encoder.neck.0.weight", "text", "1 missing: image_encoder.neck.0.weight"),
    ],
)
def test_a_checkpoint_must_fit_exactly(tmp_path: Path, key: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_encoder(NAME, weights=damaged(tmp_path, **{key: value}))


def test_another_librarys_layout_is_told_from_damage(tmp_path: Path) -> None:
    torch.save({"vision_encoder.pos_embed": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="transformers library"):
        load_encoder(NAME, weights=tmp_path / "w.pth")


def test_half_precision_checkpoints_are_computed_in_full(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({key: value.half() for key, value in random_sam().state_dict().items()}, path)
    made: Any = load_encoder(NAME, weights=path)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_checkpoint_of_full_size_gives_the_embedding_of_the_predictor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    full = sam_weights.MODELS[NAME]
    assert full.width == 768
    package: Any = import_with_torchvision("segment_anything")
    photo = random_photo(90, 120)
    predictor = package.SamPredictor(random_sam(full))
    predictor.set_image(photo.numpy())
    made: Any = load_encoder(NAME, weights=sam_file(full))
    assert torch.equal(made.embed(photo), predictor.features[0])
    theirs = package.sam_model_registry
    for name in ("vit_b", "vit_l", "vit_h"):  # the table of sizes against the package's own
        model = sam_weights.MODELS[f"sam_{name}"]
        with torch.device("meta"):
            encoder = theirs[name]().image_encoder
        assert encoder.pos_embed.shape[-1] == model.width and len(encoder.blocks) == model.depth
        assert encoder.blocks[0].attn.num_heads == model.heads
        assert tuple(i for i, b in enumerate(encoder.blocks) if b.window_size == 0) == model.global_blocks
