"""The descriptor without weights: hand-made photos, and what it is for on real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders import Grid, load_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

FINE, COARSE = slice(0, 14), slice(14, 28)
DIRECTIONS = slice(6, 14)


def stripes(direction: str, width: int = 64, height: int = 64) -> Tensor:
    """Soft stripes: lightness changes across, down, or along a diagonal."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = {"across": x, "down": y, "diagonal": (x + y) / 2**0.5}[direction]
    grey = 128 + 60 * torch.sin(phase * 0.8)
    return grey.round().byte()[..., None].expand(-1, -1, 3).contiguous()


@pytest.mark.parametrize(("width", "height"), [(300, 201), (201, 300), (8, 8), (7, 3), (1, 1)])
def test_cells_of_eight_pixels_the_last_may_be_partial(width: int, height: int) -> None:
    encoder = load_encoder("handcrafted")
    grid = encoder.grid(width, height)
    assert grid == Grid(-(-height // 8), -(-width // 8), 1 / 8, 1 / 8)
    photo = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0))
    assert encoder(photo.byte()).shape == (28, grid.rows, grid.columns)


def test_a_plain_photo_has_one_feature_everywhere_also_in_partial_cells() -> None:
    features = load_encoder("handcrafted")(torch.full((37, 43, 3), 119, dtype=torch.uint8))
    torch.testing.assert_close(features, features[:, :1, :1].expand(-1, 5, 6), atol=1e-3, rtol=0)
    # Grey of 119 is L = 50 and a = b = 0 in CIELAB; offsets and scales are those of the fine scale.
    assert features[0, 0, 0] == pytest.approx(0, abs=0.02)
    assert features[1, 0, 0] == pytest.approx(-2.5 / 8.5, abs=5e-3)
    assert features[2, 0, 0] == pytest.approx(-9 / 14, abs=5e-3)
    assert features[3, 0, 0] == pytest.approx(-1.35 / 0.75, abs=0.02)
    assert features[DIRECTIONS].abs().max() < 1e-3


@pytest.mark.parametrize(("direction", "strongest"), [("across", 0), ("down", 4), ("diagonal", 2)])
def test_stripes_have_their_direction_at_both_scales(direction: str, strongest: int) -> None:
    features = load_encoder("handcrafted")(stripes(direction))[:, 2:-2, 2:-2]
    for scale in (FINE, COARSE):
        assert (features[scale][DIRECTIONS].argmax(0) == strongest).all()


def test_a_quarter_turn_turns_the_orientations() -> None:
    encoder = load_encoder("handcrafted")
    photo = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0)) * 255
    photo = functional.interpolate(photo.permute(2, 0, 1)[None], (64, 64), mode="bicubic")[0]
    photo = photo.clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    turned = encoder(photo.rot90(1, (0, 1)).contiguous())
    expected = encoder(photo).rot90(1, (1, 2)).clone()
    for scale in (FINE, COARSE):
        expected[scale][DIRECTIONS] = expected[scale][DIRECTIONS].roll(4, 0)
    torch.testing.assert_close(turned, expected, atol=2e-3, rtol=0)


def test_the_cell_is_an_option() -> None:
    encoder = load_encoder("handcrafted?cell=16")
    assert encoder(stripes("across")).shape == (28, 4, 4)


def test_cosines_tell_materials_apart_on_real_photos(shared_data: Path) -> None:
    folder = shared_data / "scenes" / "tabletop"
    encoder = load_encoder("handcrafted")
    features, labels = [], []
    for name in ("000", "024", "048"):
        path = next((folder / "images").glob(f"*{name}.*"))
        with Image.open(path) as photo, Image.open(folder / "labels" / f"{path.stem}.png") as truth:
            features.append(encoder(torch.from_numpy(np.array(photo.convert("RGB")))).flatten(1))
            tiles = np.array(truth)
        tiles = np.pad(tiles, ((0, -tiles.shape[0] % 8), (0, -tiles.shape[1] % 8)), mode="edge")
        rows, columns = tiles.shape[0] // 8, tiles.shape[1] // 8
        tiles = tiles.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
        pure = (tiles == tiles[:, :1]).all(1)
        labels.append(torch.from_numpy(np.where(pure, tiles[:, 0], 0).astype(np.int64)))
    unit = functional.normalize(torch.cat(features, 1), dim=0).T
    label = torch.cat(labels)
    objects = [value for value in label.unique().tolist() if value >= 5]
    assert len(objects) >= 8
    same, other = [], []
    for value in objects:
        cosine = unit[label > 0] @ functional.normalize(unit[label == value].mean(0), dim=0)
        same.append(cosine[label[label > 0] == value].mean())
        other.append(cosine[label[label > 0] != value].mean())
    assert torch.stack(same).mean() > 0.85
    assert torch.stack(other).mean() < 0.5
