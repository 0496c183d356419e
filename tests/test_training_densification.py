"""Densification: who is cloned, split, pruned, relocated; laws that hold for what comes out."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from feature_gs.gaussians import GaussianModel
from feature_gs.training import TrainConfig
from feature_gs.training.densification import DefaultStrategy, McmcStrategy
from feature_gs.training.densification.base import Strategy
from feature_gs.training.densification.mcmc import shared_shape
from feature_gs.training.optimizer import GaussianOptimizer
from feature_gs.training.schedule import schedule_for

EXTENT = 10.0
RATES = dict.fromkeys(("means", "quats", "log_scales", "logit_opacities", "sh_dc", "sh_rest"), 1e-3)


def build(
    kind: type[Strategy], scales: list[float], opacities: list[float], **settings: Any
) -> tuple[GaussianModel, Any]:
    """Round Gaussians on the x axis at 0, 10, 20, ... whose red is their number."""
    count = len(scales)
    means = torch.zeros(count, 3)
    means[:, 0] = 10.0 * torch.arange(count)
    red = torch.zeros(count, 3)
    red[:, 0] = torch.arange(count)
    model = GaussianModel(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        log_scales=torch.tensor(scales).log()[:, None].repeat(1, 3),
        logit_opacities=torch.logit(torch.tensor(opacities)),
        sh_dc=red,
        sh_rest=torch.zeros(count, 0, 3),
        sh_degree=0,
    )
    optimizer = GaussianOptimizer(model, RATES)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        for moment in optimizer.moments(name).values():
            moment[:] = torch.arange(1.0, count + 1).reshape(-1, *[1] * (parameter.dim() - 1))
    config = replace(TrainConfig(), **settings)
    generator = torch.Generator().manual_seed(0)
    schedule = schedule_for(config.iterations, config.strategy)
    return model, kind(config, schedule, optimizer, EXTENT, generator)


def view(gradient: Tensor, radii: list[int], width: int = 200, height: int = 100) -> Any:
    """What a renderer leaves after the backward pass."""
    means2d = torch.zeros(1, len(radii), 2, requires_grad=True)
    means2d.grad = gradient[None]
    absgrad = torch.zeros(1, len(radii), 2, requires_grad=True)
    absgrad.grad = 3 * gradient[None]
    return SimpleNamespace(
        means2d=means2d,
        absgrad=absgrad,
        radii=torch.tensor([radii], dtype=torch.int32),
        color=torch.zeros(1, height, width, 3),
    )


def tags(model: GaussianModel) -> list[int]:
    return [int(value) for value in model.sh_dc[:, 0]]


def test_gradients_are_averaged_over_views_in_half_image_units() -> None:
    model, strategy = build(DefaultStrategy, [0.01] * 3, [0.5] * 3)
    first = torch.tensor([[1e-6, 0.0], [0.0, 4e-6], [0.0, 0.0]])
    strategy.observe(view(first, [5, 5, 0]))
    strategy.observe(view(first, [5, 5, 0]))
    strategy.observe(view(torch.zeros(3, 2), [5, 0, 0]))
    assert strategy.views.tolist() == [3, 2, 0]
    means = (strategy.gradient_sum / strategy.views.clamp_min(1)).tolist()
    assert means == pytest.approx([2 * 1e-6 * 100 / 3, 4e-6 * 50, 0])


def test_clone_split_prune_and_their_moments() -> None:
    #        stays  clone  split  dies   dies though it would split
    scales = [0.05, 0.05, 0.5, 0.05, 0.5]
    opacities = [0.5, 0.5, 0.5, 0.004, 0.004]
    model, strategy = build(DefaultStrategy, scales, opacities)
    hot = torch.tensor([0.0, 3e-6, 3e-6, 3e-6, 3e-6])
    strategy.observe(view(torch.stack([hot, hot * 0], 1), [3] * 5))
    strategy.densify(large_too=False)
    model = strategy.model
    assert tags(model) == [0, 1, 1, 2, 2]
    assert torch.equal(model.means[1], model.means[2]), "a clone lies on its original"
    assert torch.allclose(model.scales[3:], torch.tensor(0.5 / 1.6))
    assert not torch.equal(model.means[3], model.means[4])
    assert ((model.means[3:] - torch.tensor([20.0, 0, 0])).norm(dim=1) < 5 * 0.5).all()
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh_dc"):
        moment = strategy.optimizer.moments(name)["exp_avg"].reshape(5, -1)[:, 0]
        assert moment.tolist() == [1, 2, 0, 0, 0], name
    assert strategy.gradient_sum.tolist() == [0] * 5 and strategy.views.tolist() == [0] * 5


def test_counts_add_up() -> None:
    generator = torch.Generator().manual_seed(1)
    scales = (0.02 + 0.3 * torch.rand(200, generator=generator)).tolist()
    model, strategy = build(DefaultStrategy, scales, [0.5] * 200)
    gradient = 4e-6 * torch.rand(200, 1, generator=generator) * torch.tensor([1.0, 0])
    strategy.observe(view(gradient, [3] * 200))
    chosen = gradient[:, 0] * 100 >= 2e-4
    assert 20 < chosen.sum() < 180
    strategy.densify(large_too=False)
    # a clone adds one; a split adds two and takes one away
    assert len(strategy.model) == 200 + int(chosen.sum())


def test_split_children_are_drawn_from_their_parent() -> None:
    count = 4000
    model, strategy = build(DefaultStrategy, [1.0], [0.5])
    tensors = {name: p.detach().repeat(count, *[1] * (p.dim() - 1)) for name, p in model.named_parameters()}
    tensors["log_scales"][:] = torch.tensor([0.2, 1.0, 3.0]).log()
    tensors["quats"][:] = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])  # x -> y, y -> -x
    big = GaussianModel(**tensors, sh_degree=0)
    strategy.optimizer = GaussianOptimizer(big, RATES)
    strategy._forget()
    strategy.observe(view(torch.full((count, 2), 1e-3), [3] * count))
    strategy.densify(large_too=False)
    assert len(strategy.model) == 2 * count
    spread = strategy.model.means.std(dim=0).tolist()
    assert spread == pytest.approx([1.0, 0.2, 3.0], rel=0.05)


def test_large_gaussians_go_after_the_first_reset_only() -> None:
    settings = {"max_screen_size": 20.0}
    for large_too, expected in ((False, [0, 1, 2]), (True, [0])):
        _, strategy = build(DefaultStrategy, [0.05, 0.05, 1.01], [0.5] * 3, **settings)
        strategy.observe(view(torch.zeros(3, 2), [20, 21, 5]))
        strategy.densify(large_too=large_too)
        assert tags(strategy.model) == expected


def test_absgrad_uses_its_own_gradient_and_threshold() -> None:
    # 3 x 2e-6 x 100 = 6e-4 lies below 8e-4, 3 x 3e-6 x 100 = 9e-4 above
    _, strategy = build(DefaultStrategy, [0.05] * 2, [0.5] * 2, absgrad=True)
    strategy.observe(view(torch.tensor([[2e-6, 0.0], [3e-6, 0.0]]), [3, 3]))
    strategy.densify(large_too=False)
    assert tags(strategy.model) == [0, 1, 1]


def test_opacity_reset_lowers_and_never_raises() -> None:
    model, strategy = build(DefaultStrategy, [0.05] * 3, [0.9, 0.006, 0.01])
    strategy.reset_opacities()
    assert model.opacities.tolist() == pytest.approx([0.01, 0.006, 0.01])
    assert not strategy.optimizer.moments("logit_opacities")["exp_avg"].any()
    assert strategy.optimizer.moments("means")["exp_avg"].all()


def test_default_strategy_acts_when_the_schedule_says() -> None:
    _, strategy = build(DefaultStrategy, [0.05] * 2, [0.5, 0.001])
    strategy.after_step(500)
    assert len(strategy.model) == 2
    strategy.after_step(600)
    assert len(strategy.model) == 1
    strategy.after_step(3000)
    assert strategy.model.opacities.item() == pytest.approx(0.01)


def test_state_goes_around() -> None:
    _, strategy = build(DefaultStrategy, [0.05] * 2, [0.5] * 2)
    strategy.observe(view(torch.full((2, 2), 1e-6), [3, 0]))
    _, other = build(DefaultStrategy, [0.05] * 2, [0.5] * 2)
    other.load_state_dict(strategy.state_dict())
    assert torch.equal(other.gradient_sum, strategy.gradient_sum) and torch.equal(other.views, strategy.views)
    _, third = build(DefaultStrategy, [0.05] * 3, [0.5] * 3)
    with pytest.raises(ValueError, match=r"gradient_sum must be \[3\]"):
        third.load_state_dict(strategy.state_dict())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 51])
def test_shared_opacity_lets_the_same_light_through(count: int) -> None:
    old = torch.tensor([0.01, 0.3, 0.9, 0.999])
    new, _ = shared_shape(old, torch.ones(4, 3), torch.full((4,), count))
    assert torch.allclose(1 - (1 - new.double()) ** count, old.double(), rtol=2e-5)


def test_shared_scale_of_two_by_hand() -> None:
    # n = 2: D = 2 o' - o'^2 / sqrt 2 with o' = 1 - sqrt(1 - o)
    new = 1 - math.sqrt(0.25)
    expected = 0.75 / (2 * new - new**2 / math.sqrt(2))
    _, scales = shared_shape(torch.tensor([0.75]), torch.tensor([[1.0, 2, 4]]), torch.tensor([2]))
    assert scales[0].tolist() == pytest.approx([expected, 2 * expected, 4 * expected])


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_shared_scale_keeps_the_integral_of_the_blended_opacity(count: int) -> None:
    x = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    old, scale = 0.8, 1.5
    new, scales = shared_shape(torch.tensor([old]), torch.tensor([[scale] * 3]), torch.tensor([count]))
    before = old * torch.exp(-x.square() / (2 * scale**2))
    one = new.double() * torch.exp(-x.square() / (2 * scales[0, 0].double() ** 2))
    after = 1 - (1 - one) ** count
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=1e-4)


def test_relocation_moves_the_dead_onto_the_living() -> None:
    _, strategy = build(McmcStrategy, [0.1] * 4, [0.004, 0.6, 0.005, 0.004])
    assert strategy.relocate() == 3
    model = strategy.model
    assert tags(model) == [1, 1, 1, 1]
    assert torch.equal(model.means, torch.tensor([[10.0, 0, 0]] * 4))
    through = (1 - model.opacities.double()).prod().item()
    assert through == pytest.approx(1 - 0.6, rel=1e-4)
    assert torch.equal(model.scales, model.scales[:1].expand(4, 3))
    moments = strategy.optimizer.moments("means")["exp_avg"]
    assert moments[:, 0].tolist() == [0, 2, 0, 0]
    assert not strategy.optimizer.moments("logit_opacities")["exp_avg"].any()


def test_relocation_without_dead_or_without_living_does_nothing() -> None:
    for opacities in ([0.5, 0.6], [0.001, 0.002]):
        _, strategy = build(McmcStrategy, [0.1] * 2, opacities)
        assert strategy.relocate() == 0
        assert strategy.model.opacities.tolist() == pytest.approx(opacities, rel=1e-4)


def test_growth_is_five_percent_up_to_the_cap() -> None:
    _, strategy = build(McmcStrategy, [0.1] * 100, [0.5] * 100, cap_max=107)
    assert [strategy.grow() for _ in range(3)] == [5, 2, 0]
    assert len(strategy.model) == 107
    through = (1 - strategy.model.opacities.double()).log().sum().item()
    assert through == pytest.approx(100 * math.log(0.5), rel=1e-4), (
        "all Gaussians together let as much through"
    )
    assert not strategy.optimizer.moments("means")["exp_avg"][100:].any()
    _, full = build(McmcStrategy, [0.1] * 3, [0.5] * 3, cap_max=2)
    assert full.grow() == 0 and len(full.model) == 3


def test_draws_follow_the_weights() -> None:
    _, strategy = build(McmcStrategy, [0.1], [0.5])
    drawn = strategy._draw(torch.tensor([0.0, 1.0, 3.0, 0.0]), 8000)
    shares = torch.bincount(drawn, minlength=4) / 8000
    assert shares[0] == 0 and shares[3] == 0
    assert shares[2].item() == pytest.approx(0.75, abs=0.02)


def test_noise_moves_the_faint_within_their_shape() -> None:
    count = 3000
    model, strategy = build(McmcStrategy, [1.0] * count, [0.005] * (count - 1) + [0.9], noise_lr=100.0)
    model.log_scales.data[:] = torch.tensor([0.1, 0.2, 0.5]).log()
    before = model.means.detach().clone()
    strategy.add_noise()
    moved = (model.means - before).detach()
    assert not moved[-1].any(), "the opaque one stays"
    # half the gate (opacity at its middle) x noise_lr x rate x covariance
    expected = [0.5 * 100 * 1e-3 * s**2 for s in (0.1, 0.2, 0.5)]
    assert moved[:-1].std(dim=0).tolist() == pytest.approx(expected, rel=0.06)


def test_penalty_is_the_weighted_means() -> None:
    _, strategy = build(McmcStrategy, [0.1, 0.3], [0.25, 0.75], opacity_reg=0.01, scale_reg=0.02)
    assert strategy.penalty().item() == pytest.approx(0.01 * 0.5 + 0.02 * 0.2)
