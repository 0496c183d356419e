"""Nearness of features in the teacher's space, against formulas written out."""

import pytest
import torch
from things import small_decoder
from torch.nn import functional

from feature_gs.errors import UserError
from feature_gs.features.decoders import make_decoder
from feature_gs.queries.similarity import common_direction, cosines, distance_of, evened, mean_direction


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cosines_are_those_of_decoded_features() -> None:
    features, decoder = random(50, 5), small_decoder("linear")
    queries = functional.normalize(random(3, 8, seed=1), dim=1)
    true = functional.normalize(decoder.decode_gaussians(features), dim=1) @ queries.t()
    torch.testing.assert_close(cosines(features, queries, decoder), true.detach())
    plain = functional.normalize(random(50, 8), dim=1) @ queries.t()
    torch.testing.assert_close(cosines(random(50, 8), queries), plain)
    torch.testing.assert_close(cosines(random(50, 8), queries, make_decoder("none", 8, 8)), plain)


def test_a_feature_of_zero_is_like_nothing() -> None:
    assert cosines(torch.zeros(2, 8), torch.eye(8)[:1]).tolist() == [[0], [0]]
    assert cosines(torch.zeros(0, 8), torch.eye(8)[:3]).shape == (0, 3)


def test_cosines_do_not_change_with_the_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, queries = random(50, 8), functional.normalize(random(3, 8, seed=1), dim=1)
    whole = cosines(features, queries)
    monkeypatch.setattr("feature_gs.queries.similarity._NUMBERS", 24)
    torch.testing.assert_close(cosines(features, queries), whole)


def test_a_3x3_decoder_has_no_single_gaussians() -> None:
    with pytest.raises(UserError, match="conv3x3"):
        cosines(random(3, 5), torch.eye(8)[:1], small_decoder("conv3x3"))


def test_distances_of_unit_vectors_follow_from_cosines() -> None:
    cosine = torch.tensor([1.0, 0.5, 0, -1])
    torch.testing.assert_close(distance_of(cosine), torch.tensor([0, 1, 2**0.5, 2]))
    a, b = functional.normalize(random(2, 8), dim=1)
    torch.testing.assert_close(distance_of(a @ b), (a - b).norm())


def test_the_mean_is_that_of_unit_features() -> None:
    features = torch.tensor([[10.0, 0], [0, 0.1], [5, 5]])
    weights = torch.tensor([1.0, 1, 0])
    torch.testing.assert_close(mean_direction(features, weights), torch.full((2,), 0.5**0.5))


def test_what_most_have_in_common_does_not_heed_the_others() -> None:
    features = torch.cat([torch.eye(4)[:1] + 0.05 * random(6, 4), torch.eye(4)[1:2].expand(4, -1)])
    weights = torch.full((10,), 0.1)
    direction, kept = common_direction(features, weights)
    assert direction[0] > 0.99 and abs(direction[1]) < 0.05
    assert (kept[:6] > 0.09).all() and (kept[6:] < 0.01).all()
    heavy = torch.where(torch.arange(10) < 6, 0.05, 0.2)  # weight decides, not number
    assert common_direction(features, heavy)[0][1] > 0.99


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_evened_channels_have_mean_0_and_the_root_of_their_spread(kind: str) -> None:
    if kind == "linear":
        features, decoder = random(400, 5) + 3, small_decoder("linear")
        before = decoder.decode_gaussians(features).detach()
    else:
        features, decoder = random(400, 8) * torch.arange(8) + 5, None  # the first channel is constant
        before = features
    seen = torch.arange(400) % 4 > 0
    after, new = evened(features, seen, decoder)
    decoded = after if new is None else new.decode_gaussians(after).detach()
    torch.testing.assert_close(decoded[seen].mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    spread = (before[seen] - before[seen].mean(dim=0)).square().mean(dim=0).sqrt()
    torch.testing.assert_close(decoded[seen].square().mean(dim=0).sqrt(), spread.sqrt(), atol=1e-3, rtol=1e-3)
    if kind == "none":
        assert not after[~seen].any()


def test_nothing_seen_is_nothing_to_even_out() -> None:
    features = random(4, 3)
    assert evened(features, torch.zeros(4, dtype=torch.bool))[0] is features
