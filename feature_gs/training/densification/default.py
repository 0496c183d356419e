"""The reference's adaptive density control: clone, split, prune, and lower opacities from time to time."""

from collections.abc import Mapping

import torch
from torch import Tensor

from feature_gs.gaussians.geometry import rotate
from feature_gs.rasterizer import RenderOutput
from feature_gs.training.config import TrainConfig
from feature_gs.training.densification.base import Strategy
from feature_gs.training.optimizer import GaussianOptimizer
from feature_gs.training.schedule import Schedule

_CHILDREN = 2
_SHRINK = 0.8 * _CHILDREN
_RESET_OPACITY = 0.01
_LARGE_EXTENT_SHARE = 0.1
_THRESHOLD = 2e-4
_ABSGRAD_THRESHOLD = 8e-4


class DefaultStrategy(Strategy):
    """Adds Gaussians where the screen positions have large gradients.

    The gradient of a centre in pixels is brought to the reference's units by [W/2, H/2] and averaged over
    the views in which the Gaussian was visible. From the threshold on, a small Gaussian is cloned, a large
    one replaced by two drawn from it. Then nearly transparent Gaussians go, and after the first opacity
    reset also those larger than a tenth of the extent.
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        optimizer: GaussianOptimizer,
        extent: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(config, schedule, optimizer, extent, generator)
        self.absgrad = config.absgrad
        usual = _ABSGRAD_THRESHOLD if config.absgrad else _THRESHOLD
        given = config.densify_grad_threshold
        self.threshold = usual if given is None else given
        self._forget()

    def watches(self, iteration: int) -> bool:
        """As long as Gaussians are added, gradients are gathered."""
        return iteration <= self.schedule.densify_until_iter

    def prepare(self, output: RenderOutput) -> None:
        """Keeps the gradient of the screen positions."""
        if not self.absgrad:
            output.means2d.retain_grad()

    def observe(self, output: RenderOutput) -> None:
        """Adds this view's gradients, which are zero for Gaussians that it does not show."""
        source = output.absgrad if self.absgrad else output.means2d
        assert source is not None and source.grad is not None
        height, width = output.color.shape[1:3]
        gradient = source.grad[0]
        if self.optimizer.blocked is not None:
            gradient = gradient.masked_fill(self.optimizer.blocked > 0, 0)
        self.gradient_sum += torch.hypot(gradient[:, 0] * (width / 2), gradient[:, 1] * (height / 2))
        self.views += output.radii[0] > 0
        if self.config.max_screen_size > 0:
            torch.maximum(self.largest_radius, output.radii[0], out=self.largest_radius)

    @torch.no_grad()
    def after_step(self, iteration: int) -> None:
        """Densifies and resets opacities when the schedule says so."""
        if self.schedule.densifies_at(iteration):
            self.densify(large_too=iteration > self.schedule.opacity_reset_interval)
        if self.schedule.resets_opacity_at(iteration):
            self.reset_opacities()

    @torch.no_grad()
    def densify(self, large_too: bool) -> None:
        """Clones, splits and prunes once, and starts new statistics.

        Args:
            large_too: Also remove Gaussians that are too large for the scene or the screen.
        """
        model = self.model
        largest = model.scales.amax(dim=1)
        chosen = self.gradient_sum / self.views.clamp_min(1) >= self.threshold
        small = largest <= self.config.percent_dense * self.extent
        dying = model.opacities < self.config.min_opacity
        too_large = torch.zeros_like(dying)
        if large_too:
            too_large = largest > _LARGE_EXTENT_SHARE * self.extent
            if self.config.max_screen_size > 0:
                dying |= self.largest_radius > self.config.max_screen_size
        cloned = (chosen & small & ~dying).nonzero()[:, 0]
        # A Gaussian that is too large may still have children that are not.
        parents = (chosen & ~small & ~dying).nonzero()[:, 0].repeat(_CHILDREN)
        if large_too:
            parents = parents[largest[parents] / _SHRINK <= _LARGE_EXTENT_SHARE * self.extent]
        kept = ~(chosen & ~small) & ~dying & ~too_large
        added = {
            name: torch.cat([parameter[cloned], parameter[parents]])
            for name, parameter in model.named_parameters()
        }
        self._scatter(added, parents, len(cloned))
        self.optimizer.restructure(kept.nonzero()[:, 0], added)
        self._forget()

    @torch.no_grad()
    def reset_opacities(self) -> None:
        """Lowers all opacities to at most 0.01; those that matter come back."""
        limit = torch.logit(torch.tensor(_RESET_OPACITY)).item()
        self.optimizer.overwrite("logit_opacities", self.model.logit_opacities.clamp_max(limit))

    def state_dict(self) -> dict[str, Tensor]:
        """The statistics since the last densification."""
        return {
            "gradient_sum": self.gradient_sum,
            "views": self.views,
            "largest_radius": self.largest_radius,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes up statistics.

        Raises:
            ValueError: They are missing or of another number of Gaussians.
        """
        for name in self.state_dict():
            tensor = state.get(name)
            if tensor is None or tensor.shape != (len(self.model),):
                raise ValueError(f"densification state {name} must be [{len(self.model)}]")
            setattr(self, name, tensor.to(self.model.means.device, copy=True))

    def _scatter(self, added: dict[str, Tensor], parents: Tensor, clones: int) -> None:
        """Draws the children's places from their parents and shrinks them; they follow `clones` rows."""
        model = self.model
        scales = model.scales[parents]
        draws = torch.randn(scales.shape, generator=self.generator, device=scales.device)
        added["means"][clones:] += rotate(model.quats[parents], draws * scales)
        added["log_scales"][clones:] = (scales / _SHRINK).log()

    def _forget(self) -> None:
        count, device = len(self.model), self.model.means.device
        self.gradient_sum = torch.zeros(count, device=device)
        self.views = torch.zeros(count, dtype=torch.int32, device=device)
        self.largest_radius = torch.zeros(count, dtype=torch.int32, device=device)
