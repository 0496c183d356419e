"""Photos to inputs: sizes in whole cells, edges mirrored, positions exact."""

import pytest
import torch

from feature_gs.encoders.picture import cells_along, network_input


@pytest.mark.parametrize(
    ("size", "width", "height", "step", "expected"),
    [
        (512, 640, 480, 8, (48, 64)),
        (512, 480, 640, 8, (64, 48)),
        (518, 788, 441, 14, (21, 37)),
        (100, 1000, 10, 14, (1, 7)),
        (60, 3, 3, 8, (8, 8)),
    ],
)
def test_sides_are_whole_cells(
    size: int, width: int, height: int, step: int, expected: tuple[int, int]
) -> None:
    assert cells_along(size, width, height, step) == expected


def test_a_photo_of_the_right_size_is_not_touched() -> None:
    photo = torch.randint(256, (24, 32, 3), generator=torch.Generator().manual_seed(0)).byte()
    assert torch.equal(network_input(photo, 32, 24), photo.permute(2, 0, 1).float() / 255)
    mirrored = network_input(photo, 32, 24, overlap=4)
    assert mirrored.shape == (3, 28, 36)
    assert torch.equal(mirrored[:, 2:-2, 2:-2], photo.permute(2, 0, 1).float() / 255)
    assert torch.equal(mirrored[:, 2:-2, :2], mirrored[:, 2:-2, 2:4].flip(2))
    assert torch.equal(mirrored[:, -2:], mirrored[:, -4:-2].flip(1))


@pytest.mark.parametrize("overlap", [0, 3, 4, 7])
@pytest.mark.parametrize("width", [50, 100, 137])
def test_every_pixel_shows_its_place_in_the_photo(width: int, overlap: int) -> None:
    """On a ramp, a pixel's value is the place it shows; half pixels included."""
    photo = (torch.arange(100) * 2).byte()[None, :, None].expand(20, -1, 3).contiguous()
    pixels = network_input(photo, width, 20, overlap)
    place = (torch.arange(width + overlap) + 0.5 - overlap / 2) * 100 / width - 0.5
    inside = (place > 4) & (place < 95)
    assert inside.sum() > 0.85 * width
    error = pixels[0, 10] * 255 / 2 - place
    assert error[inside].abs().max() < 0.26  # half a grey value, and its rounding


def test_a_photo_narrower_than_its_mirrored_edge() -> None:
    assert network_input(torch.zeros(1, 1, 3, dtype=torch.uint8), 4, 4, overlap=12).shape == (3, 16, 16)
