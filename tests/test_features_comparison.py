"""The figure of teacher and distilled features: its query, its distance and its panels."""

import math

import numpy as np
import pytest
import torch

from feature_gs.errors import UserError
from feature_gs.features.comparison import Comparison, Patch, _Cells, cell_to_compare
from feature_gs.features.decoders import make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.maps import TeacherMap
from feature_gs.features.palette import Palette
from feature_gs.features.rendering import FeatureMap
from feature_gs.scenes import Camera

# Two rows of three cells: the first axis (of any length), its opposite, the second axis.
CODES = torch.tensor([[1.0, 0, 0], [-2.0, 0, 0], [0, 3.0, 0]])
MAP = CODES[torch.tensor([[0, 1, 2], [0, 0, 2]])]  # [2, 3, 3]
TEACHER = TeacherMap(MAP.permute(2, 0, 1).half(), 3.0, 2.0)


def field(kind: str = "none") -> FeatureField:
    decoder = make_decoder(kind, 3, 3, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(1, dtype=torch.bool)
    palette = Palette(torch.eye(3), torch.zeros(3))
    return FeatureField(torch.zeros(1, 3), decoder, "codes", (10.0, 10.0), seen, palette=palette)


def rendered(alpha: float = 1.0) -> FeatureMap:
    return FeatureMap(alpha * MAP, torch.full((2, 3), alpha), 3.0, 2.0)


def test_distance_is_that_of_unit_vectors() -> None:
    cells = _Cells.of_teacher(TEACHER)
    query = cells.query(Patch(5, 5, 4), 30, 20)
    assert torch.allclose(query, torch.tensor([1.0, 0, 0]))
    expected = torch.tensor([[0, 2, math.sqrt(2)], [0, 0, math.sqrt(2)]])
    assert torch.allclose(cells.distance(query), expected, atol=1e-3)


def test_the_query_is_the_mean_of_the_unit_features_in_the_patch() -> None:
    """A patch over all cells: four times the first axis once turned round, twice the second."""
    query = _Cells.of_teacher(TEACHER).query(Patch(15, 10, 100), 30, 20)
    expected = torch.tensor([3 - 1, 2.0, 0])
    assert torch.allclose(query, expected / expected.norm(), atol=1e-3)


@pytest.mark.parametrize(
    ("patch", "column"),
    [(Patch(25, 5, 2), 2), (Patch(19.9, 5, 1), 1), (Patch(29.9, 5, 3), 2), (Patch(0, 0, 3), 0)],
)
def test_a_patch_smaller_than_a_cell_takes_the_cell_it_is_in(patch: Patch, column: int) -> None:
    query = _Cells.of_teacher(TEACHER).query(patch, 30, 20)
    assert torch.allclose(query, MAP[0, column] / MAP[0, column].norm())


def test_distilled_features_are_decoded_and_made_solid() -> None:
    described = _Cells.of_field(field(), rendered(alpha=0.3))
    assert torch.allclose(described.part(0, 2), MAP)
    linear = field("linear")
    parts = _Cells.of_field(linear, rendered(alpha=0.3))
    whole = linear.decoder(MAP[None])[0]
    assert torch.allclose(torch.cat([parts.part(0, 1), parts.part(1, 2)]), whole, atol=1e-6)
    conv = field("conv3x3")
    parts = _Cells.of_field(conv, rendered())
    whole = conv.decoder(MAP[None])[0]
    assert torch.allclose(torch.cat([parts.part(0, 1), parts.part(1, 2)]), whole, atol=1e-6)


def test_panels_show_what_their_captions_say() -> None:
    """The picture is 30 x 20; what is near is white, the opposite black, and PCA panels show the palette."""
    colors = np.zeros((20, 30, 3), np.uint8)
    colors[..., 1] = 200
    patch = Patch(5, 5, 4)
    figures = Comparison(field(), patch, TEACHER, rendered(), (30, 20))
    plain = figures.figure(TEACHER, rendered(), colors)
    height, width = plain.shape[:2]
    assert width == 2 * 30 + 3 * 6 and height % 2 == 0
    top = height // 2 - 6 - 20  # of the upper panels
    for left in (6, 42):
        near, opposite, other = (plain[top + 4, left + x, 0] for x in (5, 15, 25))
        assert near > 235 and opposite < 20 and 20 < other < 128
    bottom = height - 6 - 20
    assert plain[bottom + 4, 6 + 5].tolist() == [255, 0, 0]
    assert plain[bottom + 4, 42 + 5].tolist() == [0, 200, 0]
    outlined = figures.figure(TEACHER, rendered(), colors, patch)
    assert outlined[top + 3, 6 + 5].tolist() == outlined[top + 3, 42 + 5].tolist() == [255, 60, 60]
    faint = figures.figure(TEACHER, rendered(alpha=0.5), colors)
    half = plain[top + 4, 42 + 5, 0] / 2
    assert faint[top + 4, 42 + 5, 0] == pytest.approx(half, abs=1), "fades where little is"


def test_patches_outside_are_refused() -> None:
    Patch.central(30, 20).check(30, 20)
    for patch in (
        Patch(30, 5, 4),
        Patch(5, -1, 4),
        Patch(5, 5, 0),
        Patch(math.nan, 5, 4),
        Patch(5, 5, math.inf),
    ):
        with pytest.raises(UserError, match="--patch .* 30 x 20 pixels"):
            patch.check(30, 20)


def test_large_views_are_compared_at_larger_cells() -> None:
    def at(width: int, height: int, kind: str = "none") -> tuple[float, float]:
        camera = Camera("a.png", width, height, torch.eye(3), torch.eye(4))
        return cell_to_compare(field(kind), camera)

    assert at(400, 300) == (1, 1)
    assert at(4096, 5461) == (1, 1), "3 x 4096 x 5461 numbers are just within 2^26"
    assert at(4096, 5462) == (2, 2)
    assert at(16384, 8192) == (4, 4)
    assert at(400, 300, "conv3x3") == (10, 10)
