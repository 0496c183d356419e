"""Principal components: what a singular value decomposition of all features at once would say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_gs.features.pca import PcaAccumulator, fit_pca

pytestmark = pytest.mark.usefixtures("one_thread")


def features(count: int = 500, channels: int = 12, seed: int = 0) -> Tensor:
    """Features of clearly different variances in every direction, [count, channels]."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 0.2, channels)
    turn = torch.linalg.qr(torch.randn(channels, channels, generator=generator))[0]
    return torch.randn(count, channels, generator=generator) * spread @ turn + torch.arange(channels)


def in_batches(x: Tensor, *sizes: int) -> PcaAccumulator:
    sums = PcaAccumulator()
    for batch in x.split(list(sizes)) if sizes else [x]:
        sums.add(batch)
    return sums


def test_it_is_the_singular_value_decomposition() -> None:
    x = features()
    pca = in_batches(x, 1, 299, 0, 200).fit(5)
    values = x.double().numpy()
    centred = values - values.mean(axis=0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(pca.mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pca.variances, singular[:5] ** 2 / len(x), rtol=1e-5)
    np.testing.assert_allclose(np.abs((right[:5] @ pca.components.double().numpy()).diagonal()), 1, atol=1e-6)
    assert pca.total_variance == pytest.approx((singular**2).sum() / len(x))
    assert pca.explained == pytest.approx((singular[:5] ** 2).sum() / (singular**2).sum(), rel=1e-6)


def test_components_are_orthonormal_and_their_largest_entry_is_positive() -> None:
    pca = in_batches(features()).fit(12)
    torch.testing.assert_close(pca.components.T @ pca.components, torch.eye(12), atol=1e-5, rtol=0)
    assert (pca.components.gather(0, pca.components.abs().argmax(0, keepdim=True)) > 0).all()
    assert (pca.variances.diff() <= 0).all()


def test_batches_do_not_matter() -> None:
    x = features()
    one, many = in_batches(x).fit(4), in_batches(x, *[50] * 10).fit(4)
    torch.testing.assert_close(one.components, many.components, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.mean, many.mean)


def test_a_mean_far_from_zero_costs_no_precision() -> None:
    x = features().double()
    near, far = in_batches(x, 100, 400).fit(3), in_batches(x + 1e6, 100, 400).fit(3)
    torch.testing.assert_close(near.components, far.components, atol=1e-5, rtol=0)
    torch.testing.assert_close(near.variances, far.variances, atol=0, rtol=1e-5)


def test_all_components_reconstruct_and_fewer_lose_what_they_leave_out() -> None:
    x = features()
    whole, part = in_batches(x).fit(12), in_batches(x).fit(5)
    torch.testing.assert_close(whole.reconstruct(whole.project(x)), x, atol=1e-4, rtol=1e-4)
    lost = (part.reconstruct(part.project(x)) - x).square().sum(dim=1).mean().item()
    assert lost == pytest.approx(part.total_variance * (1 - part.explained), rel=1e-4)


def test_more_components_than_the_rank() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 2, generator=generator) @ torch.randn(2, 8, generator=generator) + 5
    pca = in_batches(x).fit(8)
    assert pca.explained == pytest.approx(1) and pca.variances[2:].max() < 1e-9
    torch.testing.assert_close(pca.components.T @ pca.components, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(pca.reconstruct(pca.project(x)), x, atol=1e-4, rtol=1e-4)


def test_features_that_do_not_vary() -> None:
    pca = in_batches(torch.full((7, 3), 2.0)).fit(2)
    assert pca.total_variance == 0 and pca.explained == 1 and torch.equal(pca.mean, torch.full((3,), 2.0))
    assert torch.equal(pca.project(torch.full((4, 3), 2.0)), torch.zeros(4, 2))


def test_maps_are_cells_of_channels() -> None:
    x = features(24)
    maps = [x[:12].T.reshape(12, 3, 4), x[12:].T.reshape(12, 2, 6)]
    torch.testing.assert_close(fit_pca(iter(maps), 3).components, in_batches(x).fit(3).components)


def test_shapes_of_projections() -> None:
    pca = in_batches(features()).fit(4)
    assert pca.project(torch.zeros(2, 3, 12, dtype=torch.float16)).shape == (2, 3, 4)
    assert pca.reconstruct(torch.zeros(2, 3, 4)).shape == (2, 3, 12)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least one feature"):
        PcaAccumulator().fit(1)
    with pytest.raises(ValueError, match="at least one feature"):
        fit_pca([], 1)
    for k in (0, 13):
        with pytest.raises(ValueError, match="1 to 12 components"):
            in_batches(features()).fit(k)
    with pytest.raises(ValueError, match=r"\[n, 12\]"):
        in_batches(features()).add(torch.zeros(4, 11))
