"""3DGS as Markov chain Monte Carlo: dead Gaussians move to live ones, the number grows up to a cap."""

import math

import torch
from torch import Tensor

from feature_gs.gaussians.geometry import rotate
from feature_gs.training.densification.base import Strategy

_GROWTH = 1.05
_MOST_COPIES = 51
_NOISE_STEEPNESS = 100.0
_NOISE_OPACITY = 0.005
_NEGLIGIBLE_NOISE_OPACITY = 0.2  # exp(-100 * (0.2 - 0.005)) is 3e-9 of the full noise


class McmcStrategy(Strategy):
    """Kheradmand et al. 2024: relocation, growth by 5 % up to `cap_max`, noise, and two regularisers.

    Two things differ from the paper, measured on a real scene with 2,000 steps. The first Gaussians are those
    of the default strategy (not of opacity 0.5 and a tenth of the size), which was 0.7 dB better. Noise and
    regularisers default to a fifth and a tenth of the paper's 5e5 and 0.01, which together with growing more
    often was 0.6 dB better.
    """

    def penalty(self) -> Tensor:
        """Small where Gaussians are few: weighted means of the opacities and of the scales."""
        return (
            self.config.opacity_reg * self.model.opacities.mean()
            + self.config.scale_reg * self.model.scales.mean()
        )

    @torch.no_grad()
    def after_step(self, iteration: int) -> None:
        """Relocates and grows when the schedule says so; adds noise at every step."""
        if self.schedule.densifies_at(iteration):
            self.relocate()
            self.grow()
        self.add_noise()

    @torch.no_grad()
    def relocate(self) -> int:
        """Moves the dead Gaussians onto live ones, drawn by opacity; returns how many moved."""
        opacities = self.model.opacities
        dead = (opacities <= self.config.min_opacity).nonzero()[:, 0]
        alive = (opacities > self.config.min_opacity).nonzero()[:, 0]
        if not len(dead) or not len(alive):
            return 0
        sources = alive[self._draw(opacities[alive], len(dead))]
        self._share(sources)
        for name, parameter in self.model.named_parameters():
            self.optimizer.overwrite(name, parameter[sources], rows=dead)
        return len(dead)

    @torch.no_grad()
    def grow(self) -> int:
        """Adds Gaussians on top of live ones, drawn by opacity; returns how many."""
        count = len(self.model)
        missing = min(self.config.cap_max, math.ceil(count * _GROWTH)) - count
        if missing <= 0 or not count:
            return 0
        sources = self._draw(self.model.opacities, missing)
        self._share(sources)
        everyone = torch.arange(count, device=sources.device)
        added = {name: parameter.detach()[sources] for name, parameter in self.model.named_parameters()}
        self.optimizer.restructure(everyone, added)
        return missing

    @torch.no_grad()
    def add_noise(self) -> None:
        """Moves the nearly transparent Gaussians at random, within their own shape.

        The others' noise, below 3e-9 of the full strength, is left out on the CPU; a GPU gives it them, as
        counting the rest would mean waiting.
        """
        opacities, scales = self.model.opacities, self.model.scales
        quats: Tensor = self.model.quats
        faint = torch.arange(len(opacities), device=opacities.device)
        if opacities.device.type == "cpu":
            faint = (opacities < _NEGLIGIBLE_NOISE_OPACITY).nonzero()[:, 0]
            opacities, quats, scales = opacities[faint], quats[faint], scales[faint]
        gate = torch.sigmoid(-_NOISE_STEEPNESS * (opacities - _NOISE_OPACITY))
        if self.optimizer.blocked is not None:
            gate = gate.masked_fill(self.optimizer.blocked > 0, 0)
        strength = gate * self.config.noise_lr * self.optimizer.rate("means")
        draws = torch.randn(scales.shape, generator=self.generator, device=scales.device)
        # The covariance R S^2 R^T times a draw in world axes.
        inverse = torch.cat([quats[:, :1], -quats[:, 1:]], dim=1)
        moved = rotate(quats, scales.square() * rotate(inverse, draws * strength[:, None]))
        self.model.means.index_add_(0, faint, moved)

    def _draw(self, weights: Tensor, count: int) -> Tensor:
        """`count` indices, drawn with replacement (torch.multinomial stops at 2^24 weights)."""
        ends = weights.double().cumsum(0)
        places = torch.rand(count, generator=self.generator, dtype=torch.float64, device=weights.device)
        return torch.searchsorted(ends, places * ends[-1], right=True).clamp_max(len(weights) - 1)

    def _share(self, sources: Tensor) -> None:
        """Gives each source the opacity and scale that it and its copies need to look as it did alone."""
        rows, copies = sources.unique(return_counts=True)
        opacities, scales = shared_shape(
            self.model.opacities[rows], self.model.scales[rows], (copies + 1).clamp_max(_MOST_COPIES)
        )
        lowest, highest = self.config.min_opacity, 1 - torch.finfo(opacities.dtype).eps
        self.optimizer.overwrite("logit_opacities", torch.logit(opacities.clamp(lowest, highest)), rows=rows)
        self.optimizer.overwrite("log_scales", scales.log(), rows=rows)


def shared_shape(
    opacities: Tensor,  # [M]
    scales: Tensor,  # [M, 3]
    counts: Tensor,  # [M]
) -> tuple[Tensor, Tensor]:
    """Opacity and scale of n equal Gaussians in one place that together look like one.

    With o the old opacity, each gets `o' = 1 - (1 - o)^(1/n)`, so that light passes all n as it passed the
    one, and the scale times `o / D` with
    `D = sum_{i=1..n} sum_{k<i} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)`,
    so that the integral of the blended opacity along a line through the centre stays. Summing over i first
    (hockey stick) leaves `D = sum_{k=1..n} C(n, k) (-1)^(k-1) o'^k / sqrt(k)`.

    Args:
        opacities: Old opacities in (0, 1). [M]
        scales: Old scales. [M, 3]
        counts: How many Gaussians take its place, 1..51. [M] int64

    Returns:
        New opacities [M] and scales [M, 3].
    """
    old, n = opacities.double()[:, None], counts.double()[:, None]
    new = -torch.expm1(torch.log1p(-old) / n)
    k = torch.arange(1, _MOST_COPIES + 1, dtype=torch.float64, device=opacities.device)
    log_binomial = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    terms = torch.exp(log_binomial + k * new.log()) / k.sqrt() * (-1) ** (k - 1) * (k <= n)
    factor = old / terms.sum(dim=1, keepdim=True)
    return new[:, 0].to(opacities), (scales.double() * factor).to(scales)
