"""Surgery on parameters and Adam's moments: a row and its moments must stay together."""

import pytest
import torch

from feature_gs.gaussians import GaussianModel
from feature_gs.training.optimizer import GaussianOptimizer

RATES = {
    "means": 1e-3,
    "quats": 1e-3,
    "log_scales": 1e-3,
    "logit_opacities": 1e-3,
    "sh_dc": 1e-3,
    "sh_rest": 1e-3,
}


def tagged(count: int, sh_degree: int = 1) -> tuple[GaussianModel, GaussianOptimizer]:
    """Row i of every parameter is i, of `exp_avg` 100 + i, of `exp_avg_sq` 200 + i."""
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    model = GaussianModel.from_points(points, torch.zeros(count, 3, dtype=torch.uint8), sh_degree)
    while model.raise_sh_degree():
        pass
    optimizer = GaussianOptimizer(model, RATES)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    rows = torch.arange(float(count))
    for name, parameter in model.named_parameters():
        tag = rows.reshape(-1, *[1] * (parameter.dim() - 1))
        parameter.data[:] = tag
        for offset, moment in zip((100, 200), optimizer.moments(name).values(), strict=True):
            moment[:] = tag + offset
    return model, optimizer


def rows_of(tensor: torch.Tensor) -> list[float]:
    """The tag of each row; fails if a row is not all of one value."""
    flat = tensor.detach().reshape(len(tensor), -1)
    assert torch.equal(flat.amin(1), flat.amax(1))
    return [float(value) for value in flat[:, 0]]


def test_restructure_keeps_rows_and_moments_together() -> None:
    model, optimizer = tagged(5)
    added = {name: torch.full_like(p[:2].detach(), 50) for name, p in model.named_parameters()}
    optimizer.restructure(torch.tensor([4, 0, 2]), added)
    assert len(model) == 5
    for name, parameter in model.named_parameters():
        assert rows_of(parameter) == [4, 0, 2, 50, 50]
        moments = optimizer.moments(name)
        assert rows_of(moments["exp_avg"]) == [104, 100, 102, 0, 0]
        assert rows_of(moments["exp_avg_sq"]) == [204, 200, 202, 0, 0]
        assert parameter.is_leaf and parameter.requires_grad


def test_a_step_after_restructure_moves_the_new_parameters() -> None:
    model, optimizer = tagged(4)
    optimizer.restructure(torch.tensor([1, 2]))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert len(model) == 2
    for name, parameter in model.named_parameters():
        assert (parameter < before[name]).all(), name
        assert parameter.grad is None


def test_everyone_may_go() -> None:
    model, optimizer = tagged(3)
    optimizer.restructure(torch.zeros(0, dtype=torch.int64))
    assert len(model) == 0 and model.sh_rest.shape == (0, 3, 3)


def test_overwrite_zeroes_moments_of_those_rows_only() -> None:
    model, optimizer = tagged(4)
    optimizer.overwrite("log_scales", torch.full((2, 3), 9.0), rows=torch.tensor([1, 3]))
    assert rows_of(model.log_scales) == [0, 9, 2, 9]
    assert rows_of(optimizer.moments("log_scales")["exp_avg"]) == [100, 0, 102, 0]
    assert rows_of(optimizer.moments("means")["exp_avg"]) == [100, 101, 102, 103]
    optimizer.overwrite("logit_opacities", torch.full((4,), -3.0))
    assert rows_of(model.logit_opacities) == [-3] * 4
    assert rows_of(optimizer.moments("logit_opacities")["exp_avg_sq"]) == [0] * 4


def test_sh_growth_keeps_old_moments_and_starts_new_ones_at_zero() -> None:
    model, optimizer = tagged(3, sh_degree=1)
    model.sh_degree = 2
    assert optimizer.raise_sh_degree()
    moments = optimizer.moments("sh_rest")
    assert model.sh_rest.shape == moments["exp_avg"].shape == (3, 8, 3)
    assert rows_of(moments["exp_avg"][:, :3]) == [100, 101, 102]
    assert not moments["exp_avg"][:, 3:].any() and not moments["exp_avg_sq"][:, 3:].any()
    assert not optimizer.raise_sh_degree()


def test_degree_zero_trains_without_rest_and_then_with() -> None:
    model = GaussianModel.from_points(torch.randn(3, 3), torch.zeros(3, 3, dtype=torch.uint8), 1)
    optimizer = GaussianOptimizer(model, RATES)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.raise_sh_degree()
    assert model.sh_rest.shape == (3, 3, 3)
    assert torch.allclose(model.sh_rest, torch.tensor(-1e-3)), "Adam's first step is the learning rate"


def test_state_moves_to_another_optimizer_bit_by_bit() -> None:
    model, optimizer = tagged(4)
    copy = GaussianModel(
        **{name: p.detach().clone() for name, p in model.named_parameters()}, sh_degree=model.sh_degree
    )
    other = GaussianOptimizer(copy, RATES)
    other.load_state_dict(
        {name: {k: v.clone() for k, v in s.items()} for name, s in optimizer.state_dict().items()}
    )
    for one in (model, copy):
        for i, parameter in enumerate(one.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (i + 1))
    optimizer.step()
    other.step()
    for (name, first), second in zip(model.named_parameters(), copy.parameters(), strict=True):
        assert torch.equal(first, second), name
    with pytest.raises(ValueError, match="exp_avg of means must be"):
        other.load_state_dict({"means": {"exp_avg": torch.zeros(2, 3)}})
