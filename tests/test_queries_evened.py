"""The space in which regions grow: channels have mean 0 over what is seen, and spreads that differ less."""

import pytest
import torch

from feature_gs.features.decoders import make_decoder
from feature_gs.queries.similarity import cosines, evened


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_decoded_channels_have_mean_zero_and_the_root_of_their_spread(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 6, generator=generator) * torch.arange(1, 7) + 5
    seen = torch.arange(300) % 3 > 0
    decoder = make_decoder(kind, 6, 6 if kind == "none" else 9, generator=generator)
    changed, other = evened(features, seen, decoder)
    rows = changed if other is None else other.decode_gaussians(changed).detach()
    assert torch.allclose(rows[seen].mean(0), torch.zeros(rows.shape[1]), atol=1e-4)
    spread = decoder.decode_gaussians(features).detach()[seen].std(0, unbiased=False)
    assert torch.allclose(rows[seen].std(0, unbiased=False), spread.sqrt(), rtol=1e-3)


def test_what_a_scene_has_in_common_says_nothing() -> None:
    """Two kinds that differ little beside what they share are opposite once that is taken away."""
    features = torch.tensor([[100.0, 1.0], [100.0, -1.0]]).repeat(20, 1)
    seen = torch.ones(40, dtype=torch.bool)
    query = torch.tensor([[100.0, 1.0]])
    assert cosines(features, query / query.norm())[1] > 0.99
    changed, _ = evened(features, seen)
    assert torch.allclose(cosines(changed, changed[:1])[:2, 0], torch.tensor([1.0, -1.0]))


def test_nothing_seen_and_constant_channels_stay_finite() -> None:
    features = torch.ones(5, 3)
    for seen in (torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        changed, decoder = evened(features, seen, None)
        assert decoder is None and bool(changed.isfinite().all())
