"""Networks that are no plain ViTs, against timm itself, on random weights."""

from typing import Any

import pytest
import torch
from random_networks import random_model, random_photo, weights_of

from feature_gs.encoders import Encoder, Grid, load_encoder
from feature_gs.encoders.picture import network_input
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def encoder(name: str, **options: Any) -> Encoder:
    return load_encoder(f"timm:{name}", weights=weights_of(name), options=options)


@pytest.mark.parametrize(
    ("name", "layer", "channels", "reduction"),
    [("test_convnext", "last", 64, 32), ("test_convnext", 1, 32, 8), ("test_resnet", 2, 48, 8)],
)
def test_a_level_of_a_convolutional_network(
    name: str, layer: int | str, channels: int, reduction: int
) -> None:
    made = encoder(name, size=128, layer=layer)
    photo = random_photo(100, 60)
    rows = round(128 * 0.6 / reduction)
    assert made.channels == channels
    assert made.grid(100, 60) == Grid.whole(100, 60, rows, 128 // reduction)
    model = random_model(name)
    mean, deviation = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = network_input(photo, 128, rows * reduction)
    index = made.settings["layer"]
    with torch.no_grad():
        expected = model.forward_intermediates(
            ((pixels - mean) / deviation)[None], indices=[index], norm=True, intermediates_only=True
        )[0][0]
    torch.testing.assert_close(made(photo), expected, rtol=1e-5, atol=1e-5)


def test_a_network_of_one_input_size_sees_the_photo_squeezed() -> None:
    made = encoder("levit_128s", layer=0)
    assert made.grid(300, 100) == Grid.whole(300, 100, 14, 14)
    assert made(random_photo(300, 100)).shape == (128, 14, 14)
    last = encoder("levit_128s")  # cells of 64 of the 224 pixels: three and a half, so four
    assert last.grid(300, 100) == Grid(4, 4, 3.5 / 300, 3.5 / 100)
    assert last(random_photo(300, 100)).shape == (384, 4, 4)
    with pytest.raises(UserError, match=r"takes no size or scales: its input is always \(224, 224\)"):
        encoder("levit_128s", size=448)


def test_options_of_transformers_are_refused() -> None:
    with pytest.raises(UserError, match="no option 'facet'"):
        encoder("test_convnext", facet="key")
    with pytest.raises(UserError, match="last or 0 to 3, got 4"):
        encoder("test_convnext", layer=4)
