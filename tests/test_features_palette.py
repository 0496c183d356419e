"""Palette: its axes and range, one colour per feature, and that it folds into a pointwise decoder."""

import pytest
import torch
from torch import Tensor

from feature_gs.features.decoders import make_decoder
from feature_gs.features.palette import Palette, fit_palette, palette_picture


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_axes_are_the_three_widest_and_their_percentiles_the_ends() -> None:
    """Four independent channels of spread 100, 4, 2 and 1, each on its own axis, uniform."""
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    spread = torch.tensor([2.0, 100.0, 1.0, 4.0])
    palette = fit_palette(uniform * spread + 7)
    matrix = palette.matrix.abs()
    assert matrix.argmax(dim=0).tolist() == [1, 3, 0], "red is the widest"
    for channel, axis in ((0, 1), (1, 3), (2, 0)):
        low, high = torch.full((4,), 7.0), torch.full((4,), 7.0)
        low[axis] -= 0.49 * spread[axis]
        high[axis] += 0.49 * spread[axis]
        ends = sorted([palette.colors(low)[channel].item(), palette.colors(high)[channel].item()])
        assert ends == pytest.approx([0, 1], abs=0.02)
    assert torch.allclose(palette.colors(torch.full((4,), 7.0)), torch.full((3,), 0.5), atol=0.02)


def test_an_outlier_does_not_grey_the_rest() -> None:
    rows = draw(1000, 5)
    outlier = rows.clone()
    outlier[0] = 1e4
    spread = fit_palette(outlier).colors(rows).std(dim=0)
    assert spread.max() > 0.2


@pytest.mark.parametrize("channels", [1, 2])
def test_few_channels_give_colours_all_the_same(channels: int) -> None:
    palette = fit_palette(draw(500, channels))
    colors = palette.colors(draw(50, channels, seed=1))
    assert colors.shape == (50, 3)
    assert torch.equal(colors[:, 1], colors[:, 2]) or channels > 2
    assert (channels == 1) == torch.equal(colors[:, 0], colors[:, 1])
    assert colors.std(dim=0).min() > 0.1


def test_features_that_do_not_vary_are_grey() -> None:
    palette = fit_palette(torch.full((100, 6), 3.7))
    assert torch.allclose(palette.colors(torch.full((2, 6), 3.7)), torch.full((2, 3), 0.5))
    assert torch.isfinite(palette.matrix).all()


def test_without_a_sample_all_is_grey() -> None:
    palette = fit_palette(torch.zeros(0, 4))
    assert torch.equal(palette.colors(draw(3, 4)), torch.full((3, 3), 0.5))


@pytest.mark.parametrize(("kind", "channels"), [("none", 5), ("linear", 9)])
def test_a_pointwise_decoder_folds_into_the_palette(kind: str, channels: int) -> None:
    decoder = make_decoder(kind, 5, channels, generator=torch.Generator().manual_seed(1))
    palette = Palette(draw(channels, 3), draw(3, seed=2))
    folded = palette.of_gaussians(decoder)
    assert folded is not None
    matrix, bias = folded
    gaussians = draw(20, 5, seed=3)
    expected = palette.colors(decoder.decode_gaussians(gaussians))
    assert torch.allclose(gaussians @ matrix + bias, expected, atol=1e-5)
    assert not matrix.requires_grad


def test_a_decoder_of_neighbourhoods_does_not_fold() -> None:
    assert Palette(draw(9, 3), draw(3)).of_gaussians(make_decoder("conv3x3", 5, 9)) is None


def test_a_picture_is_black_where_nothing_is_and_never_brighter_than_alpha() -> None:
    colors = torch.tensor([[[0.2, 0.4, 0.1], [3.0, -1.0, 0.5], [9.0, 9.0, 9.0]]])
    alpha = torch.tensor([[1.0, 0.5, 0.0]])
    picture = palette_picture(colors, alpha)
    assert picture.tolist() == [[[51, 102, 26], [128, 0, 128], [0, 0, 0]]]
