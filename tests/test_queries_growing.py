"""Regions in rows of nodes whose features are chosen by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_gs.queries.graph import Graph
from feature_gs.queries.growing import Nodes, grow_from_box, grow_from_mask, grow_from_points

pytestmark = pytest.mark.usefixtures("one_thread")

A, B, C = torch.eye(6)[:3]


def row(*parts: tuple[Tensor, int], gaps: Sequence[int] = (), noise: float = 0.03) -> Nodes:
    """Nodes in a row, three neighbours on each side; part after part of one look, with gaps before some."""
    features = torch.cat([look.expand(count, -1) for look, count in parts])
    features = features + noise * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    part = np.repeat(np.arange(len(parts)), [count for _, count in parts])
    piece = np.searchsorted(np.array(gaps), part, side="right")
    nodes = np.arange(len(part))
    pairs = np.concatenate([np.stack([nodes[:-step], nodes[step:]]) for step in (1, 2, 3)], axis=1)
    first, second = pairs[:, piece[pairs[0]] == piece[pairs[1]]]
    return Nodes(features, None, Graph(first, second, nodes), nodes[:, None].astype(np.float64))


def at(nodes: Nodes, *places: int) -> Tensor:
    weights = torch.zeros(len(nodes.features))
    weights[list(places)] = 1
    return weights


def shares(scores: Tensor, *counts: int) -> list[float]:
    """The share of each of the first parts that is selected."""
    return [float((some > 0.5).float().mean()) for some in scores[: sum(counts)].split(list(counts))]


def test_a_region_ends_where_the_look_changes() -> None:
    nodes = row((B, 200), (A, 60), (C, 200))
    assert shares(grow_from_points(nodes, [at(nodes, 230)]), 200, 60, 200) == [0, 1, 0]


def test_a_region_does_not_jump_a_gap() -> None:
    nodes = row((A, 60), (A, 60), (B, 300), gaps=(1, 2))
    assert shares(grow_from_points(nodes, [at(nodes, 5)]), 60, 60, 300) == [1, 0, 0]
    assert shares(grow_from_points(nodes, [at(nodes, 5), at(nodes, 70)]), 60, 60, 300) == [1, 1, 0]


def test_a_mixture_of_thing_and_surroundings_counts_by_its_share() -> None:
    mixed = [(A * share + B * (1 - share), 2) for share in (0.8, 0.7, 0.3)]
    nodes = row((A, 60), *mixed, (B, 300), noise=0.01)
    scores = grow_from_points(nodes, [at(nodes, 30)])
    assert shares(scores, 60, 2, 2, 2, 300) == [1, 1, 1, 0, 0]
    assert scores[60:66].tolist() == pytest.approx([0.8, 0.8, 0.7, 0.7, 0.3, 0.3], abs=0.05)


def test_what_is_half_like_it_joins_only_at_the_border() -> None:
    nodes = row((A, 100), (0.54 * A + 0.46 * B, 200), (B, 200), noise=0.01)
    selected = grow_from_points(nodes, [at(nodes, 50)]) > 0.5
    assert selected[:100].all()
    assert selected[100:].sum() <= 6  # twice three neighbours


def test_between_equal_things_the_nearer_point_decides() -> None:
    nodes = row((A, 100), (B, 200), gaps=(1,))
    selected = grow_from_points(nodes, [at(nodes, 10)], [at(nodes, 80)]) > 0.5
    border = int(selected[:100].sum())
    assert 38 <= border <= 52 and selected[:border].all() and not selected[border:].any()


def test_between_unequal_things_the_look_decides() -> None:
    nodes = row((A, 90), (C, 30), (B, 200), gaps=(2,))
    near = grow_from_points(nodes, [at(nodes, 10)], [at(nodes, 91)])
    assert shares(near, 87, 6, 27, 200)[0] == 1 and shares(near, 93, 27, 200)[1] == 0


def test_a_mask_votes_and_what_it_does_not_show_joins_by_look_and_connection() -> None:
    """The view shows half of the thing, and of two others like it one beside the mask."""
    nodes = row((A, 40), (A, 40), (B, 100), (A, 40), (B, 100), (A, 40), gaps=(5,))
    inside, outside = torch.zeros(360), torch.zeros(360)
    inside[:40] = 5.0
    outside[80:180] = 5.0
    scores = grow_from_mask(nodes, inside, outside)
    assert shares(scores, 40, 40, 100, 40, 100, 40) == [1, 1, 0, 0, 0, 0]
    outside[40:80] = 50.0  # now it shows that the other half is not meant
    assert shares(grow_from_mask(nodes, inside, outside), 40, 40, 100)[:2] == [1, 0]


def test_a_mask_outweighs_the_look_where_the_view_shows_much() -> None:
    nodes = row((A, 60), (B, 60))
    inside = torch.cat([torch.full((70,), 40.0), torch.zeros(50)])
    outside = 40 - inside
    assert shares(grow_from_mask(nodes, inside, outside), 60, 10, 50) == [1, 1, 0]


def test_what_a_box_cuts_through_is_not_its_thing() -> None:
    """Two parts of three of something else are in the box, too, more than of the thing itself."""
    nodes = row((A, 30), (C, 90), (B, 200), gaps=(1, 2))
    inside = torch.cat([torch.ones(30), torch.ones(60), torch.zeros(30), torch.zeros(200)])
    around = 1 - inside
    scores = grow_from_box(nodes, inside, around, torch.zeros(320))
    assert shares(scores, 30, 90, 200) == [1, 0, 0]


def test_what_a_box_does_not_show_joins_by_look_and_connection() -> None:
    nodes = row((A, 30), (A, 20), (B, 100), (B, 100), (A, 30), gaps=(4,))
    inside = torch.cat([torch.full((30,), 2.0), torch.zeros(250)])
    around = torch.zeros(280)
    around[50:150] = 2.0
    around[30:50] = 1e-4  # next to nothing shines through
    beyond = torch.zeros(280)
    assert shares(grow_from_box(nodes, inside, around, beyond), 30, 20, 100, 100, 30) == [1, 1, 0, 0, 0]
    beyond[30:50] = 2.0  # seen elsewhere in the picture: then it is no part of what the box holds
    assert shares(grow_from_box(nodes, inside, around, beyond), 30, 20, 100)[1] == 0


def test_a_box_without_a_thing_is_what_it_shows() -> None:
    nodes = row((B, 50), (B, 250))
    inside = torch.cat([torch.ones(50), torch.zeros(250)])
    assert shares(grow_from_box(nodes, inside, 1 - inside, torch.zeros(300)), 50, 250) == [1, 0]
