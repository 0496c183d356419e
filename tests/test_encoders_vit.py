"""Vision transformers against timm itself, on random weights."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import TINY, random_model, random_photo, weights_of
from torch import Tensor

from feature_gs.encoders import Encoder, Grid, load_encoder
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

REGISTERS = "vit_small_patch16_dinov3"  # class token, four registers, rotary positions
SEPARATE_BIAS = "eva02_tiny_patch14_224"  # biases apart from the projections


def encoder(name: str = TINY, **options: Any) -> Encoder:
    return load_encoder(f"timm:{name}", weights=weights_of(name), options=options)


def normalised(photo: Tensor, width: int, height: int) -> Tensor:  # [H, W, 3] -> [1, 3, height, width]
    """The input of a network that wants 0.5 +- 0.5, by hand."""
    picture = Image.fromarray(photo.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(picture) / 255.0).permute(2, 0, 1).float()[None]


@pytest.mark.parametrize("name", [TINY, REGISTERS, SEPARATE_BIAS])
def test_tokens_are_those_of_timm(name: str) -> None:
    made = encoder(name, size=8 * (14 if "14" in name else 16), layer=3)
    photo = random_photo(150, 75)
    model = random_model(name)
    config = model.pretrained_cfg
    side = made.patch
    pixels = normalised(photo, 8 * side, 4 * side)
    pixels = (pixels - torch.tensor(config["mean"]).view(3, 1, 1)) / torch.tensor(config["std"]).view(3, 1, 1)
    with torch.no_grad():
        expected = model.forward_intermediates(pixels, indices=[3], norm=True, intermediates_only=True)[0][0]
    features = made(photo)
    assert features.shape == expected.shape == (made.channels, 4, 8)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert features.std() > 0.1


def test_the_last_layer_is_the_networks_own_output() -> None:
    photo = random_photo(96, 64)
    model = random_model(TINY)
    mean, deviation = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    pixels = normalised(photo, 96, 64)
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    with torch.no_grad():
        tokens = model.forward_features(pixels)[0, model.num_prefix_tokens :]
    made = encoder(size=96)
    torch.testing.assert_close(made(photo), tokens.T.reshape(-1, 4, 6), rtol=1e-5, atol=1e-5)
    assert made.describe()["options"]["layer"] == 5
    assert torch.equal(made(photo), encoder(size=96, layer="5")(photo))


@pytest.mark.parametrize("facet", ["query", "key", "value"])
def test_facets_are_slices_of_the_fused_projection(facet: str) -> None:
    photo = random_photo(64, 48)
    model = random_model(TINY)
    mean, deviation = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    pixels = normalised(photo, 64, 48)
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    seen: list[Tensor] = []
    model.blocks[2].attn.qkv.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    with torch.no_grad():
        model.forward_features(pixels)
    start = 64 * ["query", "key", "value"].index(facet)
    expected = seen[0][0, model.num_prefix_tokens :, start : start + 64].T.reshape(64, 3, 4)
    features = encoder(size=64, layer=2, facet=facet)(photo)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_facets_with_biases_kept_apart() -> None:
    photo = random_photo(56, 56)
    model = random_model(SEPARATE_BIAS)
    attention = model.blocks[1].attn
    mean, deviation = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    pixels = normalised(photo, 56, 56)
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
    seen: list[Tensor] = []
    attention.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model.forward_features(pixels)
        inside = seen[0][0, model.num_prefix_tokens :]
        parts = [("query", "q"), ("key", "k"), ("value", "v")]
        for facet, letter in parts:
            made = encoder(SEPARATE_BIAS, size=56, layer=1, facet=facet)
            if attention.qkv is not None:
                which = "qkv".index(letter)
                weight = attention.qkv.weight[192 * which : 192 * (which + 1)]
                bias = getattr(attention, f"{letter}_bias")
            else:
                projection = getattr(attention, f"{letter}_proj")
                weight, bias = projection.weight, projection.bias
            expected = inside @ weight.T + (0 if bias is None else bias)
            torch.testing.assert_close(made(photo), expected.T.reshape(-1, 4, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(101, 67), (67, 101), (441, 788), (200, 9)])
def test_any_photo_gets_whole_cells_that_are_exactly_the_photo(width: int, height: int) -> None:
    made = encoder(size=96)
    grid = made.grid(width, height)
    long, short = max(grid.rows, grid.columns), min(grid.rows, grid.columns)
    assert long == 6 and short == max(1, round(6 * min(width, height) / max(width, height)))
    assert (grid.columns > grid.rows) == (width > height)
    assert grid.columns / grid.cells_per_pixel_x == pytest.approx(width)
    assert grid.rows / grid.cells_per_pixel_y == pytest.approx(height)
    assert made(random_photo(width, height)).shape == (64, grid.rows, grid.columns)


def test_a_stride_of_the_patch_changes_nothing() -> None:
    photo = random_photo(101, 67)
    assert torch.equal(encoder(size=96, stride=16)(photo), encoder(size=96)(photo))


@pytest.mark.parametrize("stride", [4, 5, 8])
def test_overlapping_patches_make_a_finer_grid(stride: int) -> None:
    made = encoder(size=80, stride=stride)
    grid = made.grid(100, 50)
    assert grid == Grid.whole(100, 50, round(40 / stride), 80 // stride)
    assert made(random_photo(100, 50)).shape == (64, grid.rows, grid.columns)


def test_overlapping_patches_are_centred_on_their_cells() -> None:
    """The network sees patches only, so its patch embedding of a mark tells where a cell is."""
    made: Any = encoder(size=80, stride=4)
    photo = torch.zeros(80, 80, 3, dtype=torch.uint8)
    row, column = 9, 13
    photo[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 255
    made.model.patch_embed.proj.weight.fill_(0)
    made.model.patch_embed.proj.weight[:, :, 6:10, 6:10] = 1  # the four pixels in the middle of a patch
    made.model.patch_embed.proj.bias.fill_(0)
    seen: list[Tensor] = []
    made.model.patch_embed.proj.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    made(photo)
    response = seen[0][0, 0]
    assert response.shape == (20, 20)
    assert response.argmax() == row * 20 + column
    assert (response > response.min() + 1).sum() == 1


def test_flip_averaging_makes_the_map_of_a_mirrored_photo_the_mirrored_map() -> None:
    photo = random_photo(96, 64)
    made, plain = encoder(size=96, flip=True), encoder(size=96)
    mirrored = photo.flip(1).contiguous()
    torch.testing.assert_close(made(mirrored), made(photo).flip(-1), rtol=1e-4, atol=1e-4)
    assert (plain(mirrored) - plain(photo).flip(-1)).abs().max() > 1e-2
    torch.testing.assert_close(
        made(photo), (plain(photo) + plain(mirrored).flip(-1)) / 2, rtol=1e-4, atol=1e-4
    )


def test_scales_are_averaged_on_the_grid_of_the_input_size() -> None:
    photo = random_photo(128, 64)
    both, one = encoder(size=128, scales="1,0.5"), encoder(size=128)
    half = encoder(size=64)(photo)
    half = torch.nn.functional.interpolate(half[None], (4, 8), mode="bilinear", align_corners=False)[0]
    assert both.grid(128, 64) == one.grid(128, 64)
    torch.testing.assert_close(both(photo), (one(photo) + half) / 2, rtol=1e-4, atol=1e-4)
    assert torch.equal(encoder(size=128, scales="1")(photo), one(photo))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 6}, "last or 0 to 5, got 6"),
        ({"layer": "-1"}, "cannot read option layer=-1 of timm:test_vit: expected last or the index"),
        ({"stride": 17}, "at most its patch of 16 pixels, got 17"),
        ({"facet": "keys"}, "one of token, query, key, value"),
        ({"flip": "maybe"}, "true or false"),
        ({"scales": "1,zwei"}, "numbers from 0.1 to 10"),
        ({"scales": "nan"}, "numbers from 0.1 to 10"),
        ({"size": 0}, "a whole number above 0"),
        ({"facett": "key"}, r"no option 'facett'. Did you mean facet\?"),
    ],
)
def test_wrong_options_say_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoder(**options)


def test_a_description_is_kept_with_the_maps() -> None:
    made = encoder(size=64, facet="key", stride=8)
    described = made.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["timm_model"] == "test_vit.r160_in1k"
    assert len(described["weights_sha256"]) == 64
    assert described["options"] == {
        "layer": 5,
        "facet": "key",
        "stride": 8,
        "size": 64,
        "flip": False,
        "scales": [1.0],
    }
    assert described["licence"] == "apache-2.0"
    assert described["origin"].endswith("timm/test_vit.r160_in1k/resolve/main/model.safetensors")
